//! A signed message (RFC 9580, 10.3): one signature over one piece of literal data, perhaps compressed as a whole.

use std::io::Read as _;

use bytes::Bytes;
use pgp::packet::{
    CompressedData, OnePassSignature, OpsVersionSpecific, Packet, PacketParser, Signature, SignatureType,
};
use pgp::types::{Fingerprint, KeyId};

use super::error::OpenPgpError;
use crate::limits::{OPENPGP_PACKETS_MAX, SIGNATURE_BYTES_MAX};

/// A message whose form is right; nothing in it is verified.
#[derive(Debug)]
pub(super) struct SignedMessage {
    pub(super) signature: Signature,
    /// The bytes that are signed.
    pub(super) content: Bytes,
    /// By the packet before the content; only a hint, as the signature's own names are.
    announced: Option<KeyId>,
}

/// Reads a message. Bounded in bytes, also after decompression, and in packets.
pub(super) fn read(message: &[u8]) -> Result<SignedMessage, OpenPgpError> {
    let mut packets = packets(message)?;
    if let [Packet::CompressedData(compressed)] = packets.as_slice() {
        packets = self::packets(&decompressed(compressed)?)?;
    }
    let mut parts = Parts::default();
    for packet in packets {
        parts.take(packet)?;
    }
    parts.finish()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "any other error is that of a broken packet")]
fn packets(message: &[u8]) -> Result<Vec<Packet>, OpenPgpError> {
    let mut packets = Vec::new();
    let mut rest = message;
    // One parser for each packet, since the library's takes a cut header for the end.
    while !rest.is_empty() {
        let packet = PacketParser::new(&mut rest).next();
        let packet =
            packet.ok_or(OpenPgpError::InvalidData { why: "something follows the message" })?.map_err(|error| {
                match error {
                    pgp::errors::Error::Unsupported { .. } => {
                        OpenPgpError::Unsupported { what: "a packet of the message" }
                    }
                    _ => OpenPgpError::InvalidData { why: "a packet of the message is broken" },
                }
            })?;
        if matches!(packet, Packet::Marker(_) | Packet::Padding(_)) {
            continue;
        }
        if packets.len() >= OPENPGP_PACKETS_MAX {
            return Err(OpenPgpError::InvalidData { why: "the message has more packets than messages have" });
        }
        packets.push(packet);
    }
    Ok(packets)
}

fn decompressed(compressed: &CompressedData) -> Result<Vec<u8>, OpenPgpError> {
    let unsupported = OpenPgpError::Unsupported { what: "this compression algorithm" };
    let broken = OpenPgpError::InvalidData { why: "the compressed data is broken" };
    let mut message = Vec::new();
    let reader = compressed.decompress().map_err(|_| unsupported)?;
    let read = reader.take(SIGNATURE_BYTES_MAX.saturating_add(1)).read_to_end(&mut message);
    read.map_err(|_| broken)?;
    if u64::try_from(message.len()).is_ok_and(|bytes| bytes > SIGNATURE_BYTES_MAX) {
        return Err(OpenPgpError::TooLarge { max: SIGNATURE_BYTES_MAX });
    }
    Ok(message)
}

/// The parts of a message as they come.
#[derive(Debug, Default)]
struct Parts {
    before: Option<OnePassSignature>,
    signature: Option<Signature>,
    signature_comes_first: bool,
    signatures: usize,
    content: Option<Bytes>,
}

impl Parts {
    fn take(&mut self, packet: Packet) -> Result<(), OpenPgpError> {
        match packet {
            Packet::OnePassSignature(announced) => {
                if self.content.is_some() || self.signature.is_some() {
                    return Err(MIXED);
                }
                if self.before.replace(announced).is_some() {
                    return Err(OpenPgpError::SignatureCount { found: 2 });
                }
            }
            Packet::Signature(signature) => {
                self.signatures = self.signatures.saturating_add(1);
                self.signature_comes_first = self.content.is_none();
                if self.signature.replace(signature).is_some() {
                    return Err(OpenPgpError::SignatureCount { found: self.signatures });
                }
            }
            Packet::LiteralData(literal) => {
                if self.content.replace(literal.into_bytes()).is_some() {
                    return Err(OpenPgpError::InvalidData { why: "the message has two pieces of data" });
                }
            }
            Packet::PublicKeyEncryptedSessionKey(_)
            | Packet::SymKeyEncryptedSessionKey(_)
            | Packet::SymEncryptedData(_)
            | Packet::SymEncryptedProtectedData(_)
            | Packet::GnupgAeadData(_) => {
                return Err(OpenPgpError::Unsupported { what: "the message is encrypted" });
            }
            Packet::CompressedData(_) => {
                return Err(OpenPgpError::Unsupported { what: "compressed data inside the message" });
            }
            Packet::PublicKey(_)
            | Packet::PublicSubkey(_)
            | Packet::SecretKey(_)
            | Packet::SecretSubkey(_)
            | Packet::Marker(_)
            | Packet::ModDetectionCode(_)
            | Packet::Trust(_)
            | Packet::UserAttribute(_)
            | Packet::UserId(_)
            | Packet::Padding(_) => return Err(MIXED),
        }
        Ok(())
    }

    /// One-pass: announcement, data, signature. Old style: signature, data.
    fn finish(self) -> Result<SignedMessage, OpenPgpError> {
        let Some(content) = self.content else {
            return Err(OpenPgpError::InvalidData {
                why: "the message has no data; detached signatures are not used here",
            });
        };
        let signature = match (self.signature, &self.before) {
            (Some(signature), _) => signature,
            (None, None) => return Err(OpenPgpError::NotSigned),
            (None, Some(_)) => {
                return Err(OpenPgpError::InvalidData { why: "the message ends before its signature" });
            }
        };
        match &self.before {
            Some(before) if self.signature_comes_first || before.is_nested() || !fits(before, &signature) => {
                return Err(MIXED);
            }
            None if !self.signature_comes_first => return Err(MIXED),
            Some(_) | None => {}
        }
        // A signature over text lets line ends change; what is compared here is bytes.
        if signature.typ() != Some(SignatureType::Binary) {
            return Err(OpenPgpError::Unsupported { what: "signatures of this type" });
        }
        let announced = self.before.and_then(|before| match before.version_specific() {
            OpsVersionSpecific::V3 { key_id } => Some(*key_id),
            OpsVersionSpecific::V6 { .. } | OpsVersionSpecific::Unknown { .. } => None,
        });
        Ok(SignedMessage { signature, content, announced })
    }
}

/// Whether the announcement is one of that signature. rPGP's own test knows no v3 signatures.
fn fits(before: &OnePassSignature, signature: &Signature) -> bool {
    let Some(config) = signature.config() else { return false };
    match before.version_specific() {
        OpsVersionSpecific::V3 { .. } => {
            before.typ() == config.typ()
                && before.hash_algorithm() == config.hash_alg
                && before.public_key_algorithm() == config.pub_alg
        }
        OpsVersionSpecific::V6 { .. } => before.matches(signature),
        OpsVersionSpecific::Unknown { .. } => false,
    }
}

impl SignedMessage {
    /// Whether the message says that this key made its signature.
    pub(super) fn names(&self, id: KeyId, fingerprint: &Fingerprint) -> bool {
        let (ids, fingerprints) = (self.signature.issuer_key_id(), self.signature.issuer_fingerprint());
        if ids.is_empty() && fingerprints.is_empty() {
            return self.announced.is_some_and(|announced| announced == id);
        }
        ids.contains(&&id) || fingerprints.contains(&fingerprint)
    }

    /// The key that the message names: its fingerprint where it has one, else its id, in upper case hexadecimal.
    pub(super) fn claimed_key(&self) -> Option<String> {
        let fingerprint = self.signature.issuer_fingerprint().first().map(ToString::to_string);
        let id = || self.signature.issuer_key_id().first().map(ToString::to_string);
        let claimed = fingerprint.or_else(id).or_else(|| self.announced.map(|id| id.to_string()));
        claimed.map(|key| key.to_ascii_uppercase())
    }

    /// The id of the key that the message names, as Go's `%x` writes it.
    pub(super) fn key_id(&self) -> String {
        let id = self.signature.issuer_key_id().first().map(ToString::to_string);
        let id = id.or_else(|| self.signature.issuer_fingerprint().first().map(ToString::to_string));
        let id = id.or_else(|| self.announced.map(|id| id.to_string())).unwrap_or_default();
        let short = id.trim_start_matches('0');
        if short.is_empty() { "0".to_owned() } else { short.to_owned() }
    }
}

const MIXED: OpenPgpError = OpenPgpError::InvalidData { why: "the packets are not those of a signed message" };
