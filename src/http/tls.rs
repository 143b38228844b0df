//! TLS for the registry listener (design §3, `[server.tls]`).

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// How the listener proves who it is, and whether its clients must.
#[derive(Clone)]
pub struct Tls(pub(super) Arc<rustls::ServerConfig>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tls(****)")
    }
}

/// Keys or certificates that cannot be used. No part of a key is in the text.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file.
    #[error("server.tls.cert has no PEM certificate")]
    Certificate,
    /// The key file.
    #[error("server.tls.key has no PEM private key")]
    Key,
    /// The clients' CA file.
    #[error("server.tls.client_ca has no usable PEM certificate")]
    ClientCa,
    /// They do not fit together.
    #[error("server.tls cannot be used")]
    Mismatch(#[source] rustls::Error),
}

impl Tls {
    /// From PEM: the certificate with its chain, its key, and, where clients must authenticate themselves, their CA.
    ///
    /// # Errors
    /// Each variant of [`TlsError`] as it says.
    pub fn from_pem(cert: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<Self, TlsError> {
        let chain = certificates(cert).filter(|chain| !chain.is_empty()).ok_or(TlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Mismatch)?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let roots = roots(pem).ok_or(TlsError::ClientCa)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|_| TlsError::ClientCa)?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Mismatch)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()
}

fn roots(pem: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}
