//! The registry listener over TLS: which protocols, which clients, and what is closed.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sealgate::http::Tls;
use sealgate::oci::Digest;
use sealgate::testing::{BuiltImage, Fault, ImageBuilder};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::parts::{ACCEPT_ANYTHING, Mirror, REJECT};
use crate::wire::{PATIENCE, Wire};

/// A CA with a certificate for the mirror and one for a client.
struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Issued {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }

    fn connector(&self, client: Option<&Issued>, protocols: &[&[u8]]) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.0.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(Issued { cert, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

async fn mirror(authority: &Authority, client_ca: Option<&Authority>) -> Mirror {
    let Issued { cert, key } = authority.issue("mirror");
    let ca = client_ca.map(|ca| ca.0.pem());
    let tls = Tls::from_pem(cert.as_bytes(), key.as_bytes(), ca.as_ref().map(String::as_bytes)).unwrap();
    Mirror::start_with(REJECT, |settings| settings.tls = Some(tls)).await
}

async fn connect(mirror: &Mirror, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(mirror.address).await.unwrap();
    connector.connect(ServerName::try_from("mirror").unwrap(), stream).await
}

const BASE: &str = "GET /v2/ HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn clients_that_speak_http_1_get_it_with_the_reason_phrase() {
    let authority = Authority::new();
    let mirror = mirror(&authority, None).await;
    for protocols in [&[][..], &[b"http/1.1".as_slice()]] {
        let mut wire = Wire::over(connect(&mirror, &authority.connector(None, protocols)).await.unwrap());
        wire.send(BASE).await;
        assert_eq!(wire.answer().await.status, 200);
    }
    mirror.stop().await;
}

fn http2_client(authority: &Authority, mirror: &Mirror) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(authority.0.pem().as_bytes()).unwrap()])
        .resolve("mirror", mirror.address)
        .no_proxy()
        .build()
        .unwrap()
}

#[tokio::test]
async fn http_2_is_spoken_where_alpn_chose_it() {
    let authority = Authority::new();
    let mirror = mirror(&authority, None).await;
    let stream = connect(&mirror, &authority.connector(None, &[b"h2", b"http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    drop(stream);
    let client = http2_client(&authority, &mirror);
    let url = |path: &str| format!("https://mirror:{}{path}", mirror.address.port());
    let answer = client.get(url("/v2/")).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_2, 200));
    for (path, status) in [("/v2/_catalog", 404), ("/v2/A/manifests/x", 400), ("/v2/a/manifests/x?ns=ghcr.io", 404)] {
        assert_eq!(client.get(url(path)).send().await.unwrap().status().as_u16(), status, "{path}");
    }
    let push = client.put(url("/v2/a/manifests/x")).body(vec![0; 100_000]).send().await.unwrap();
    assert_eq!((push.status().as_u16(), push.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    let body = client.get(url("/v2/")).body("x").send().await.unwrap();
    assert_eq!(body.status(), 400, "no body in HTTP/2 either");
    drop(client);
    mirror.stop().await;
}

/// A mirror that speaks HTTP/2, with an image that has one layer, and the URL of that layer.
async fn with_layer(authority: &Authority, bytes: usize, write_idle: Duration) -> (Mirror, BuiltImage, String) {
    let Issued { cert, key } = authority.issue("mirror");
    let tls = Tls::from_pem(cert.as_bytes(), key.as_bytes(), None).unwrap();
    let mirror = Mirror::start_with(ACCEPT_ANYTHING, |settings| {
        settings.tls = Some(tls);
        settings.timeouts.write_idle = write_idle;
    })
    .await;
    let image = ImageBuilder::new(3).layer(bytes).build();
    mirror.upstream.put("library/app", "1", &image);
    let base = format!("https://mirror:{}/v2/app", mirror.address.port());
    let manifest = http2_client(authority, &mirror).get(format!("{base}/manifests/1")).send().await.unwrap();
    assert_eq!(manifest.status(), 200);
    let url = format!("{base}/blobs/{}", image.blobs[1].digest);
    (mirror, image, url)
}

#[tokio::test]
async fn p14_a_stream_that_nobody_takes_is_dropped_in_http_2_too() {
    let authority = Authority::new();
    let (mirror, image, url) = with_layer(&authority, 32 << 20, Duration::from_millis(500)).await;
    let stalled = http2_client(&authority, &mirror).get(&url).send().await.unwrap();
    let other = http2_client(&authority, &mirror).get(&url).send().await.unwrap();
    assert_eq!(other.version(), http::Version::HTTP_2);
    assert_eq!(Digest::sha256(&other.bytes().await.unwrap()), image.blobs[1].digest);
    let series = r#"sealgate_connections_closed_total{reason="write_timeout"}"#;
    let dropped = async {
        while mirror.metric(series) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.unwrap();
    assert!(stalled.bytes().await.is_err(), "its body does not end cleanly");
    mirror.stop().await;
}

#[tokio::test]
async fn wrong_bytes_reset_the_stream_in_http_2() {
    let authority = Authority::new();
    let (mirror, _, url) = with_layer(&authority, 300_000, Duration::from_secs(30)).await;
    mirror.upstream.fault(Fault::on("*/blobs/*").get().wrong_bytes());
    let answer = http2_client(&authority, &mirror).get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
    mirror.stop().await;
}

#[tokio::test]
async fn p12_a_preface_and_silence_are_closed() {
    let authority = Authority::new();
    let Issued { cert, key } = authority.issue("mirror");
    let tls = Tls::from_pem(cert.as_bytes(), key.as_bytes(), None).unwrap();
    let mirror = Mirror::start_with(REJECT, |settings| {
        settings.tls = Some(tls);
        settings.timeouts.header_read = Duration::from_millis(200);
    })
    .await;
    for sent in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"]
    {
        let mut wire = Wire::over(connect(&mirror, &authority.connector(None, &[b"h2"])).await.unwrap());
        wire.send(sent).await;
        wire.rest().await;
    }
    assert_eq!(mirror.stop().await.closed("header_timeout"), 3);
}

#[tokio::test]
async fn a_client_without_the_right_certificate_gets_no_further_than_the_handshake() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let mirror = mirror(&authority, Some(&clients)).await;
    let known = clients.issue("node-1");
    let mut wire = Wire::over(connect(&mirror, &authority.connector(Some(&known), &[])).await.unwrap());
    wire.send(BASE).await;
    assert_eq!(wire.answer().await.status, 200);
    for client in [None, Some(strangers.issue("node-1"))] {
        // In TLS 1.3 the client may learn of it only when it reads.
        if let Ok(stream) = connect(&mirror, &authority.connector(client.as_ref(), &[])).await {
            let mut wire = Wire::over(stream);
            wire.try_send(BASE).await;
            assert!(wire.rest().await.is_empty());
        }
    }
    drop(wire);
    assert_eq!(mirror.stop().await.closed("tls"), 2);
}

#[tokio::test]
async fn plain_http_on_a_tls_listener_is_no_handshake() {
    let authority = Authority::new();
    let mirror = mirror(&authority, None).await;
    let mut wire = Wire::open(mirror.address).await;
    wire.try_send(BASE).await;
    let said = wire.rest().await;
    assert!(!said.starts_with(b"HTTP/"), "{:?}", String::from_utf8_lossy(&said));
    assert_eq!(mirror.stop().await.closed("tls"), 1);
}

#[test]
fn what_is_no_certificate_or_key_is_an_error_without_the_key() {
    let authority = Authority::new();
    let Issued { cert, key } = authority.issue("mirror");
    let other = authority.issue("mirror").key;
    for (cert, key, ca) in [
        ("", key.as_str(), None),
        (cert.as_str(), "", None),
        (cert.as_str(), cert.as_str(), None),
        (cert.as_str(), other.as_str(), None),
        (cert.as_str(), key.as_str(), Some("")),
    ] {
        let error = Tls::from_pem(cert.as_bytes(), key.as_bytes(), ca.map(str::as_bytes)).unwrap_err();
        assert!(!format!("{error:?}").contains("PRIVATE"), "{error:?}");
    }
}

/// The preface, and SETTINGS with these entries.
fn http2_opening(settings: &[(u16, u32)]) -> Vec<u8> {
    let entries: Vec<u8> =
        settings.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), http2_frame(4, 0, 0, &entries)].concat()
}

fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The mirror still answers, and nothing of what came before is left.
async fn is_unharmed(authority: &Authority, mirror: Mirror) {
    let client = http2_client(authority, &mirror);
    let url = format!("https://mirror:{}/v2/", mirror.address.port());
    assert_eq!(client.get(url).send().await.unwrap().status(), 200);
    drop(client);
    let stopped = mirror.stop().await;
    assert_eq!(stopped.metric(r#"sealgate_http_requests_in_flight{route="base"}"#), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_ten_thousand_requests_that_are_reset_at_once_end_their_connection() {
    let authority = Authority::new();
    let mirror = mirror(&authority, None).await;
    let mut wire = Wire::over(connect(&mirror, &authority.connector(None, &[b"h2"])).await.unwrap());
    wire.send(http2_opening(&[])).await;
    // `GET https://mirror/` (RFC 7541, appendix A), ended, and reset by CANCEL.
    let head = [&[0x82, 0x87, 0x84, 0x01, 6][..], b"mirror"].concat();
    for number in 0..10_000 {
        let stream = 2 * number + 1;
        let both = [http2_frame(1, 5, stream, &head), http2_frame(3, 0, stream, &8_u32.to_be_bytes())].concat();
        if !wire.try_send(both).await {
            break;
        }
    }
    // It ends although the client would go on, and long before an idle connection would.
    tokio::time::timeout(Duration::from_secs(5), wire.rest()).await.expect("the connection ends");
    is_unharmed(&authority, mirror).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_a_head_that_is_continued_without_end_ends_its_connection() {
    let authority = Authority::new();
    let mirror = mirror(&authority, None).await;
    let mut wire = Wire::over(connect(&mirror, &authority.connector(None, &[b"h2"])).await.unwrap());
    wire.send(http2_opening(&[])).await;
    // Literal header fields without indexing (RFC 7541, 6.2.2): `x: aaaa`.
    let fields = [0, 1, b'x', 4, b'a', b'a', b'a', b'a'].repeat(2000);
    wire.send(http2_frame(1, 1, 1, &fields)).await;
    let mut sent = 0;
    while sent < 4000 && wire.try_send(http2_frame(9, 0, 1, &fields)).await {
        sent += 1;
    }
    assert!(sent < 4000, "64 MB of one head were taken");
    is_unharmed(&authority, mirror).await;
}

#[tokio::test]
async fn p15_windows_beyond_what_is_allowed_end_their_connection() {
    let authority = Authority::new();
    let mirror = mirror(&authority, None).await;
    let most = (u32::MAX >> 1).to_be_bytes();
    for abuse in [
        // SETTINGS_INITIAL_WINDOW_SIZE of 2^31.
        http2_opening(&[(4, 1 << 31)]),
        // The connection's window grows beyond 2^31 - 1.
        [http2_opening(&[]), http2_frame(8, 0, 0, &most), http2_frame(8, 0, 0, &most)].concat(),
        // SETTINGS_MAX_FRAME_SIZE of less than is allowed.
        http2_opening(&[(5, 1)]),
    ] {
        let mut wire = Wire::over(connect(&mirror, &authority.connector(None, &[b"h2"])).await.unwrap());
        wire.send(abuse).await;
        // It ends long before an idle connection would.
        tokio::time::timeout(Duration::from_secs(5), wire.rest()).await.expect("the connection ends");
    }
    is_unharmed(&authority, mirror).await;
}
