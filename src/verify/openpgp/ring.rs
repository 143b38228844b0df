//! Key rings as files hold them: binary, or armored with one or several blocks.

use std::io::Read as _;

use pgp::armor::{BlockType, Dearmor, DearmorOptions};
use pgp::composed::{SignedPublicKey, SignedPublicKeyParser};
use pgp::errors::Error;
use pgp::packet::{Packet, PacketParser};

use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::verify::key_error::KeyError;

/// The certificates (primary keys with all that belongs to them) of a ring.
pub(super) fn read(ring: &[u8]) -> Result<Vec<SignedPublicKey>, KeyError> {
    let mut certificates = Vec::new();
    for block in blocks(ring)? {
        let packets = packets(&block)?.into_iter().map(Ok);
        for certificate in SignedPublicKeyParser::from_packets(packets.peekable()) {
            certificates.push(certificate.map_err(|_| broken("a key in it cannot be read"))?);
        }
    }
    if certificates.is_empty() {
        return Err(broken("there is no public key in it"));
    }
    Ok(certificates)
}

fn packets(block: &[u8]) -> Result<Vec<Packet>, KeyError> {
    let mut packets = Vec::new();
    for packet in PacketParser::new(block) {
        match packet {
            Ok(Packet::SecretKey(_) | Packet::SecretSubkey(_)) => return Err(KeyError::OpenPgpSecret),
            // GnuPG's own files have trust packets between the others.
            Ok(Packet::Marker(_) | Packet::Padding(_) | Packet::Trust(_)) => {}
            Ok(packet) => packets.push(packet),
            Err(error) if is_of_a_version_we_do_not_know(&error) => {}
            Err(_) => return Err(broken("a packet in it is broken")),
        }
    }
    Ok(packets)
}

/// A ring may have keys and signatures that are newer than this program; they are passed over.
fn is_of_a_version_we_do_not_know(error: &Error) -> bool {
    if let Error::InvalidPacketContent { source } = error {
        return is_of_a_version_we_do_not_know(source);
    }
    matches!(error, Error::Unsupported { .. })
}

/// The binary content of each armored block, or the file itself.
fn blocks(ring: &[u8]) -> Result<Vec<Vec<u8>>, KeyError> {
    if ring.first().is_some_and(|first| first & 0x80 != 0) {
        return Ok(vec![ring.to_vec()]);
    }
    if ring.get(8..12) == Some(b"KBXf") {
        return Err(broken("it is a GnuPG keybox; export the keys with `gpg --export`"));
    }
    let text = String::from_utf8_lossy(ring);
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    if starts.is_empty() {
        return Err(broken("it is neither binary nor armored OpenPGP"));
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| dearmored(text.get(*start..end).unwrap_or_default())).collect()
}

fn dearmored(block: &str) -> Result<Vec<u8>, KeyError> {
    let limit = usize::try_from(CONFIG_FILE_BYTES_MAX).unwrap_or(usize::MAX);
    let mut dearmor = Dearmor::with_options(block.as_bytes(), DearmorOptions::new().set_limit(limit));
    dearmor.read_header().map_err(|_| broken("the armor is broken"))?;
    match dearmor.typ {
        Some(BlockType::PublicKey) => {}
        Some(BlockType::PrivateKey) => return Err(KeyError::OpenPgpSecret),
        _ => return Err(broken("an armored block in it is no PGP PUBLIC KEY BLOCK")),
    }
    let mut bytes = Vec::new();
    dearmor.take(CONFIG_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|_| broken("the armor is broken"))?;
    Ok(bytes)
}

/// The words are ours: a file that is no key ring must not be printed.
fn broken(why: &'static str) -> KeyError {
    KeyError::OpenPgpRing { why }
}

const BEGIN: &str = "-----BEGIN PGP ";
