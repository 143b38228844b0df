//! A timestamp authority (RFC 3161): a certificate for timestamps, and signed tokens over signatures.

use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyUsagePurpose};
use x509_cert::der::{Decode as _, Encode as _};

use super::Flaw;
use super::ca::{ca_params, since_epoch};
use super::der::{element, integer, octets, oid, sequence, set};
use super::keys::FakeKey;
use crate::clock::Timestamp;
use crate::oci::Digest;

/// A timestamp authority with a root of its own.
#[derive(Debug)]
pub(super) struct FakeTsa {
    pub(super) root: Vec<u8>,
    signer: TsaSigner,
    /// Somebody else under another root.
    stranger: TsaSigner,
}

#[derive(Debug)]
struct TsaSigner {
    key: FakeKey,
    certificate: Vec<u8>,
}

impl FakeTsa {
    pub(super) fn new(seed: u64, now: Timestamp) -> Self {
        let root_key = FakeKey::p256(seed, "tsa root");
        let params = ca_params("tsa", "root", now.minus(YEAR * 2), now.plus(YEAR * 8));
        let root = params.self_signed(&root_key.issuing()).unwrap().der().to_vec();
        let signer = TsaSigner::new(&root_key, FakeKey::p256(seed, "tsa"), now);
        let stranger = TsaSigner::new(&FakeKey::p256(!seed, "tsa root"), FakeKey::p256(!seed, "tsa"), now);
        Self { root, signer, stranger }
    }

    /// The certificate that signs the tokens.
    pub(super) fn certificate(&self) -> &[u8] {
        &self.signer.certificate
    }

    /// The answer to a request for a timestamp over that signature.
    pub(super) fn stamp(&self, signature: &[u8], at: Timestamp, flaw: Flaw) -> Vec<u8> {
        let other = b"another signature".as_slice();
        let imprint = if flaw == Flaw::TimestampOfOtherSignature { other } else { signature };
        let info = tst_info(imprint, at);
        let token = match flaw {
            Flaw::TimestampByOtherAuthority => self.stranger.sign(&info, &[&self.stranger.certificate], flaw),
            // The authority's own certificate comes first, for who takes the first of the bag.
            Flaw::TimestampWithDecoy => {
                self.stranger.sign(&info, &[&self.signer.certificate, &self.stranger.certificate], flaw)
            }
            _ => self.signer.sign(&info, &[&self.signer.certificate], flaw),
        };
        let status = if flaw == Flaw::TimestampNotGranted { 2 } else { 0 };
        sequence(&[&sequence(&[&integer(status)]), &token])
    }
}

impl TsaSigner {
    fn new(root: &FakeKey, key: FakeKey, now: Timestamp) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "tsa");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping];
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&key.fingerprint().as_bytes()[..8]));
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(now.minus(YEAR));
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(now.plus(YEAR));
        let issuer = Issuer::new(ca_params("tsa", "root", now, now), root.issuing());
        let certificate = params.signed_by(&key.issuing(), &issuer).unwrap().der().to_vec();
        Self { key, certificate }
    }

    /// The token: CMS `SignedData` (RFC 5652, 5) over the `TSTInfo`.
    fn sign(&self, info: &[u8], bag: &[&[u8]], flaw: Flaw) -> Vec<u8> {
        let sha256 = sequence(&[&oid(SHA256)]);
        let certificate_hash = octets(Digest::sha256(&self.certificate).as_bytes());
        let attributes = set(&[
            &attribute(CONTENT_TYPE, &oid(TST_INFO)),
            &attribute(MESSAGE_DIGEST, &octets(Digest::sha256(info).as_bytes())),
            // RFC 5035: which certificate signs; RFC 3161 asks for it.
            &attribute(SIGNING_CERTIFICATE_V2, &sequence(&[&sequence(&[&sequence(&[&certificate_hash])])])),
        ]);
        let mut signature = self.key.sign(&attributes);
        if flaw == Flaw::TimestampCorrupt {
            *signature.last_mut().unwrap() ^= 1;
        }
        let signed_attributes = [&[0xa0], attributes.get(1..).unwrap()].concat();
        let signer = sequence(&[
            &integer(1),
            &self.issuer_and_serial(),
            &sha256,
            &signed_attributes,
            &sequence(&[&oid(ECDSA_WITH_SHA256)]),
            &octets(&signature),
        ]);
        let signed_data = sequence(&[
            &integer(3),
            &set(&[&sha256]),
            &sequence(&[&oid(TST_INFO), &element(0xa0, &octets(info))]),
            &element(0xa0, &bag.concat()),
            &set(&[&signer]),
        ]);
        sequence(&[&oid(SIGNED_DATA), &element(0xa0, &signed_data)])
    }

    fn issuer_and_serial(&self) -> Vec<u8> {
        let certificate = x509_cert::Certificate::from_der(&self.certificate).unwrap().tbs_certificate;
        sequence(&[&certificate.issuer.to_der().unwrap(), &certificate.serial_number.to_der().unwrap()])
    }
}

/// RFC 3161, 2.4.2.
fn tst_info(signature: &[u8], at: Timestamp) -> Vec<u8> {
    let hash = sequence(&[&sequence(&[&oid(SHA256)]), &octets(Digest::sha256(signature).as_bytes())]);
    let time = Timestamp::from_unix_seconds(at.unix_seconds()).to_string();
    let time: String = time.chars().filter(char::is_ascii_digit).chain(['Z']).collect();
    sequence(&[&integer(1), &oid(POLICY), &hash, &integer(42), &element(0x18, time.as_bytes())])
}

fn attribute(name: &str, value: &[u8]) -> Vec<u8> {
    sequence(&[&oid(name), &set(&[value])])
}

const YEAR: Duration = Duration::from_hours(365 * 24);
const SIGNED_DATA: &str = "1.2.840.113549.1.7.2";
const CONTENT_TYPE: &str = "1.2.840.113549.1.9.3";
const MESSAGE_DIGEST: &str = "1.2.840.113549.1.9.4";
const TST_INFO: &str = "1.2.840.113549.1.9.16.1.4";
const SIGNING_CERTIFICATE_V2: &str = "1.2.840.113549.1.9.16.2.47";
const SHA256: &str = "2.16.840.1.101.3.4.2.1";
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
const POLICY: &str = "1.3.6.1.4.1.57264.2";
