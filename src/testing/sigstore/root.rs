//! The trust root of a [`FakeSigstore`], flawless or with exactly one flaw.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::FakeSigstore;
use super::flaw::RootFlaw;
use super::keys::FakeKey;
use crate::clock::Timestamp;

impl FakeSigstore {
    /// The whole trust as a sigstore `trusted_root.json`: Fulcio, its certificate log, both Rekors, the timestamp authority.
    pub fn trusted_root_json(&self) -> String {
        self.trusted_root_but(RootFlaw::None)
    }

    /// As [`Self::trusted_root_json`], with one thing wrong.
    pub fn trusted_root_but(&self, flaw: RootFlaw) -> String {
        let mut root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self.log(), self.log_v2()],
            "certificateAuthorities": [{
                "subject": {"organization": "sealgate tests", "commonName": "fulcio"},
                "uri": "https://fulcio.test",
                "certChain": chain(&[self.fulcio.intermediate_der(), self.fulcio.root()]),
                "validFor": {"start": START},
            }],
            "ctlogs": [log(&self.fulcio.ct_key, self.fulcio.ct_key.fingerprint().as_bytes(), P256)],
            "timestampAuthorities": [{
                "subject": {"organization": "sealgate tests", "commonName": "tsa"},
                "uri": "https://tsa.test",
                "certChain": chain(&[self.tsa.certificate(), &self.tsa.root]),
                "validFor": {"start": START},
            }],
        });
        self.spoil_root(&mut root, flaw);
        root.to_string()
    }

    fn spoil_root(&self, root: &mut Value, flaw: RootFlaw) {
        // All signatures are made within the last two hours.
        let before = json!({"start": START, "end": self.now.minus(Duration::from_hours(3)).to_string()});
        let after = json!({"start": second(self.now.minus(Duration::from_secs(1)))});
        match flaw {
            RootFlaw::None => (),
            RootFlaw::LogKeyEnded => root["tlogs"][0]["publicKey"]["validFor"] = before,
            RootFlaw::LogKeyNotYetValid => root["tlogs"][0]["publicKey"]["validFor"] = after,
            RootFlaw::LogKeyV2Ended => root["tlogs"][1]["publicKey"]["validFor"] = before,
            RootFlaw::LogKeyV2NotYetValid => root["tlogs"][1]["publicKey"]["validFor"] = after,
            RootFlaw::AuthorityEnded => root["certificateAuthorities"][0]["validFor"] = before,
            RootFlaw::AuthorityNotYetValid => root["certificateAuthorities"][0]["validFor"] = after,
            RootFlaw::CertificateLogEnded => root["ctlogs"][0]["publicKey"]["validFor"] = before,
            RootFlaw::TimestampAuthorityEnded => root["timestampAuthorities"][0]["validFor"] = before,
            RootFlaw::TimestampAuthorityNotYetValid => root["timestampAuthorities"][0]["validFor"] = after,
            RootFlaw::NoTimestampAuthority => root["timestampAuthorities"] = json!([]),
            RootFlaw::NoLog => root["tlogs"] = json!([self.log_v2()]),
            RootFlaw::NoLogV2 => root["tlogs"] = json!([self.log()]),
            RootFlaw::NoCertificateLog => root["ctlogs"] = json!([]),
            RootFlaw::LogUnderTwoIds => {
                let other_id = self.key("another id").fingerprint();
                root["tlogs"] = json!([self.log(), log(&self.rekor.key, other_id.as_bytes(), P256)]);
            }
        }
    }

    fn log(&self) -> Value {
        log(&self.rekor.key, self.rekor.key.fingerprint().as_bytes(), P256)
    }

    fn log_v2(&self) -> Value {
        log(&self.rekor_v2.key, self.rekor_v2.log_id().as_bytes(), "PKIX_ED25519")
    }
}

fn log(key: &FakeKey, id: &[u8], details: &str) -> Value {
    json!({
        "baseUrl": "https://log.test", "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": STANDARD.encode(key.spki()), "keyDetails": details, "validFor": {"start": START}},
        "logId": {"keyId": STANDARD.encode(id)},
    })
}

fn chain(certificates: &[&[u8]]) -> Value {
    let certificates: Vec<Value> = certificates.iter().map(|der| json!({"rawBytes": STANDARD.encode(der)})).collect();
    json!({"certificates": certificates})
}

fn second(at: Timestamp) -> String {
    Timestamp::from_unix_seconds(at.unix_seconds()).to_string()
}

const START: &str = "2020-01-01T00:00:00Z";
const P256: &str = "PKIX_ECDSA_P256_SHA_256";
