//! Abuse of the protocol by clients, by the ids of the catalogue (P-01 to P-24), over raw sockets. Nothing here may reach an
//! upstream; what is served at all is in `blobs_http`, `refusal` and `lists_http`.

use std::net::SocketAddr;
use std::time::Duration;

use sealgate::http::{Caps, Settings};

use crate::parts::{Mirror, REJECT, Stopped};
use crate::wire::{Answer, Wire, exchange, get, head};

async fn listener() -> Mirror {
    Mirror::start(REJECT).await
}

async fn listener_with(adjust: impl FnOnce(&mut Settings)) -> Mirror {
    Mirror::start_with(REJECT, adjust).await
}

async fn is_well(mirror: &Mirror) {
    assert_eq!(get(mirror.address, "/v2/", "").await.status, 200);
}

/// Stops a mirror that must not have asked its upstream anything.
async fn stop_unasked(mirror: Mirror) -> Stopped {
    let stopped = mirror.stop().await;
    assert_eq!(stopped.upstream.count("*", "*"), 0, "{:?}", stopped.upstream.requests());
    stopped
}

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn expect(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    assert_eq!(answer.code(), code, "{what}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
}

#[tokio::test]
async fn the_base_answers_at_once_without_any_upstream() {
    let mirror = listener().await;
    for path in ["/v2/", "/v2", "/v2/?ns=docker.io"] {
        let answer = get(mirror.address, path, "").await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"{}".as_slice()));
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
    }
    let answer = head(mirror.address, "/v2/", "").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("2")));
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p01_paths_that_climb_lead_nowhere() {
    let mirror = listener().await;
    expect(&get(mirror.address, "/v2/../../etc/passwd", "").await, 404, "UNSUPPORTED", "climbing");
    expect(&get(mirror.address, "/v2/a/../b/manifests/x", "").await, 400, "NAME_INVALID", "climbing name");
    is_well(&mirror).await;
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p02_encoded_and_foreign_bytes_are_refused_in_each_position() {
    let mirror = listener().await;
    for bad in ["%2e%2e", "%2f", "%00", "%0d%0a", "\\", "%ff", "\u{e9}"] {
        for path in [
            format!("/v2/{bad}/manifests/x"),
            format!("/v2/a{bad}b/manifests/x"),
            format!("/v2/a/manifests/{bad}"),
            format!("/v2/a/blobs/sha256:{HEX}{bad}"),
            format!("/{bad}/"),
        ] {
            expect(&get(mirror.address, &path, "").await, 400, "NAME_INVALID", &path);
        }
    }
    is_well(&mirror).await;
    stop_unasked(mirror).await;
}

/// CVE-2024-3727.
#[tokio::test]
async fn p03_to_p05_names_tags_and_digests_are_checked_before_anything_else() {
    let mirror = listener().await;
    for name in ["A", "-a", "a//b", "a___b", &"a".repeat(256)] {
        expect(&get(mirror.address, &format!("/v2/{name}/manifests/x"), "").await, 400, "NAME_INVALID", name);
    }
    for tag in [&"t".repeat(129), ".a", "-a", ""] {
        let answer = get(mirror.address, &format!("/v2/a/manifests/{tag}"), "").await;
        expect(&answer, 400, "MANIFEST_INVALID", tag);
        assert_eq!(answer.detail("reason"), "tag");
    }
    for digest in [
        format!("sha256:{}", HEX.get(1..).unwrap()),
        format!("sha256:{HEX}0"),
        format!("sha256:{}", HEX.to_uppercase()),
        format!("SHA256:{HEX}"),
        format!("md5:{}", HEX.get(32..).unwrap()),
        "sha256:../../x".to_owned(),
        format!("sha256:{HEX}/.."),
        format!("sha512:{HEX}"),
    ] {
        for endpoint in ["manifests", "blobs", "referrers"] {
            let path = format!("/v2/a/{endpoint}/{digest}");
            expect(&get(mirror.address, &path, "").await, 400, "DIGEST_INVALID", &path);
        }
    }
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p06_writes_are_refused_and_their_bodies_left_unread() {
    let mirror = listener().await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in [
            "/v2/".to_owned(),
            "/v2/a/manifests/x".to_owned(),
            "/v2/a/blobs/uploads/".to_owned(),
            format!("/v2/a/blobs/uploads/?mount=sha256:{HEX}&from=b"),
            format!("/v2/a/blobs/sha256:{HEX}"),
        ] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: mirror\r\nContent-Length: 3\r\n\r\nabc");
            let answer = exchange(mirror.address, request).await;
            expect(&answer, 405, "UNSUPPORTED", &path);
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
    }
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p06_a_long_body_ends_the_connection_and_its_client_still_sees_why() {
    let mirror = listener().await;
    for length in ["Content-Length: 65537", "Transfer-Encoding: chunked"] {
        let mut wire = Wire::open(mirror.address).await;
        wire.send(format!("PUT /v2/a/manifests/x HTTP/1.1\r\nHost: mirror\r\n{length}\r\n\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (405, Some("close")), "{length}");
        assert!(wire.rest().await.is_empty(), "{length}");
    }
    // A client that sends its megabyte before it reads.
    let mut wire = Wire::open(mirror.address).await;
    wire.send("PUT /v2/a/manifests/x HTTP/1.1\r\nHost: mirror\r\nContent-Length: 200000\r\n\r\n").await;
    wire.try_send(vec![b'x'; 200_000]).await;
    assert_eq!(wire.answer().await.status, 405);
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p06_nothing_is_asked_to_be_sent() {
    let mirror = listener().await;
    let mut wire = Wire::open(mirror.address).await;
    let request = "PUT /v2/a/manifests/x HTTP/1.1\r\nHost: mirror\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    wire.send(request).await;
    assert_eq!(wire.answer().await.status, 405, "and no 100 before");
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p07_ambiguous_lengths_are_refused_and_what_follows_is_never_answered() {
    let mirror = listener().await;
    let smuggled = "GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: mirror\r\n\r\n";
    for (method, headers, body) in [
        ("POST", "Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("POST", "Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        ("GET", "Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        ("POST", "Content-Length: 5\r\nContent-Length: 6", "abcde"),
        ("POST", "Content-Length: 5\r\nContent-Length: 5", "abcde"),
        ("POST", "Content-Length: +5", "abcde"),
        ("POST", "Transfer-Encoding: identity, chunked", "0\r\n\r\n"),
        ("POST", "Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        ("GET", "Transfer-Encoding: chunked", "5;ext=1\r\nabcde\r\n0\r\n\r\n"),
    ] {
        let mut wire = Wire::open(mirror.address).await;
        wire.send(format!("{method} /v2/ HTTP/1.1\r\nHost: mirror\r\n{headers}\r\n\r\n{body}{smuggled}")).await;
        let text = String::from_utf8(wire.rest().await).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 "), "{method} {headers}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{method} {headers}: one answer: {text}");
    }
    let mut wire = Wire::open(mirror.address).await;
    wire.send(format!("POST /v2/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")).await;
    let text = String::from_utf8(wire.rest().await).unwrap();
    assert!(text.starts_with("HTTP/1.0 400 ") || text.starts_with("HTTP/1.1 400 "), "{text}");
    is_well(&mirror).await;
    assert_eq!(stop_unasked(mirror).await.closed("malformed"), 10);
}

#[tokio::test]
async fn p08_a_request_has_one_host_and_routes_by_none() {
    let mirror = listener().await;
    for request in [
        "GET /v2/ HTTP/1.1\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET http://evil.example/v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: user@mirror\r\n\r\n",
    ] {
        let mut wire = Wire::open(mirror.address).await;
        wire.send(request).await;
        let answer = wire.answer().await;
        expect(&answer, 400, "UNSUPPORTED", request);
        assert!(wire.rest().await.is_empty(), "closed: {request}");
    }
    let absolute = exchange(mirror.address, "GET http://mirror/v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
    assert_eq!(absolute.status, 200);
    let mut wire = Wire::open(mirror.address).await;
    wire.send("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n").await;
    expect(&wire.answer().await, 405, "UNSUPPORTED", "CONNECT");
    assert!(wire.rest().await.is_empty());
    let old = exchange(mirror.address, "GET /v2/ HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, 200, "HTTP/1.0 needs no Host");
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p09_heads_that_are_no_heads_close_the_connection() {
    let mirror = listener().await;
    for request in [
        "GET /v2/ HTTP/1.1\r\nHost: mirror\r\nX: a\r\n b\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost : mirror\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: mirror\r\nX: a\rb\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: mirror\r\nX: a\0b\r\n\r\n",
        "GET /v2/ HTTP/3.7\r\nHost: mirror\r\n\r\n",
        "G\u{1}T /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n",
    ] {
        let mut wire = Wire::open(mirror.address).await;
        wire.send(request).await;
        let text = String::from_utf8(wire.rest().await).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 ") || text.starts_with("HTTP/1.0 400 "), "{request:?}: {text:?}");
        assert_eq!(text.matches("HTTP/1").count(), 1, "{request:?}");
    }
    // Bare line feeds are taken for line ends (RFC 9112, 2.2), and there is one answer for each request.
    let mut wire = Wire::open(mirror.address).await;
    wire.send("GET /v2/ HTTP/1.1\nHost: mirror\nConnection: close\n\n").await;
    let text = String::from_utf8(wire.rest().await).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 ").count(), 1, "{text}");
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p10_heads_are_bounded() {
    let mirror = listener().await;
    let with = |headers: String| format!("GET /v2/ HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n{headers}\r\n");
    let many = |count: usize| with((2..count).map(|n| format!("X-{n}: 1\r\n")).collect::<Vec<_>>().concat());
    assert_eq!(exchange(mirror.address, many(64)).await.status, 200);
    let tail = |mut wire: Wire| async move { String::from_utf8(wire.rest().await).unwrap() };
    for request in [many(65), with(format!("X: {}\r\n", "x".repeat(33 * 1024)))] {
        let mut wire = Wire::open(mirror.address).await;
        wire.try_send(request).await;
        assert!(tail(wire).await.starts_with("HTTP/1.1 431 "));
    }
    let target = |length: usize| format!("/v2/{}/manifests/x", "a/".repeat(length / 2));
    expect(&get(mirror.address, &target(9000), "").await, 414, "NAME_INVALID", "9 KB of path");
    expect(&get(mirror.address, &target(8000), "").await, 400, "NAME_INVALID", "8 KB of path");
    let mut wire = Wire::open(mirror.address).await;
    wire.try_send(format!("GET {} HTTP/1.1\r\nHost: mirror\r\n\r\n", target(70_000))).await;
    let text = tail(wire).await;
    assert!(text.starts_with("HTTP/1.1 431 ") || text.starts_with("HTTP/1.1 414 "), "{text}");
    is_well(&mirror).await;
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p11_get_and_head_take_no_body() {
    let mirror = listener().await;
    for (method, rest) in [
        ("GET", "Content-Length: 5\r\n\r\nhello"),
        ("HEAD", "Content-Length: 5\r\n\r\nhello"),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        let mut wire = Wire::open(mirror.address).await;
        wire.send(format!("{method} /v2/ HTTP/1.1\r\nHost: mirror\r\n{rest}")).await;
        let answer = wire.head().await;
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{method} {rest:?}");
        wire.rest().await;
    }
    let empty = exchange(mirror.address, "GET /v2/ HTTP/1.1\r\nHost: mirror\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(empty.status, 200);
    stop_unasked(mirror).await;
}

const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn p12_slow_and_silent_connections_are_closed() {
    let mirror = listener_with(|settings| settings.timeouts.header_read = SOON).await;
    for sent in ["", "P", "GET /v2/ HTTP/1.1\r\nHost: mirror\r\n"] {
        let mut wire = Wire::open(mirror.address).await;
        wire.send(sent).await;
        assert!(wire.rest().await.is_empty(), "{sent:?}");
    }
    let mut dripping = Wire::open(mirror.address).await;
    while dripping.try_send("G").await {
        tokio::time::sleep(SOON / 10).await;
    }
    assert_eq!(stop_unasked(mirror).await.closed("header_timeout"), 4);
}

#[tokio::test]
async fn p12_a_connection_idle_for_too_long_is_closed() {
    let mirror = listener_with(|settings| settings.timeouts.keep_alive_idle = SOON).await;
    let mut idle = Wire::open(mirror.address).await;
    idle.send("GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    assert!(idle.rest().await.is_empty(), "kept alive, then closed");
    assert_eq!(stop_unasked(mirror).await.closed("header_timeout"), 0, "idle is not slow");
}

#[tokio::test]
async fn p12_http2_is_not_spoken_in_the_clear() {
    let mirror = listener().await;
    let mut wire = Wire::open(mirror.address).await;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let text = wire.rest().await;
    assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&text));
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn tls_on_a_plaintext_listener_is_closed_without_a_word() {
    let mirror = listener().await;
    let mut wire = Wire::open(mirror.address).await;
    wire.send([0x16, 3, 1, 0, 200, 1]).await;
    assert!(wire.rest().await.is_empty());
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p13_one_address_cannot_take_all_connections() {
    let few = Caps { connections: 8, per_address: 3, ..Caps::default() };
    let mirror = listener_with(|settings| settings.caps = few).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::open(mirror.address).await;
        wire.send("GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, 200);
        held.push(wire);
    }
    assert!(Wire::open(mirror.address).await.rest().await.is_empty(), "a fourth is closed");
    let mut other = Wire::open_from("127.0.0.2", mirror.address).await;
    other.send("GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
    assert_eq!(other.answer().await.status, 200, "another address is served");
    drop(held.pop());
    // The place is given back when the server has seen the end.
    while exchange_or_closed(mirror.address).await.is_none() {
        tokio::task::yield_now().await;
    }
    drop((held, other));
    assert!(stop_unasked(mirror).await.closed("address_limit") >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_five_thousand_idle_connections_of_one_address_leave_room_for_another() {
    let mirror = listener().await;
    let cap = Caps::default().per_address;
    let mut held = Vec::new();
    for _ in 0..cap {
        held.push(Wire::open(mirror.address).await);
    }
    // All of them are there: the kernel hands them out in order.
    let mut refused = 0;
    while refused < 5000 - cap {
        let batch = (0..100.min(5000 - cap - refused)).map(|_| async {
            let rest = Wire::open(mirror.address).await.rest().await;
            assert!(rest.is_empty(), "one more than the cap was let in");
        });
        refused += futures_util::future::join_all(batch).await.len();
    }
    let mut other = Wire::open_from("127.0.0.2", mirror.address).await;
    other.send("GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
    assert_eq!(other.answer().await.status, 200, "another address is served");
    drop((held, other));
    assert_eq!(stop_unasked(mirror).await.closed("address_limit"), u64::try_from(5000 - cap).unwrap());
}

/// The base's status, or nothing when the connection was closed at once.
async fn exchange_or_closed(address: SocketAddr) -> Option<u16> {
    let mut wire = Wire::open(address).await;
    wire.try_send("GET /v2/ HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n").await;
    let text = wire.rest().await;
    (!text.is_empty()).then_some(200)
}

#[tokio::test]
async fn connections_are_bounded_in_all() {
    let mirror = listener_with(|settings| settings.caps.connections = 1).await;
    let mut first = Wire::open(mirror.address).await;
    first.send("GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
    assert_eq!(first.answer().await.status, 200);
    assert!(Wire::open_from("127.0.0.2", mirror.address).await.rest().await.is_empty());
    assert_eq!(stop_unasked(mirror).await.closed("total_limit"), 1);
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let mirror = listener_with(|settings| settings.caps.requests_in_flight = 0).await;
    let answer = get(mirror.address, "/v2/", "").await;
    expect(&answer, 503, "TOOMANYREQUESTS", "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let docker = get(mirror.address, "/v2/a/manifests/x", "User-Agent: docker/20.10.24\r\n").await;
    assert!(docker.reason.ends_with("[no such process]"), "{docker:?}");
    let containerd = head(mirror.address, "/v2/a/manifests/x", "User-Agent: containerd/1.6.20\r\n").await;
    assert_eq!(containerd.status, 300);
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p19_an_upstream_that_is_not_configured_is_unknown() {
    let mirror = listener().await;
    for ns in ["ghcr.io", "169.254.169.254", "docker.io%0d%0aX:%20y", "docker.io.evil.example", ""] {
        let answer = get(mirror.address, &format!("/v2/a/manifests/x?ns={ns}"), "").await;
        expect(&answer, 404, "NAME_UNKNOWN", ns);
    }
    let twice = get(mirror.address, "/v2/a/manifests/x?ns=docker.io&ns=docker.io", "").await;
    expect(&twice, 400, "NAME_INVALID", "twice");
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p20_path_and_namespace_must_agree() {
    let mirror = listener().await;
    let answer = get(mirror.address, "/v2/index.docker.io/a/b/manifests/x?ns=quay.io", "").await;
    expect(&answer, 400, "NAME_INVALID", "conflict");
    assert_eq!(answer.detail("reason"), "ns_conflict");
    stop_unasked(mirror).await;
}

/// CVE-2023-2253.
#[tokio::test]
async fn p21_there_is_no_catalog_and_a_page_has_a_number() {
    let mirror = listener().await;
    expect(&get(mirror.address, "/v2/_catalog?n=99999999999", "").await, 404, "UNSUPPORTED", "catalog");
    expect(&get(mirror.address, "/v2/a/tags/list?n=-1", "").await, 400, "UNSUPPORTED", "n");
    expect(&get(mirror.address, "/v2/a/tags/list?last=%0a", "").await, 400, "MANIFEST_INVALID", "last");
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p22_no_request_adds_a_series() {
    let mirror = listener().await;
    let series = || mirror.telemetry.render().lines().filter(|line| !line.starts_with('#')).count();
    is_well(&mirror).await;
    let before = series();
    for n in 0..200 {
        let agent = format!("User-Agent: agent-{n}\r\n");
        get(mirror.address, &format!("/v2/Repo-{n}/manifests/tag-{n}?ns=host-{n}"), &agent).await;
        get(mirror.address, &format!("/v2/repo/manifests/tag-{n}?ns=host-{n}.example"), &agent).await;
    }
    assert_eq!(series(), before);
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn p24_operators_paths_are_not_on_the_public_listener() {
    let mirror = listener().await;
    for path in ["/metrics", "/livez", "/readyz", "/ui/", "/api/v1/verdicts", "/api/v1/policy", "/debug/pprof", "/"] {
        expect(&get(mirror.address, path, "").await, 404, "UNSUPPORTED", path);
    }
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_turn() {
    let mirror = listener().await;
    let mut wire = Wire::open(mirror.address).await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: mirror\r\n\r\n");
    wire.send(one("/v2/") + &one("/metrics") + &one("/v2/_catalog") + &one("/v2/")).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(wire.answer().await.status);
    }
    assert_eq!(statuses, [200, 404, 404, 200]);
    stop_unasked(mirror).await;
}

#[tokio::test]
async fn shutdown_closes_what_is_idle_at_once_and_accepts_nothing_more() {
    let mirror = listener().await;
    let mut idle = Wire::open(mirror.address).await;
    idle.send("GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    let address = mirror.address;
    let stopping = tokio_util::task::TaskTracker::new().spawn(stop_unasked(mirror));
    assert!(idle.rest().await.is_empty());
    drop(idle);
    tokio::time::timeout(Duration::from_secs(10), stopping).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_end() {
    let mirror = listener_with(|settings| settings.timeouts.drain = Duration::from_millis(100)).await;
    let mut half = Wire::open(mirror.address).await;
    half.send("GET /v2/ HT").await;
    is_well(&mirror).await;
    mirror.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), mirror.serving).await.unwrap().unwrap();
    assert!(half.rest().await.is_empty());
}
