//! What the keys of a certificate may do, as the certificate itself says (RFC 9580, 5.2.3 and 10.1).
//!
//! A ring is the operator's, so its self-signatures may still be made over SHA-1, as those of many vendors' keys are: to forge
//! one needs a second preimage. Revocation has no end and no date: what a revoked key signed does not count any more.

use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, PublicKey, PublicSubkey, Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Fingerprint, KeyDetails, KeyId, KeyVersion, PublicParams, SignedUser, Tag};

use super::error::OpenPgpError;
use super::message::SignedMessage;
use super::timestamp;
use crate::clock::Timestamp;
use crate::limits::OPENPGP_RSA_BITS_MIN;

/// A primary key or subkey that a signature may name, and whether it may sign.
#[derive(Debug)]
pub(super) struct SigningKey {
    pub(super) id: KeyId,
    pub(super) fingerprint: Fingerprint,
    /// The primary key's fingerprint, in upper case hexadecimal.
    pub(super) primary: String,
    pub(super) is_subkey: bool,
    /// The first moment at which it may not sign any more.
    pub(super) expires: Option<Timestamp>,
    created: Timestamp,
    key: Key,
    /// Why it may never sign.
    refused: Option<&'static str>,
}

#[derive(Debug)]
enum Key {
    Primary(PublicKey),
    Subkey(PublicSubkey),
}

/// The keys of a certificate: its primary key first.
pub(super) fn signing_keys(certificate: &SignedPublicKey) -> Vec<SigningKey> {
    let primary = &certificate.primary_key;
    let statement = Statement::of_primary(certificate);
    let revoked = is_revoked(certificate);
    let own = if revoked {
        Some(REVOKED)
    } else if let Some(why) = too_weak(primary) {
        Some(why)
    } else {
        match &statement {
            None => Some("it has no valid self-signature"),
            Some(statement) => (!statement.may_sign_by_default()).then_some(NOT_FOR_SIGNING),
        }
    };
    let primary_expires = statement.as_ref().and_then(|statement| statement.expires);
    let name = primary.fingerprint().to_string().to_ascii_uppercase();
    let mut keys = vec![SigningKey {
        id: primary.legacy_key_id(),
        fingerprint: primary.fingerprint(),
        primary: name.clone(),
        is_subkey: false,
        expires: primary_expires,
        created: timestamp(primary.created_at()),
        key: Key::Primary(primary.clone()),
        refused: own,
    }];
    // A primary key need not sign data itself for its subkeys to do so.
    let above = own.filter(|why| *why != NOT_FOR_SIGNING);
    for subkey in &certificate.public_subkeys {
        let (refused, expires) = bound(primary, subkey);
        keys.push(SigningKey {
            id: subkey.key.legacy_key_id(),
            fingerprint: subkey.key.fingerprint(),
            primary: name.clone(),
            is_subkey: true,
            expires: [expires, primary_expires].into_iter().flatten().min(),
            created: timestamp(subkey.key.created_at()),
            key: Key::Subkey(subkey.key.clone()),
            refused: above.or(refused),
        });
    }
    keys
}

impl SigningKey {
    /// Whether it may have made a signature at `created` that is to count at `now`.
    pub(super) fn check(&self, created: Timestamp, now: Timestamp) -> Result<(), OpenPgpError> {
        if let Some(why) = self.refused {
            return Err(OpenPgpError::KeyRefused { key_id: self.id.to_string(), why });
        }
        if created < self.created {
            return Err(OpenPgpError::MadeBeforeKey { created, key: self.created });
        }
        match self.expires {
            Some(at) if at <= now => Err(OpenPgpError::KeyExpired { key_id: self.id.to_string(), at }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether it made the message's signature over the message's content.
    pub(super) fn verify(&self, message: &SignedMessage) -> Result<(), OpenPgpError> {
        let verified = match &self.key {
            Key::Primary(key) => message.signature.verify(key, message.content.as_ref()),
            Key::Subkey(key) => message.signature.verify(key, message.content.as_ref()),
        };
        verified.map_err(|_| OpenPgpError::Signature)
    }
}

/// What a self-signature says of a key.
struct Statement {
    flags: Option<KeyFlags>,
    expires: Option<Timestamp>,
}

impl Statement {
    fn of(signature: &Signature, created: pgp::types::Timestamp) -> Self {
        let flags = signature.config().and_then(|config| {
            config.hashed_subpackets().find_map(|subpacket| {
                if let SubpacketData::KeyFlags(flags) = &subpacket.data { Some(flags.clone()) } else { None }
            })
        });
        let after = |from: Option<pgp::types::Timestamp>, life: Option<pgp::types::Duration>| {
            let life = life.map(pgp::types::Duration::as_secs).filter(|life| *life > 0)?;
            Some(timestamp(from?).plus(std::time::Duration::from_secs(life.into())))
        };
        let key = after(Some(created), signature.key_expiration_time());
        let statement = after(signature.created(), signature.signature_expiration_time());
        Self { flags, expires: [key, statement].into_iter().flatten().min() }
    }

    /// That of the newest certification of a user id that is not revoked, and of the newest signature on the key itself;
    /// where both speak, the user id's says what the key is for, and the earlier end counts.
    fn of_primary(certificate: &SignedPublicKey) -> Option<Self> {
        let primary = &certificate.primary_key;
        let certified = certificate.details.users.iter().filter_map(|user| certification(primary, user));
        let certified = newest(certified).map(|signature| Self::of(signature, primary.created_at()));
        let direct = certificate.details.direct_signatures.iter().filter(|signature| {
            signature.typ() == Some(SignatureType::Key)
                && is_acceptable(signature)
                && signature.verify_key(primary).is_ok()
        });
        let direct = newest(direct).map(|signature| Self::of(signature, primary.created_at()));
        match (certified, direct) {
            (Some(certified), Some(direct)) => Some(Self {
                flags: certified.flags.or(direct.flags),
                expires: [certified.expires, direct.expires].into_iter().flatten().min(),
            }),
            (one, other) => one.or(other),
        }
    }

    /// Without key flags a primary key may do all that its algorithm can.
    fn may_sign_by_default(&self) -> bool {
        self.flags.as_ref().is_none_or(KeyFlags::sign)
    }
}

/// The newest certification of a user id by the key itself, unless it was revoked afterwards.
fn certification<'a>(primary: &PublicKey, user: &'a SignedUser) -> Option<&'a Signature> {
    let own = user.signatures.iter().filter(|signature| {
        is_acceptable(signature)
            && is_by(signature, primary)
            && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
    });
    newest(own).filter(|signature| signature.typ() != Some(SignatureType::CertRevocation))
}

/// Why a subkey may never sign, and its end.
fn bound(primary: &PublicKey, subkey: &SignedPublicSubKey) -> (Option<&'static str>, Option<Timestamp>) {
    let own = || {
        subkey.signatures.iter().filter(|signature| {
            is_acceptable(signature) && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
        })
    };
    if own().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
        return (Some(REVOKED), None);
    }
    if let Some(why) = too_weak(&subkey.key) {
        return (Some(why), None);
    }
    let Some(binding) = newest(own()) else {
        return (Some("its binding to the primary key is not valid"), None);
    };
    let statement = Statement::of(binding, subkey.key.created_at());
    if !statement.flags.as_ref().is_some_and(KeyFlags::sign) {
        return (Some(NOT_FOR_SIGNING), None);
    }
    // RFC 9580, 5.2.1.9: a subkey that signs must agree to its primary key, or anybody could claim its signatures.
    let agrees = binding
        .embedded_signature()
        .is_some_and(|back| is_acceptable(back) && back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    (if agrees { None } else { Some("it does not confirm its primary key") }, statement.expires)
}

/// Whether the key was revoked: by itself, or by somebody whom it names for that and whose key we may not have.
fn is_revoked(certificate: &SignedPublicKey) -> bool {
    let primary = &certificate.primary_key;
    let details = &certificate.details;
    let names_a_revoker = || {
        let users = details.users.iter().flat_map(|user| &user.signatures);
        details.direct_signatures.iter().chain(users).any(|signature| signature.revocation_key().is_some())
    };
    details.revocation_signatures.iter().any(|revocation| {
        if is_by(revocation, primary) { revocation.verify_key(primary).is_ok() } else { names_a_revoker() }
    })
}

fn is_by(signature: &Signature, key: &PublicKey) -> bool {
    let (ids, fingerprints) = (signature.issuer_key_id(), signature.issuer_fingerprint());
    (ids.is_empty() && fingerprints.is_empty())
        || ids.contains(&&key.legacy_key_id())
        || fingerprints.contains(&&key.fingerprint())
}

/// Of several with the same time the last.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created().map(pgp::types::Timestamp::as_secs))
}

/// Whether a self-signature is made over a hash that cannot be matched at will.
fn is_acceptable(signature: &Signature) -> bool {
    !matches!(
        signature.hash_alg(),
        None | Some(HashAlgorithm::None | HashAlgorithm::Md5 | HashAlgorithm::Ripemd160 | HashAlgorithm::Other(_))
    )
}

fn too_weak(key: &impl KeyDetails) -> Option<&'static str> {
    match key.version() {
        KeyVersion::V4 | KeyVersion::V6 => {}
        KeyVersion::V2 | KeyVersion::V3 | KeyVersion::V5 | KeyVersion::Other(_) => {
            return Some("it is of a version that is not supported");
        }
    }
    let params = key.public_params();
    if matches!(params, PublicParams::RSA(_) | PublicParams::DSA(_)) {
        // Both begin with their modulus, and that with its length in bits.
        let bytes = params.to_bytes().unwrap_or_default();
        let bits = bytes.first_chunk::<2>().map_or(0, |bits| u16::from_be_bytes(*bits));
        return (bits < OPENPGP_RSA_BITS_MIN).then_some("it is of less than 2048 bits");
    }
    let signs = matches!(
        params,
        PublicParams::ECDSA(_) | PublicParams::EdDSALegacy(_) | PublicParams::Ed25519(_) | PublicParams::Ed448(_)
    );
    if signs { None } else { Some(NOT_FOR_SIGNING) }
}

pub(super) const REVOKED: &str = "it is revoked";
const NOT_FOR_SIGNING: &str = "it is not for signing";
