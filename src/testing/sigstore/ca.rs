//! A Fulcio: root, intermediate, and short-lived certificates with Fulcio's extensions and an SCT.

use std::collections::BTreeMap;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use x509_cert::der::{Decode as _, Encode as _};

use super::Flaw;
use super::keys::FakeKey;
use crate::clock::Timestamp;
use crate::oci::Digest;

/// Whom a certificate is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// E-mail addresses among the subject alternative names.
    pub emails: Vec<String>,
    /// URIs among them.
    pub uris: Vec<String>,
    /// DNS names among them.
    pub hostnames: Vec<String>,
    /// The OIDC issuer, in Fulcio's extensions `.1.1` and `.1.8`.
    pub issuer: Option<String>,
    /// Fulcio's further extensions `.1.2` to `.1.24`, by their last number.
    pub extensions: BTreeMap<u64, String>,
}

impl Identity {
    /// Somebody with that address, known to that issuer.
    pub fn email(email: &str, issuer: &str) -> Self {
        Self { emails: vec![email.to_owned()], issuer: Some(issuer.to_owned()), ..Self::default() }
    }

    /// A workload with that URI, known to that issuer.
    pub fn uri(uri: &str, issuer: &str) -> Self {
        Self { uris: vec![uri.to_owned()], issuer: Some(issuer.to_owned()), ..Self::default() }
    }

    /// A GitHub workflow: its file in `.github/workflows/` of `owner/name`, run for that ref by that event at that commit.
    pub fn github(repository: &str, workflow: &str, reference: &str, trigger: &str, sha: &str) -> Self {
        let home = format!("https://github.com/{repository}");
        let uri = format!("{home}/.github/workflows/{workflow}@{reference}");
        let owner = repository.split('/').next().unwrap();
        let extensions = [
            (2, trigger.to_owned()),
            (3, sha.to_owned()),
            (4, "Release".to_owned()),
            (5, repository.to_owned()),
            (6, reference.to_owned()),
            (9, uri.clone()),
            (10, sha.to_owned()),
            (11, "github-hosted".to_owned()),
            (12, home.clone()),
            (13, sha.to_owned()),
            (14, reference.to_owned()),
            (15, "1296269".to_owned()),
            (16, format!("https://github.com/{owner}")),
            (17, "583231".to_owned()),
            (18, uri.clone()),
            (19, sha.to_owned()),
            (20, trigger.to_owned()),
            (21, format!("{home}/actions/runs/123456/attempts/1")),
            (22, "public".to_owned()),
            (23, "production".to_owned()),
            (24, format!("repo:{repository}:ref:{reference}")),
        ];
        Self { extensions: BTreeMap::from(extensions), ..Self::uri(&uri, GITHUB) }
    }
}

/// A root, an intermediate and a log for their certificates.
#[derive(Debug)]
pub(super) struct FakeCa {
    seed: u64,
    label: &'static str,
    now: Timestamp,
    root_key: FakeKey,
    root: Vec<u8>,
    intermediate_key: FakeKey,
    intermediate: Vec<u8>,
    pub(super) ct_key: FakeKey,
}

/// A certificate with its key and chain.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) key: FakeKey,
    pub(super) leaf: Vec<u8>,
    /// Intermediate and root, as cosign attaches them.
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl FakeCa {
    pub(super) fn new(seed: u64, label: &'static str, now: Timestamp) -> Self {
        let root_key = FakeKey::p256(seed, &format!("{label} root"));
        let intermediate_key = FakeKey::p256(seed, &format!("{label} intermediate"));
        let root_params = ca_params(label, "root", now.minus(YEAR * 2), now.plus(YEAR * 8));
        let root = root_params.self_signed(&root_key.issuing()).unwrap().der().to_vec();
        let intermediate = Self::intermediate(label, &root_key, &intermediate_key, now.minus(YEAR), now.plus(YEAR * 7));
        let ct_key = FakeKey::p256(seed, &format!("{label} ct log"));
        Self { seed, label, now, root_key, root, intermediate_key, intermediate, ct_key }
    }

    fn intermediate(
        label: &str,
        root_key: &FakeKey,
        key: &FakeKey,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Vec<u8> {
        let root = ca_params(label, "root", not_before, not_after);
        let issuer = Issuer::new(root, root_key.issuing());
        let params = ca_params(label, "intermediate", not_before, not_after);
        params.signed_by(&key.issuing(), &issuer).unwrap().der().to_vec()
    }

    pub(super) fn root(&self) -> &[u8] {
        &self.root
    }

    pub(super) fn intermediate_der(&self) -> &[u8] {
        &self.intermediate
    }

    /// A certificate of ten minutes, an hour ago: long ended now, as keyless certificates are when they are verified.
    pub(super) fn issue(&self, identity: &Identity, purpose: &str, flaw: Flaw) -> Issued {
        let not_before = self.now.minus(Duration::from_hours(1));
        self.issue_for(identity, purpose, (not_before, not_before.plus(Duration::from_mins(10))), flaw)
    }

    pub(super) fn issue_for(
        &self,
        identity: &Identity,
        purpose: &str,
        (not_before, not_after): (Timestamp, Timestamp),
        flaw: Flaw,
    ) -> Issued {
        let key = FakeKey::p256(self.seed, &format!("{} leaf {purpose} {identity:?}", self.label));
        let mut params = leaf_params(identity, flaw);
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_before);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_after);
        params.serial_number = Some(SerialNumber::from_slice(key.fingerprint().as_bytes().first_chunk::<8>().unwrap()));
        let ca = ca_params(self.label, "intermediate", not_before, not_after);
        let issuer = Issuer::new(ca, self.intermediate_key.issuing());

        // The precertificate of RFC 6962 is the certificate without the SCT: same key, serial, times and extensions.
        let precertificate = params.signed_by(&key.issuing(), &issuer).unwrap().der().to_vec();
        if let Some(sct) = self.sct(&precertificate, flaw) {
            params.custom_extensions.push(sct);
        }
        let leaf = match flaw {
            Flaw::RootAsLeaf => self.root.clone(),
            _ => params.signed_by(&key.issuing(), &issuer).unwrap().der().to_vec(),
        };
        Issued { key, leaf, chain: self.chain(flaw), not_before, not_after }
    }

    fn chain(&self, flaw: Flaw) -> Vec<Vec<u8>> {
        match flaw {
            Flaw::NoChain => Vec::new(),
            Flaw::LongChain => vec![self.intermediate.clone(); 49],
            Flaw::ExpiredIntermediate => {
                let long_ago = self.now.minus(YEAR);
                let (root_key, key) = (&self.root_key, &self.intermediate_key);
                let ended = Self::intermediate(self.label, root_key, key, long_ago, long_ago.plus(YEAR / 2));
                vec![ended, self.root.clone()]
            }
            Flaw::IntermediateForListsAlone => {
                let (start, end) = (self.now.minus(YEAR), self.now.plus(YEAR));
                let issuer = Issuer::new(ca_params(self.label, "root", start, end), self.root_key.issuing());
                let mut params = ca_params(self.label, "intermediate", start, end);
                params.key_usages = vec![KeyUsagePurpose::CrlSign];
                let certificate = params.signed_by(&self.intermediate_key.issuing(), &issuer).unwrap();
                vec![certificate.der().to_vec(), self.root.clone()]
            }
            _ => vec![self.intermediate.clone(), self.root.clone()],
        }
    }

    /// RFC 6962, 3.2 and 3.3.
    fn sct(&self, precertificate: &[u8], flaw: Flaw) -> Option<CustomExtension> {
        let unknown_log = FakeKey::p256(self.seed, "unknown ct log");
        let log = match flaw {
            Flaw::NoSct => return None,
            Flaw::SctByUnknownLog => &unknown_log,
            _ => &self.ct_key,
        };
        let certificate = x509_cert::Certificate::from_der(precertificate).unwrap();
        let mut tbs = certificate.tbs_certificate.to_der().unwrap();
        if flaw == Flaw::SctForOtherCertificate {
            tbs.push(0);
        }
        let milliseconds = self.now.minus(Duration::from_hours(1)).unix_millis().to_be_bytes();
        let mut signed = vec![0, 0];
        signed.extend(milliseconds);
        signed.extend([0, 1]);
        signed.extend(Digest::sha256(self.intermediate_key.spki()).as_bytes());
        signed.extend(u32::try_from(tbs.len()).unwrap().to_be_bytes().get(1..).unwrap());
        signed.extend(&tbs);
        signed.extend([0, 0]);

        let mut sct = vec![0];
        sct.extend(log.fingerprint().as_bytes());
        sct.extend(milliseconds);
        sct.extend([0, 0, 4, 3]);
        sct.extend(with_length(&log.sign(&signed)));
        let list = with_length(&with_length(&sct));
        let content = x509_cert::der::asn1::OctetString::new(list).unwrap().to_der().unwrap();
        Some(CustomExtension::from_oid_content(SCT_LIST, content))
    }
}

fn leaf_params(identity: &Identity, flaw: Flaw) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match flaw {
        Flaw::OtherPurpose => vec![ExtendedKeyUsagePurpose::ServerAuth],
        _ => vec![ExtendedKeyUsagePurpose::CodeSigning],
    };
    params.use_authority_key_identifier_extension = true;
    let emails = identity.emails.iter().map(|name| SanType::Rfc822Name(name.as_str().try_into().unwrap()));
    let uris = identity.uris.iter().map(|name| SanType::URI(name.as_str().try_into().unwrap()));
    let hostnames = identity.hostnames.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap()));
    params.subject_alt_names = emails.chain(uris).chain(hostnames).collect();
    if flaw == Flaw::NameOfOtherKind {
        // As Fulcio writes user names.
        params.subject_alt_names.push(SanType::OtherName(([FULCIO, &[7]].concat(), "dev".into())));
    }
    if let Some(issuer) = &identity.issuer {
        let v1 = if flaw == Flaw::InconsistentIssuer { "https://other.example" } else { issuer };
        let v2 = x509_cert::der::asn1::Utf8StringRef::new(issuer).unwrap().to_der().unwrap();
        params.custom_extensions.push(CustomExtension::from_oid_content(ISSUER_V1, v1.as_bytes().to_vec()));
        params.custom_extensions.push(CustomExtension::from_oid_content(ISSUER_V2, v2));
        if flaw == Flaw::IssuerTwice {
            let other = x509_cert::der::asn1::Utf8StringRef::new("https://other.example").unwrap().to_der().unwrap();
            params.custom_extensions.push(CustomExtension::from_oid_content(ISSUER_V2, other));
        }
    }
    for (number, value) in &identity.extensions {
        // The first ones are the text as it is, the later ones are DER.
        let content = match number {
            0..8 => value.clone().into_bytes(),
            _ => x509_cert::der::asn1::Utf8StringRef::new(value).unwrap().to_der().unwrap(),
        };
        let oid = [FULCIO, &[*number]].concat();
        params.custom_extensions.push(CustomExtension::from_oid_content(&oid, content));
    }
    params
}

pub(super) fn ca_params(label: &str, role: &str, not_before: Timestamp, not_after: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "sealgate tests");
    params.distinguished_name.push(DnType::CommonName, format!("{label} {role}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if role == "intermediate" {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    }
    params.serial_number = Some(SerialNumber::from_slice(
        Digest::sha256(format!("{label} {role} {not_after}").as_bytes()).as_bytes().first_chunk::<8>().unwrap(),
    ));
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_before);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_after);
    params
}

pub(super) fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(at.unix_seconds()).unwrap())
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

const YEAR: Duration = Duration::from_hours(365 * 24);
/// The issuer of GitHub's workflow tokens.
const GITHUB: &str = "https://token.actions.githubusercontent.com";
const FULCIO: &[u64] = &[1, 3, 6, 1, 4, 1, 57264, 1];
const ISSUER_V1: &[u64] = &[1, 3, 6, 1, 4, 1, 57264, 1, 1];
const ISSUER_V2: &[u64] = &[1, 3, 6, 1, 4, 1, 57264, 1, 8];
const SCT_LIST: &[u64] = &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];
