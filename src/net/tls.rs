//! Trust of outgoing TLS: the upstream's own CA, else the system's roots, else Mozilla's.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::HttpSettingsError;

/// The configuration of one client: TLS 1.2 and 1.3, HTTP/2 or HTTP/1.1 by ALPN, verification always on.
pub(super) fn client_config(ca: Option<&[u8]>, identity: Option<&[u8]>) -> Result<ClientConfig, HttpSettingsError> {
    let roots = match ca {
        Some(pem) => roots_of(pem)?,
        None => system_roots(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| HttpSettingsError::Client)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(|_| HttpSettingsError::Identity)?;
            let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| HttpSettingsError::Identity)?;
            builder.with_client_auth_cert(chain, key).map_err(|_| HttpSettingsError::Identity)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The only roots: each certificate must parse, and there must be one.
fn roots_of(pem: &[u8]) -> Result<RootCertStore, HttpSettingsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| HttpSettingsError::Ca)?;
        roots.add(certificate).map_err(|_| HttpSettingsError::Ca)?;
    }
    if roots.is_empty() { Err(HttpSettingsError::Ca) } else { Ok(roots) }
}

/// The system's roots. A system certificate that does not parse is passed over, as every other program does; a system
/// without any, such as a container from a static image, gets the bundled ones.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in [&b""[..], b"no certificate", broken] {
            assert_eq!(client_config(Some(pem), None).err(), Some(HttpSettingsError::Ca));
        }
    }

    #[test]
    fn a_client_identity_without_a_key_is_refused() {
        assert_eq!(client_config(None, Some(b"")).err(), Some(HttpSettingsError::Identity));
    }

    #[test]
    fn the_bundled_roots_parse() {
        let mut roots = RootCertStore::empty();
        let (added, ignored) =
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        assert!(added > 100 && ignored == 0, "{added} added, {ignored} ignored");
    }
}
