//! Signing as containers/image does with OpenPGP: keys from a seed, and simple-signing messages, flawless or with one flaw.
#![expect(clippy::wildcard_enum_match_arm, reason = "a flaw is looked at where it is made and passed by elsewhere")]

use std::time::Duration;

use pgp::composed::{
    KeyType, MessageBuilder, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder, SubpacketConfig,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, Notation, RevocationCode, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{CompressionAlgorithm, KeyDetails as _, Password, SigningKey, Tag};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::verify::{OpenPgpSignature, Place, SignatureMaterial, Source};

/// The one thing that is wrong with an OpenPGP signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenPgpFlaw {
    /// Nothing.
    None,

    // ---- the payload, signed as it is ----
    /// It names another manifest.
    OtherDigest,
    /// Its type is that of cosign's signatures.
    OtherType,
    /// `critical` stands there twice.
    DuplicateKey,
    /// `critical` has a member that it must not have.
    UnknownField,
    /// `critical` has no identity.
    NoIdentity,
    /// `optional.timestamp` is a text.
    TimestampNotInteger,
    /// It is no JSON.
    NotJson,

    // ---- the message ----
    /// Nobody signed it: the literal data alone.
    Unsigned,
    /// It is signed twice.
    SignedTwice,
    /// One bit of the signature is changed.
    Corrupt,
    /// The digest in the payload was changed after it was signed.
    PayloadEdited,
    /// The signature ended an hour ago.
    Expired,
    /// The signature was made an hour from now.
    FromTheFuture,
    /// The signature is one over text, whose line ends may change.
    OverText,
    /// A notation that nobody knows is marked as critical.
    CriticalNotation,
    /// A subpacket of a type for experiments is marked as critical.
    CriticalExperiment,
    /// None: the same notation, which is not critical, may be passed over.
    Notation,
    /// Bytes that are no OpenPGP follow the message.
    TrailingBytes,
    /// It is not OpenPGP at all.
    NotOpenPgp,
}

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyFlaw {
    /// Nothing.
    None,
    /// The primary key ended an hour before now.
    Expired,
    /// The primary key is revoked.
    Revoked,
    /// The only user id, whose certification says what the key is for, is revoked.
    UserIdRevoked,
    /// None: the only user id was revoked and certified again afterwards.
    UserIdCertifiedAgain,
    /// The subkey ended an hour before now.
    SubkeyExpired,
    /// The subkey is revoked.
    SubkeyRevoked,
    /// The subkey is not for signing.
    SubkeyNotForSigning,
    /// The subkey does not say itself that it belongs to the primary key.
    SubkeyWithoutBackSignature,
}

/// A key holder: a primary key that signs and certifies, and a subkey that signs.
#[derive(Debug, Clone)]
pub struct FakeOpenPgpKey {
    secret: SignedSecretKey,
    now: Timestamp,
    seed: [u8; 32],
}

impl FakeOpenPgpKey {
    /// The key of that name, made a year before `now`. The same seed and name give the same key.
    pub fn from_seed(seed: u64, name: &str, now: Timestamp) -> Self {
        Self::flawed(seed, name, now, KeyFlaw::None)
    }

    /// As [`Self::from_seed`], with one thing wrong with the key.
    pub fn flawed(seed: u64, name: &str, now: Timestamp, flaw: KeyFlaw) -> Self {
        let seed: [u8; 32] = Digest::sha256(format!("openpgp {seed} {name}").as_bytes()).as_bytes().try_into().unwrap();
        let created = openpgp_time(now.minus(YEAR));
        let subkey = SubkeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(true)
            .created_at(created)
            .build()
            .unwrap();
        let mut params = SecretKeyParamsBuilder::default();
        params
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .can_sign(true)
            .created_at(created)
            .primary_user_id(format!("{name} <{name}@openpgp.test>"))
            .subkeys(vec![subkey]);
        let secret = params.build().unwrap().generate(StdRng::from_seed(seed)).unwrap();
        let mut key = Self { secret, now, seed };
        key.certify(flaw);
        key
    }

    /// Signs the key's own statements again, as of its creation, with the flaw.
    fn certify(&mut self, flaw: KeyFlaw) {
        let created = self.now.minus(YEAR);
        let end = |ended: bool| ended.then_some(YEAR.saturating_sub(Duration::from_hours(1)));
        let primary = self.secret.primary_key.clone();
        let mut flags = KeyFlags::default();
        flags.set_certify(true);
        flags.set_sign(true);
        let mut config = self.config(&primary, SignatureType::CertPositive, created);
        config.hashed_subpackets.push(regular(SubpacketData::KeyFlags(flags)));
        config.hashed_subpackets.push(regular(SubpacketData::IsPrimary(true)));
        config.hashed_subpackets.extend(end(flaw == KeyFlaw::Expired).map(key_expiration));
        let mut configs = vec![config];
        if matches!(flaw, KeyFlaw::UserIdRevoked | KeyFlaw::UserIdCertifiedAgain) {
            let at = self.now.minus(Duration::from_hours(3));
            configs.push(self.config(&primary, SignatureType::CertRevocation, at));
        }
        if flaw == KeyFlaw::UserIdCertifiedAgain {
            let at = self.now.minus(Duration::from_hours(2));
            configs.push(self.config(&primary, SignatureType::CertPositive, at));
        }
        let user = &mut self.secret.details.users[0];
        let sign = |config: SignatureConfig| {
            config.sign_certification(&primary, primary.public_key(), &Password::empty(), Tag::UserId, &user.id)
        };
        user.signatures = configs.into_iter().map(|config| sign(config).unwrap()).collect();

        let subkey = self.secret.secret_subkeys[0].key.clone();
        let mut flags = KeyFlags::default();
        flags.set_sign(flaw != KeyFlaw::SubkeyNotForSigning);
        flags.set_authentication(flaw == KeyFlaw::SubkeyNotForSigning);
        let mut config = self.config(&primary, SignatureType::SubkeyBinding, created);
        config.hashed_subpackets.push(regular(SubpacketData::KeyFlags(flags)));
        config.hashed_subpackets.extend(end(flaw == KeyFlaw::SubkeyExpired).map(key_expiration));
        if flaw != KeyFlaw::SubkeyWithoutBackSignature {
            let back = self.config(&subkey, SignatureType::KeyBinding, created);
            let (own, pw) = (subkey.public_key(), Password::empty());
            let back = back.sign_primary_key_binding(&subkey, own, &pw, primary.public_key()).unwrap();
            config.hashed_subpackets.push(regular(SubpacketData::EmbeddedSignature(Box::new(back))));
        }
        let (own, pw) = (primary.public_key(), Password::empty());
        let binding = config.sign_subkey_binding(&primary, own, &pw, subkey.public_key()).unwrap();
        let mut signatures = vec![binding];
        let reason = || regular(SubpacketData::RevocationReason(RevocationCode::KeyCompromised, "lost".into()));
        let revoked = self.now.minus(Duration::from_hours(3));
        if flaw == KeyFlaw::SubkeyRevoked {
            let mut config = self.config(&primary, SignatureType::SubkeyRevocation, revoked);
            config.hashed_subpackets.push(reason());
            signatures.push(config.sign_subkey_binding(&primary, own, &pw, subkey.public_key()).unwrap());
        }
        if flaw == KeyFlaw::Revoked {
            let mut config = self.config(&primary, SignatureType::KeyRevocation, revoked);
            config.hashed_subpackets.push(reason());
            self.secret.details.revocation_signatures.push(config.sign_key(&primary, &pw, own).unwrap());
        }
        self.secret.secret_subkeys[0].signatures = signatures;
    }

    fn config(&self, key: &impl SigningKey, kind: SignatureType, at: Timestamp) -> SignatureConfig {
        let mut config = SignatureConfig::from_key(StdRng::from_seed(self.seed), key, kind).unwrap();
        config.hashed_subpackets = issued_by(key, at);
        config
    }

    /// The public key ring, binary.
    pub fn ring(&self) -> Vec<u8> {
        self.secret.to_public_key().to_bytes().unwrap()
    }

    /// The public key ring, armored.
    pub fn armored_ring(&self) -> String {
        self.secret.to_public_key().to_armored_string(None.into()).unwrap()
    }

    /// The primary key's fingerprint in upper-case hex.
    pub fn fingerprint(&self) -> String {
        hex::encode_upper(self.secret.primary_key.fingerprint().as_bytes())
    }

    /// The subkey's fingerprint in upper-case hex.
    pub fn subkey_fingerprint(&self) -> String {
        hex::encode_upper(self.secret.secret_subkeys[0].key.fingerprint().as_bytes())
    }

    /// Signs with the primary key, two hours ago. `reference` is what the signer writes into the payload, tag included.
    pub fn sign(&self, reference: &str, digest: &Digest, flaw: OpenPgpFlaw) -> Vec<u8> {
        self.message(&self.secret.primary_key, payload(reference, digest, flaw), digest, flaw)
    }

    /// Signs with the subkey, two hours ago.
    pub fn sign_with_subkey(&self, reference: &str, digest: &Digest, flaw: OpenPgpFlaw) -> Vec<u8> {
        self.message(&self.secret.secret_subkeys[0].key, payload(reference, digest, flaw), digest, flaw)
    }

    /// Signs any bytes with the primary key, and compresses the message, as `GnuPG` does unless it is told not to.
    pub fn sign_compressed(&self, payload: &[u8]) -> Vec<u8> {
        let key = &self.secret.primary_key;
        let mut message = MessageBuilder::from_bytes("", payload.to_vec());
        message.compression(CompressionAlgorithm::ZIP);
        message.sign(key, Password::empty(), HashAlgorithm::Sha256);
        message.to_vec(StdRng::from_seed(self.seed)).unwrap()
    }

    /// Signs any bytes with the primary key.
    pub fn sign_bytes(&self, payload: &[u8]) -> Vec<u8> {
        let digest = Digest::sha256(payload);
        self.message(&self.secret.primary_key, payload.to_vec(), &digest, OpenPgpFlaw::None)
    }

    fn message(&self, key: &dyn SigningKey, payload: Vec<u8>, digest: &Digest, flaw: OpenPgpFlaw) -> Vec<u8> {
        if flaw == OpenPgpFlaw::NotOpenPgp {
            return b"this is no OpenPGP message".to_vec();
        }
        let at = match flaw {
            OpenPgpFlaw::FromTheFuture => self.now.plus(Duration::from_hours(1)),
            _ => self.now.minus(Duration::from_hours(2)),
        };
        let mut message = MessageBuilder::from_bytes("", payload);
        if flaw == OpenPgpFlaw::OverText {
            message.sign_text();
        }
        let signatures = match flaw {
            OpenPgpFlaw::Unsigned => 0,
            OpenPgpFlaw::SignedTwice => 2,
            _ => 1,
        };
        for _ in 0..signatures {
            let mut hashed = issued_by(key, at);
            if flaw == OpenPgpFlaw::Expired {
                let hour = pgp::types::Duration::from_secs(3600);
                hashed.push(regular(SubpacketData::SignatureExpirationTime(hour)));
            }
            hashed.extend(unknown(flaw));
            let unhashed = vec![regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))];
            let subpackets = SubpacketConfig::UserDefined { hashed, unhashed };
            message.sign_with_subpackets(key, Password::empty(), HashAlgorithm::Sha256, subpackets);
        }
        let mut bytes = message.to_vec(StdRng::from_seed(self.seed)).unwrap();
        match flaw {
            OpenPgpFlaw::Corrupt => *bytes.last_mut().unwrap() ^= 1,
            OpenPgpFlaw::PayloadEdited => edit(&mut bytes, digest),
            OpenPgpFlaw::TrailingBytes => bytes.extend(b"trailing"),
            _ => (),
        }
        bytes
    }
}

/// A message as verification wants it.
pub fn openpgp_material(message: &[u8]) -> SignatureMaterial {
    SignatureMaterial::OpenPgp(OpenPgpSignature {
        signature: message.to_vec().into(),
        source: Source {
            repository: None,
            manifest: Digest::sha256(message),
            place: Place::Lookaside("https://lookaside.test/signature-1".to_owned()),
            layer: 0,
        },
    })
}

/// What containers/image signs.
fn payload(reference: &str, digest: &Digest, flaw: OpenPgpFlaw) -> Vec<u8> {
    let mut payload = json!({
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest.to_string()},
            "type": "atomic container signature",
        },
        "optional": {"creator": "sealgate tests", "timestamp": 1_700_000_000},
    });
    let critical = payload["critical"].clone();
    match flaw {
        OpenPgpFlaw::OtherDigest => {
            payload["critical"]["image"]["docker-manifest-digest"] =
                Digest::sha256(b"another manifest").to_string().into();
        }
        OpenPgpFlaw::OtherType => payload["critical"]["type"] = "cosign container image signature".into(),
        OpenPgpFlaw::UnknownField => payload["critical"]["issued-by"] = "nobody".into(),
        OpenPgpFlaw::NoIdentity => remove(&mut payload["critical"], "identity"),
        OpenPgpFlaw::TimestampNotInteger => payload["optional"]["timestamp"] = "yesterday".into(),
        _ => (),
    }
    let text = payload.to_string();
    match flaw {
        OpenPgpFlaw::DuplicateKey => text.replacen('{', &format!("{{\"critical\":{critical},"), 1).into_bytes(),
        OpenPgpFlaw::NotJson => b"this is no JSON".to_vec(),
        _ => text.into_bytes(),
    }
}

fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member);
}

/// Changes the first digit of the digest where it stands in the message.
fn edit(message: &mut [u8], digest: &Digest) {
    let hex = digest.hex();
    let at = message.windows(hex.len()).position(|window| window == hex.as_bytes()).unwrap();
    message[at] = if message[at] == b'0' { b'1' } else { b'0' };
}

fn issued_by<K: SigningKey + ?Sized>(key: &K, at: Timestamp) -> Vec<Subpacket> {
    vec![
        regular(SubpacketData::IssuerFingerprint(key.fingerprint())),
        regular(SubpacketData::SignatureCreationTime(openpgp_time(at))),
    ]
}

/// A subpacket that means nothing to anybody.
fn unknown(flaw: OpenPgpFlaw) -> Option<Subpacket> {
    let notation = || {
        let (name, value) = ("policy@openpgp.test".into(), "another registry only".into());
        SubpacketData::Notation(Notation { readable: true, name, value })
    };
    match flaw {
        OpenPgpFlaw::Notation => Some(regular(notation())),
        OpenPgpFlaw::CriticalNotation => Some(Subpacket::critical(notation()).unwrap()),
        OpenPgpFlaw::CriticalExperiment => {
            Some(Subpacket::critical(SubpacketData::Experimental(101, "x".into())).unwrap())
        }
        _ => None,
    }
}

fn key_expiration(after: Duration) -> Subpacket {
    regular(SubpacketData::KeyExpirationTime(after.try_into().unwrap()))
}

fn regular(data: SubpacketData) -> Subpacket {
    Subpacket::regular(data).unwrap()
}

fn openpgp_time(at: Timestamp) -> pgp::types::Timestamp {
    let seconds = Duration::from_secs(u64::try_from(at.unix_seconds()).unwrap());
    (std::time::UNIX_EPOCH + seconds).try_into().unwrap()
}

const YEAR: Duration = Duration::from_hours(365 * 24);

#[cfg(test)]
mod tests {
    use pgp::composed::{Deserializable as _, Message, SignedPublicKey};

    use super::*;
    use crate::clock::Clock;

    fn read(message: &[u8], signer: &FakeOpenPgpKey, by_subkey: bool) -> Result<Vec<u8>, String> {
        let key = SignedPublicKey::from_bytes(&signer.ring()[..]).map_err(|error| error.to_string())?;
        key.verify_bindings().map_err(|error| error.to_string())?;
        let message = Message::from_bytes(message).map_err(|error| error.to_string())?;
        let mut message = message.decompress().map_err(|error| error.to_string())?;
        let payload = message.as_data_vec().map_err(|error| error.to_string())?;
        let verified = if by_subkey {
            message.verify(&key.public_subkeys[0].key).map(|_| ())
        } else {
            message.verify(&key.primary_key).map(|_| ())
        };
        verified.map(|()| payload).map_err(|error| error.to_string())
    }

    #[test]
    fn primary_key_and_subkey_sign_what_the_library_verifies() {
        let now = Clock::System.now();
        let (key, other) = (FakeOpenPgpKey::from_seed(1, "a", now), FakeOpenPgpKey::from_seed(1, "b", now));
        let digest = Digest::sha256(b"the manifest");
        let signed = key.sign("quay.io/team/app:1", &digest, OpenPgpFlaw::None);
        let payload = read(&signed, &key, false).unwrap();
        assert!(String::from_utf8(payload).unwrap().contains(&digest.to_string()));
        read(&key.sign_with_subkey("quay.io/team/app:1", &digest, OpenPgpFlaw::None), &key, true).unwrap();

        assert_eq!(read(&key.sign_compressed(b"any bytes"), &key, false).unwrap(), b"any bytes");

        read(&signed, &other, false).unwrap_err();
        read(&signed, &key, true).unwrap_err();
        for flaw in [OpenPgpFlaw::Corrupt, OpenPgpFlaw::PayloadEdited, OpenPgpFlaw::Unsigned, OpenPgpFlaw::NotOpenPgp] {
            read(&key.sign("quay.io/team/app:1", &digest, flaw), &key, false).unwrap_err();
        }
        assert_eq!(key.ring(), FakeOpenPgpKey::from_seed(1, "a", now).ring(), "the seed alone decides");
    }
}
