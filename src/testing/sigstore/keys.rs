//! Signing keys. Those on curves come from a seed, so that a failure can be repeated; RSA keys are fresh.

use std::fmt;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::oci::Digest;
use crate::verify::{PublicKey, pem};

/// A key that signs as cosign does.
pub struct FakeKey {
    secret: Secret,
    spki: Vec<u8>,
}

enum Secret {
    EcdsaP256(EcdsaKeyPair),
    EcdsaP384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

impl FakeKey {
    /// An ECDSA P-256 key, the kind that cosign makes. The same seed and label give the same key.
    pub fn p256(seed: u64, label: &str) -> Self {
        let scalar = seed_bytes(seed, label);
        let public = PrivateKey::from_private_key(&ECDH_P256, &scalar).unwrap().compute_public_key().unwrap();
        let key =
            EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_ASN1_SIGNING, &scalar, public.as_ref());
        let key = key.unwrap();
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        Self { spki: spki.as_ref().to_vec(), secret: Secret::EcdsaP256(key) }
    }

    /// An Ed25519 key.
    pub fn ed25519(seed: u64, label: &str) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&seed_bytes(seed, label)).unwrap();
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        Self { spki: spki.as_ref().to_vec(), secret: Secret::Ed25519(key) }
    }

    /// A fresh ECDSA P-384 key, which signs over SHA-384 as cosign 3 does.
    pub fn p384() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        Self { spki: spki.as_ref().to_vec(), secret: Secret::EcdsaP384(key) }
    }

    /// A fresh RSA key of 2048 bits.
    pub fn rsa() -> Self {
        Self::rsa_with(&RSA_PKCS1_SHA256)
    }

    /// A fresh RSA key of 2048 bits that signs over SHA-512.
    pub fn rsa_sha512() -> Self {
        Self::rsa_with(&RSA_PKCS1_SHA512)
    }

    fn rsa_with(encoding: &'static dyn RsaEncoding) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        Self { spki: spki.as_ref().to_vec(), secret: Secret::Rsa(key, encoding) }
    }

    /// Signs, over SHA-256 unless the key says otherwise (Ed25519 as it is).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::EcdsaP256(key) | Secret::EcdsaP384(key) => {
                key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            }
            Secret::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Secret::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// The public key, PEM.
    pub fn public_pem(&self) -> String {
        pem::write("PUBLIC KEY", &self.spki)
    }

    /// The public key as verification wants it.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_spki(&self.spki).unwrap()
    }

    /// Whether it is an Ed25519 key.
    pub(in crate::testing) fn is_ed25519(&self) -> bool {
        matches!(self.secret, Secret::Ed25519(_))
    }

    /// SHA-256 of its `SubjectPublicKeyInfo`: a log's id.
    pub fn fingerprint(&self) -> Digest {
        Digest::sha256(&self.spki)
    }

    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The same key for issuing certificates.
    pub(super) fn issuing(&self) -> rcgen::KeyPair {
        let Secret::EcdsaP256(key) = &self.secret else { panic!("only P-256 keys issue certificates here") };
        let pkcs8 = key.to_pkcs8v1().unwrap();
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }
}

impl fmt::Debug for FakeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FakeKey({})", self.fingerprint())
    }
}

/// 32 bytes that only seed and label decide.
pub(super) fn seed_bytes(seed: u64, label: &str) -> [u8; 32] {
    Digest::sha256(format!("sealgate fake sigstore {seed} {label}").as_bytes()).as_bytes().try_into().unwrap()
}
