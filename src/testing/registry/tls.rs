//! Certificates for tests: a CA of its own, good and bad leaves.

use std::fmt;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// A certificate authority with a fresh key.
pub struct TestCa {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for TestCa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TestCa")
    }
}

/// A certificate with its key, and the CA that issued it.
#[derive(Clone)]
pub struct TestIdentity {
    /// PEM, as the other two.
    certificate: String,
    key: String,
    ca: String,
}

impl fmt::Debug for TestIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TestIdentity")
    }
}

impl TestCa {
    /// A CA of that name.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names and addresses, good for servers and clients.
    pub fn issue(&self, names: &[&str]) -> TestIdentity {
        self.issue_with(names, |_| {})
    }

    /// A certificate that ended in 2001.
    pub fn issue_expired(&self, names: &[&str]) -> TestIdentity {
        self.issue_with(names, |params| {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        })
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> TestIdentity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        TestIdentity { certificate: certificate.pem(), key: key.serialize_pem(), ca: self.pem.clone() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }
}

impl TestIdentity {
    /// The certificate of the CA that issued it.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// The certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The private key.
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// Certificate and key in one text, as a client identity.
    pub fn pem(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }

    pub(super) fn server_config(&self, client_ca: Option<&TestCa>, http2: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()), provider).build().unwrap(),
            ),
        };
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Arc::new(config)
    }
}
