//! Names, addresses, TLS and proxies.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealgate::net::Lookup;
use sealgate::testing::{Chaos, ChaosProxy, FakeRegistry, Fault, ImageBuilder, RawServer, TestCa};
use sealgate::upstream::{Network, Settings, UpstreamError};

use super::{HOST, bad, client, client_with, connect, impatient, name, quick, read_blob, registry, tag};

fn at(mut settings: Settings, endpoint: &str) -> Settings {
    settings.endpoint = endpoint.parse().unwrap();
    settings
}

/// A resolver that gives its answers in turn, the last one for ever, and counts.
fn scripted(answers: &[&[&str]]) -> (Lookup, Arc<AtomicUsize>) {
    let answers: Vec<Vec<IpAddr>> =
        answers.iter().map(|answer| answer.iter().map(|text| text.parse().unwrap()).collect()).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let lookup = Lookup::Scripted(Arc::new(move |_| {
        let number = counter.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        answers[number].clone()
    }));
    (lookup, asked)
}

#[tokio::test]
async fn u14_a_name_that_resolves_to_a_forbidden_address_is_not_dialled() {
    let registry = FakeRegistry::start().await;
    let port = registry.address().port();
    for answer in ["127.0.0.1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "0.0.0.0"] {
        let (lookup, _) = scripted(&[&[answer]]);
        let settings = at(registry.settings(HOST), &format!("http://registry.test:{port}"));
        let client = client_with(settings, Network { timeouts: quick(), lookup, ..Network::default() });
        assert_eq!(connect(client.manifest(&name(), &tag()).await), "address_blocked", "{answer}");
    }
    assert_eq!(registry.connections(), 0);
}

#[tokio::test]
async fn u14_only_the_checked_address_is_dialled() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(1000).build();
    registry.put("team/app", "1.0", &image);
    let port = registry.address().port();
    let settings = at(registry.settings(HOST), &format!("http://localhost:{port}"));
    // The name is resolved once for a connection: what it would say the second time is never asked.
    let (lookup, asked) = scripted(&[&["10.0.0.1", "127.0.0.1"], &["10.0.0.1"]]);
    let client = client_with(settings, Network { timeouts: quick(), lookup, ..Network::default() });
    client.manifest(&name(), &tag()).await.unwrap();
    client.manifest(&name(), &tag()).await.unwrap();
    assert_eq!((asked.load(Ordering::SeqCst), registry.connections()), (1, 1));
    registry.go_down();
    registry.come_back().await;
    assert_eq!(connect(client.manifest(&name(), &tag()).await), "address_blocked", "the second answer is checked too");
}

#[tokio::test]
async fn u14_a_redirect_to_a_name_is_checked_after_resolution() {
    let (registry, image, _) = registry().await;
    registry.fault(Fault::on("*").redirect("http://storage.test/x"));
    let (lookup, asked) = scripted(&[&["169.254.169.254"]]);
    let client = client_with(registry.settings(HOST), Network { timeouts: quick(), lookup, ..Network::default() });
    assert_eq!(bad(read_blob(&client, &image.blobs[1].digest).await), "redirect_blocked");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_name_without_an_address_and_a_port_without_a_listener_are_told_apart() {
    let registry = FakeRegistry::start().await;
    let (lookup, _) = scripted(&[&[]]);
    let settings = at(registry.settings(HOST), "http://localhost:9");
    let nowhere = client_with(settings, Network { timeouts: quick(), lookup, ..Network::default() });
    let reason = connect(nowhere.manifest(&name(), &tag()).await);
    assert!(matches!(reason.as_str(), "dns" | "connect"), "{reason}");
    let settings = registry.settings(HOST);
    registry.go_down();
    assert_eq!(connect(client(settings).manifest(&name(), &tag()).await), "connect");
}

#[tokio::test]
async fn u26_tls_is_verified_with_the_upstreams_own_ca() {
    let registry = FakeRegistry::builder().tls().start().await;
    registry.put("team/app", "1.0", &ImageBuilder::new(1).build());
    client(registry.settings(HOST)).manifest(&name(), &tag()).await.unwrap();
    let mut other = registry.settings(HOST);
    other.ca_pem = Some(TestCa::new("other").pem().as_bytes().to_vec());
    assert_eq!(connect(client(other).manifest(&name(), &tag()).await), "tls");
    let mut system = registry.settings(HOST);
    system.ca_pem = None;
    assert_eq!(connect(client(system).manifest(&name(), &tag()).await), "tls");
    assert_eq!(registry.count("*", "*"), 1, "nothing was sent in plain text, and nothing twice");
}

#[tokio::test]
async fn u26_expired_and_foreign_certificates_are_refused() {
    let ca = TestCa::new("ca");
    for identity in [ca.issue_expired(&["127.0.0.1"]), ca.issue(&["other.test"])] {
        let registry = FakeRegistry::builder().identity(identity).start().await;
        assert_eq!(connect(client(registry.settings(HOST)).manifest(&name(), &tag()).await), "tls");
        assert_eq!(registry.connections(), 1, "a failed handshake is not repeated");
    }
}

#[tokio::test]
async fn u26_a_client_certificate_is_shown_where_it_is_configured() {
    let (ca, client_ca) = (TestCa::new("ca"), TestCa::new("clients"));
    let identity = client_ca.issue(&["sealgate"]);
    let registry = FakeRegistry::builder().identity(ca.issue(&["127.0.0.1"])).client_ca(client_ca).start().await;
    registry.put("team/app", "1.0", &ImageBuilder::new(1).build());
    assert_eq!(connect(client(registry.settings(HOST)).manifest(&name(), &tag()).await), "tls");
    let mut settings = registry.settings(HOST);
    settings.client_identity_pem = Some(identity.pem().into_bytes());
    client(settings).manifest(&name(), &tag()).await.unwrap();
}

#[tokio::test]
async fn u26_a_client_certificate_is_not_shown_where_a_redirect_leads() {
    let (ca, client_ca) = (TestCa::new("ca"), TestCa::new("clients"));
    let identity = client_ca.issue(&["sealgate"]);
    let image = ImageBuilder::new(1).build();
    let other = FakeRegistry::builder().identity(ca.issue(&["127.0.0.1"])).client_ca(client_ca).start().await;
    other.put("team/app", "1.0", &image);
    let registry = FakeRegistry::builder().identity(ca.issue(&["127.0.0.1"])).start().await;
    registry.fault(Fault::on("*").redirect(&format!("{}/v2/team/app/manifests/1.0", other.url())));
    let mut settings = registry.settings(HOST);
    settings.redirect_hosts = vec![other.address().to_string()];
    settings.client_identity_pem = Some(identity.pem().into_bytes());
    assert_eq!(connect(client(settings).manifest(&name(), &tag()).await), "tls");
    assert_eq!((registry.count("*", "*"), other.count("*", "*")), (1, 0));
}

#[tokio::test]
async fn u26_an_old_protocol_and_plain_text_are_no_tls() {
    let registry = FakeRegistry::builder().tls().start().await;
    // An alert "protocol version", as a server that knows only TLS 1.1 sends it; and an answer in plain text.
    for answer in [&b"\x15\x03\x01\x00\x02\x02\x46"[..], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"] {
        let server = RawServer::answering(answer).await;
        let settings = at(registry.settings(HOST), &format!("https://{}", server.address()));
        assert_eq!(connect(client(settings).manifest(&name(), &tag()).await), "tls");
        let heard = server.requests();
        assert!(heard.iter().all(|request| !request.windows(3).any(|window| window == b"GET")), "no plain text");
    }
}

#[tokio::test]
async fn u07_a_tls_connection_that_ends_in_mid_body_is_no_end() {
    let registry = FakeRegistry::builder().tls().start().await;
    let image = ImageBuilder::new(1).layer(100_000).build();
    registry.put("team/app", "1.0", &image);
    let client = client(registry.settings(HOST));
    registry.fault(Fault::on("*/blobs/*").times(1).truncate(1000));
    assert!(read_blob(&client, &image.blobs[1].digest).await.is_err());
    registry.fault(Fault::on("*/blobs/*").times(1).chunked_cut(1000));
    assert!(read_blob(&client, &image.blobs[1].digest).await.is_err());
    assert_eq!(read_blob(&client, &image.blobs[1].digest).await.unwrap(), image.blobs[1].bytes);
}

#[tokio::test]
async fn a_network_that_swallows_everything_ends_in_a_timeout() {
    let (registry, _, _) = registry().await;
    let proxy = ChaosProxy::start(registry.address()).await;
    proxy.set(Chaos::Blackhole);
    let settings = at(registry.settings(HOST), &format!("http://{}", proxy.address()));
    let error = impatient(settings).manifest(&name(), &tag()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { .. }), "{error:?}");
    proxy.set(Chaos::Reset);
    let settings = at(registry.settings(HOST), &format!("http://{}", proxy.address()));
    assert_eq!(connect(client(settings).manifest(&name(), &tag()).await), "reset");
}

#[tokio::test]
async fn a_configured_proxy_is_used_and_its_address_needs_no_permission() {
    let (registry, image, _) = registry().await;
    // A registry stands in for the proxy: a request through a proxy names the whole URL, of which it reads the path.
    let mut settings = at(registry.settings(HOST), "http://upstream.example");
    settings.proxy = Some(registry.url().parse().unwrap());
    let client = client(settings);
    assert_eq!(client.manifest(&name(), &tag()).await.unwrap().digest, image.digest());
    assert_eq!(registry.requests()[0].header("host"), Some("upstream.example"));
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_at_once() {
    let registry = FakeRegistry::start().await;
    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = registry.settings(HOST);
        change(&mut settings);
        let telemetry = sealgate::telemetry::Telemetry::new(&[]);
        sealgate::upstream::Upstream::new(settings, telemetry).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|settings| settings.ca_pem = Some(b"no certificate".to_vec())));
    assert!(refused(&|settings| settings.client_identity_pem = Some(b"no key".to_vec())));
    assert!(refused(&|settings| settings.auth_hosts = vec!["https://auth.example".to_owned()]));
    assert!(refused(&|settings| settings.redirect_hosts = vec!["*.example".to_owned()]));
    assert!(refused(&|settings| settings.endpoint = "https://a.example/path".parse().unwrap()));
    assert!(refused(&|settings| settings.credentials = sealgate::upstream::Credentials::Helper("../x".to_owned())));
    assert!(refused(&|settings| settings.proxy = Some("ftp://proxy.example".parse().unwrap())));
}
