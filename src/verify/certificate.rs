//! X.509 certificates: those that a policy trusts, and the leaf that came with a signature.

use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, Utf8StringRef};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use super::error::{VerifyError, shown};
use super::identity::WorkflowClaims;
use super::key_error::KeyError;
use super::pem;
use crate::clock::Timestamp;
use crate::limits::IDENTITY_BYTES_MAX;

/// From when to when a certificate is valid; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Validity {
    pub(super) fn of(certificate: &Certificate) -> Self {
        let time = |time: x509_cert::time::Time| {
            Timestamp::from_unix_seconds(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
        };
        let validity = certificate.tbs_certificate.validity;
        Self { not_before: time(validity.not_before), not_after: time(validity.not_after) }
    }

    pub(super) fn contains(&self, at: Timestamp) -> bool {
        self.not_before <= at && at <= self.not_after
    }
}

/// A certificate authority that a policy trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) der: Vec<u8>,
    pub(super) validity: Validity,
}

impl Authority {
    /// All certificates of a PEM file, at least one, duplicates removed. Blocks that are no certificates are ignored.
    ///
    /// A certificate that is no CA is an error: as a trust anchor it could not vouch for anything.
    pub(super) fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let blocks = pem::blocks(pem).map_err(|error| KeyError::Pem { why: error.why() })?;
        let mut authorities: Vec<Self> = Vec::new();
        for (number, block) in (1..).zip(blocks.into_iter().filter(|block| block.label == CERTIFICATE)) {
            let authority = Self::from_der(block.der).map_err(|why| KeyError::Certificate { number, why })?;
            if !authorities.contains(&authority) {
                authorities.push(authority);
            }
        }
        if authorities.is_empty() {
            return Err(KeyError::NoCertificate);
        }
        Ok(authorities)
    }

    /// The authority of that certificate (DER); the error says what is wrong with it.
    pub(super) fn from_der(der: Vec<u8>) -> Result<Self, String> {
        let certificate = Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let constraints = certificate.tbs_certificate.get::<BasicConstraints>().map_err(|error| error.to_string())?;
        if !constraints.is_some_and(|(_, constraints)| constraints.ca) {
            return Err("not the certificate of a CA".to_owned());
        }
        if !may_issue(&certificate) {
            return Err("its key may not sign certificates (key usage)".to_owned());
        }
        Ok(Self { validity: Validity::of(&certificate), der })
    }
}

/// The certificate that came with a signature. Nothing in it is trusted before its chain was checked.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) der: Vec<u8>,
    /// `SubjectPublicKeyInfo`, DER.
    pub(super) spki: Vec<u8>,
    pub(super) validity: Validity,
    /// E-mail addresses among its subject alternative names.
    pub(super) emails: Vec<String>,
    /// DNS names among them.
    pub(super) hostnames: Vec<String>,
    /// URIs among them.
    pub(super) uris: Vec<String>,
    /// Whether there are names of other kinds among them.
    pub(super) other_names: bool,
    certificate: Certificate,
}

impl Leaf {
    /// The one certificate of a PEM text.
    pub(super) fn from_pem(pem: &str) -> Result<Self, VerifyError> {
        let mut certificates = certificates(pem)?;
        let Some(der) = certificates.pop() else { return Err(VerifyError::NoCertificate) };
        if !certificates.is_empty() {
            return Err(VerifyError::SeveralCertificates);
        }
        Self::from_der(der)
    }

    /// The certificate with that DER.
    pub(super) fn from_der(der: Vec<u8>) -> Result<Self, VerifyError> {
        let certificate = Certificate::from_der(&der).map_err(|error| malformed(&error))?;
        let spki = certificate.tbs_certificate.subject_public_key_info.to_der().map_err(|error| malformed(&error))?;
        let names = certificate.tbs_certificate.get::<SubjectAltName>().map_err(|error| malformed(&error))?;
        let mut leaf = Self {
            der,
            spki,
            validity: Validity::of(&certificate),
            emails: Vec::new(),
            hostnames: Vec::new(),
            uris: Vec::new(),
            other_names: false,
            certificate,
        };
        for name in names.map(|(_, names)| names.0).unwrap_or_default() {
            leaf.add(&name)?;
        }
        Ok(leaf)
    }

    fn add(&mut self, name: &GeneralName) -> Result<(), VerifyError> {
        let (names, name) = match name {
            GeneralName::Rfc822Name(name) => (&mut self.emails, name.as_str()),
            GeneralName::DnsName(name) => (&mut self.hostnames, name.as_str()),
            GeneralName::UniformResourceIdentifier(name) => (&mut self.uris, name.as_str()),
            // Nobody asks for names of another kind, so they can match nothing.
            GeneralName::OtherName(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EdiPartyName(_)
            | GeneralName::IpAddress(_)
            | GeneralName::RegisteredId(_) => {
                self.other_names = true;
                return Ok(());
            }
        };
        names.push(bounded(name)?.to_owned());
        Ok(())
    }

    /// All its names, for evidence.
    pub(super) fn subjects(&self) -> Vec<String> {
        self.emails.iter().chain(&self.uris).chain(&self.hostnames).take(NAMES_SHOWN_MAX).cloned().collect()
    }

    /// What Fulcio recorded about the workflow that signed. A claim that cannot be read, or stands there twice, is an error:
    /// two readers could take it for two things.
    pub(super) fn workflow(&self) -> Result<WorkflowClaims, VerifyError> {
        let raw = |arc: u32| self.claim(arc, |value| std::str::from_utf8(value).ok().map(str::to_owned));
        let text = |arc: u32| self.claim(arc, |der| Utf8StringRef::from_der(der).ok().map(|text| text.to_string()));
        let mut claims = WorkflowClaims {
            trigger: raw(2)?,
            sha: raw(3)?,
            name: raw(4)?,
            repository: raw(5)?,
            reference: raw(6)?,
            ..WorkflowClaims::default()
        };
        for (arc, name) in CLAIMS {
            if let Some(claim) = text(arc)? {
                claims.extensions.insert(name, claim);
            }
        }
        Ok(claims)
    }

    fn claim(&self, arc: u32, read: impl Fn(&[u8]) -> Option<String>) -> Result<Option<String>, VerifyError> {
        let oid = FULCIO.push_arc(arc).map_err(|error| malformed(&x509_cert::der::Error::from(error)))?;
        let unreadable = || VerifyError::ClaimMalformed { oid: oid.to_string() };
        let Some(value) = self.extension(oid).map_err(|_| unreadable())? else { return Ok(None) };
        let claim = read(value).ok_or_else(unreadable)?;
        bounded(&claim)?;
        Ok(Some(claim))
    }

    /// The OIDC issuer that Fulcio wrote into it: the extension `.1.8` or `.1.1`, and where both are there, both.
    pub(super) fn oidc_issuer(&self) -> Result<String, VerifyError> {
        let v1 = match self.extension(ISSUER_V1)? {
            Some(raw) => Some(utf8(raw, "the extension .1.1 is not UTF-8")?),
            None => None,
        };
        let v2 = match self.extension(ISSUER_V2)? {
            Some(der) => Some(
                Utf8StringRef::from_der(der)
                    .map_err(|_| VerifyError::IssuerMalformed { why: "the extension .1.8 is not a UTF8String" })?
                    .to_string(),
            ),
            None => None,
        };
        let issuer = match (v1, v2) {
            (None, None) => return Err(VerifyError::IssuerMissing),
            (Some(v1), Some(v2)) if v1 != v2 => {
                return Err(VerifyError::IssuerInconsistent { v1: shown(&v1), v2: shown(&v2) });
            }
            (_, Some(issuer)) | (Some(issuer), None) => issuer,
        };
        bounded(&issuer)?;
        Ok(issuer)
    }

    fn extension(&self, oid: ObjectIdentifier) -> Result<Option<&[u8]>, VerifyError> {
        let extensions = self.certificate.tbs_certificate.extensions.as_deref().unwrap_or_default();
        let mut found = extensions.iter().filter(|extension| extension.extn_id == oid);
        let value = found.next().map(|extension| extension.extn_value.as_bytes());
        if found.next().is_some() {
            return Err(VerifyError::IssuerMalformed { why: "an extension stands there twice" });
        }
        Ok(value)
    }
}

/// The certificates of a PEM text; another block in it is an error.
pub(super) fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, VerifyError> {
    let malformed = |why: &str| VerifyError::CertificateMalformed { why: why.to_owned() };
    let blocks = pem::blocks(pem.as_bytes()).map_err(|error| malformed(error.why()))?;
    if blocks.iter().any(|block| block.label != CERTIFICATE) {
        return Err(malformed("a PEM block that is no certificate"));
    }
    Ok(blocks.into_iter().map(|block| block.der).collect())
}

/// Those of the certificates that may have issued others, for whoever builds a chain of them. RFC 5280, 4.2.1.3: where it is
/// said what a key is for, signing certificates must be among it; webpki leaves that to its caller. What cannot be read is
/// left to whoever comes to need it.
pub(super) fn issuers(certificates: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let is_issuer = |der: &Vec<u8>| Certificate::from_der(der).map_or(true, |certificate| may_issue(&certificate));
    certificates.into_iter().filter(is_issuer).collect()
}

fn may_issue(certificate: &Certificate) -> bool {
    match certificate.tbs_certificate.get::<KeyUsage>() {
        Ok(Some((_, usage))) => usage.key_cert_sign(),
        Ok(None) => true,
        // Said twice, or in another way than it is said.
        Err(_) => false,
    }
}

/// The validity of a DER certificate that the chain check has accepted.
pub(super) fn validity(der: &[u8]) -> Result<Validity, VerifyError> {
    Ok(Validity::of(&Certificate::from_der(der).map_err(|error| malformed(&error))?))
}

fn malformed(error: &x509_cert::der::Error) -> VerifyError {
    VerifyError::CertificateMalformed { why: shown(&error.to_string()) }
}

fn utf8(raw: &[u8], why: &'static str) -> Result<String, VerifyError> {
    String::from_utf8(raw.to_vec()).map_err(|_| VerifyError::IssuerMalformed { why })
}

fn bounded(name: &str) -> Result<&str, VerifyError> {
    if name.len() > IDENTITY_BYTES_MAX {
        return Err(VerifyError::IdentityTooLong { bytes: name.len(), max: IDENTITY_BYTES_MAX });
    }
    Ok(name)
}

/// Names of a certificate that evidence and messages repeat; nobody has more, and an attacker could bring thousands.
pub(super) const NAMES_SHOWN_MAX: usize = 8;

const CERTIFICATE: &str = "CERTIFICATE";
/// Fulcio's OIDC issuer, as raw bytes (deprecated there, still written).
const ISSUER_V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
/// Fulcio's OIDC issuer, as DER `UTF8String`.
const ISSUER_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");

/// The arc of Fulcio's extensions.
const FULCIO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1");
/// The claims that are `UTF8String`s, by the names of Fulcio's `oid-info.md`.
const CLAIMS: [(u32, &str); 16] = [
    (9, "buildSignerURI"),
    (10, "buildSignerDigest"),
    (11, "runnerEnvironment"),
    (12, "sourceRepositoryURI"),
    (13, "sourceRepositoryDigest"),
    (14, "sourceRepositoryRef"),
    (15, "sourceRepositoryIdentifier"),
    (16, "sourceRepositoryOwnerURI"),
    (17, "sourceRepositoryOwnerIdentifier"),
    (18, "buildConfigURI"),
    (19, "buildConfigDigest"),
    (20, "buildTrigger"),
    (21, "runInvocationURI"),
    (22, "sourceRepositoryVisibilityAtSigning"),
    (23, "deploymentEnvironment"),
    (24, "tokenSubject"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::oci::Digest;
    use crate::testing::sigstore::{FakeSigstore, Flaw};

    fn sigstore() -> FakeSigstore {
        FakeSigstore::from_seed(5, Clock::System.now())
    }

    fn leaf_pem() -> String {
        let signature = sigstore().sign_keyless("a/b", &Digest::sha256(b""), "a@b.c", "https://i", Flaw::None);
        signature.annotations["dev.sigstore.cosign/certificate"].clone()
    }

    #[test]
    fn authorities_are_read_from_a_file_once_each() {
        let sigstore = sigstore();
        let (root, intermediate) = (sigstore.pki_root_pem(), sigstore.pki_intermediate_pem());
        let file = format!("# our root\n{root}{intermediate}{root}");
        assert_eq!(Authority::all_from_pem(file.as_bytes()).unwrap().len(), 2);
        assert_eq!(Authority::all_from_pem(b""), Err(KeyError::NoCertificate));
        assert_eq!(Authority::all_from_pem(sigstore.rekor_pem().as_bytes()), Err(KeyError::NoCertificate));
    }

    #[test]
    fn a_certificate_that_is_no_ca_is_no_authority() {
        let file = sigstore().pki_root_pem() + &leaf_pem();
        let why = "not the certificate of a CA".to_owned();
        assert_eq!(Authority::all_from_pem(file.as_bytes()), Err(KeyError::Certificate { number: 2, why }));
        let broken = pem::write(CERTIFICATE, b"no DER");
        assert!(matches!(Authority::all_from_pem(broken.as_bytes()), Err(KeyError::Certificate { number: 1, .. })));
    }

    #[test]
    fn a_leaf_is_exactly_one_certificate() {
        let pem = leaf_pem();
        let leaf = Leaf::from_pem(&pem).unwrap();
        assert_eq!(leaf.subjects(), ["a@b.c"]);
        assert_eq!(leaf.oidc_issuer().as_deref(), Ok("https://i"));
        assert!(leaf.validity.contains(leaf.validity.not_before) && leaf.validity.contains(leaf.validity.not_after));
        assert!(!leaf.validity.contains(leaf.validity.not_after.plus(std::time::Duration::from_millis(1))));
        assert_eq!(Leaf::from_pem("").unwrap_err(), VerifyError::NoCertificate);
        assert_eq!(Leaf::from_pem(&pem.repeat(2)).unwrap_err(), VerifyError::SeveralCertificates);
        for bad in [pem.clone() + &sigstore().rekor_pem(), pem::write(CERTIFICATE, b"no DER")] {
            assert!(matches!(Leaf::from_pem(&bad), Err(VerifyError::CertificateMalformed { .. })), "{bad}");
        }
    }
}
