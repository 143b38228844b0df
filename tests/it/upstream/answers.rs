//! Bodies and headers that must not be used.

use std::time::Duration;

use sealgate::limits::{MANIFEST_BYTES_MAX, UPSTREAM_HEADER_BYTES_MAX, UPSTREAM_RETRIES_MAX};
use sealgate::oci::{Digest, MediaType, Reference};
use sealgate::testing::{Chaos, ChaosProxy, Content, FakeRegistry, Fault, RawServer};
use sealgate::upstream::{BlobRange, UpstreamError};

use super::{HOST, bad, client, connect, impatient, name, read_blob, read_range, registry, tag};

#[tokio::test]
async fn u01_a_truncated_body_is_never_whole() {
    let (registry, image, client) = registry().await;
    let manifest = image.manifest.bytes.len();
    for cut in [0, 1, manifest / 2, manifest - 1] {
        registry.fault(Fault::on("*/manifests/*").times(1).truncate(cut));
        assert_eq!(bad(client.manifest(&name(), &tag()).await), "truncated", "{cut}");
    }
    let layer = &image.blobs[1];
    for cut in [0, 1, 50_000, 99_999] {
        registry.fault(Fault::on("*/blobs/*").times(1).truncate(cut));
        assert_eq!(bad(read_blob(&client, &layer.digest).await), "truncated", "{cut}");
        registry.fault(Fault::on("*/blobs/*").times(1).truncate(cut));
        assert_eq!(bad(client.small_blob(&name(), &layer.digest, 100_000).await), "truncated", "{cut}");
    }
    assert!(client.manifest(&name(), &tag()).await.is_ok(), "the next request succeeds");
    assert!(read_blob(&client, &layer.digest).await.is_ok());
}

#[tokio::test]
async fn u02_wrong_bytes_of_the_right_length_are_found() {
    let (registry, image, client) = registry().await;
    registry.fault(Fault::on("*").get().wrong_bytes());
    let by_digest = Reference::Digest(image.digest());
    assert_eq!(bad(client.manifest(&name(), &by_digest).await), "digest_mismatch");
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "digest_mismatch", "upstream names another digest");
    registry.heal();
    registry.fault(Fault::on("*").get().wrong_bytes().without_header("docker-content-digest"));
    assert_eq!(bad(client.manifest(&name(), &by_digest).await), "digest_mismatch");
    assert_eq!(bad(client.small_blob(&name(), &image.blobs[1].digest, 100_000).await), "digest_mismatch");
    let read = read_blob(&client, &image.blobs[1].digest).await.unwrap();
    assert!(!image.blobs[1].digest.matches(&read), "who reads a stream hashes it");
}

#[tokio::test]
async fn u03_a_body_longer_than_its_length_is_cut_where_it_should_end() {
    let manifest = Content::new(sealgate::oci::Algorithm::Sha256, MediaType::OciManifest.as_str(), "{}");
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: 1\r\n\r\n{{}}", MediaType::OciManifest);
    let server = RawServer::answering(answer).await;
    let registry = FakeRegistry::start().await;
    let mut settings = registry.settings(HOST);
    settings.endpoint = format!("http://{}", server.address()).parse().unwrap();
    let client = client(settings);
    assert_eq!(bad(client.manifest(&name(), &Reference::Digest(manifest.digest)).await), "digest_mismatch");
}

#[tokio::test]
async fn u04_a_body_without_length_must_end_well_and_in_time() {
    let (registry, image, client) = registry().await;
    registry.fault(Fault::on("*").times(2).chunked());
    assert_eq!(client.manifest(&name(), &tag()).await.unwrap().bytes, image.manifest.bytes);
    let layer = &image.blobs[1];
    assert_eq!(read_blob(&client, &layer.digest).await.unwrap(), layer.bytes);
    registry.heal();
    registry.fault(Fault::on("*").chunked_cut(50));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "truncated");
    assert_eq!(bad(read_blob(&client, &layer.digest).await), "truncated");
    registry.heal();
    registry.fault(Fault::on("*").endless());
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "too_large");
    assert_eq!(bad(client.small_blob(&name(), &layer.digest, 100_000).await), "too_large");
    let range = BlobRange::From { start: 1, end: None };
    assert_eq!(bad(read_range(&client, &layer.digest, range).await), "size_mismatch");
}

#[tokio::test]
async fn u05_u06_u07_a_peer_that_stalls_is_left() {
    let (registry, image, _) = registry().await;
    let client = impatient(registry.settings(HOST));
    let timed_out = |error: UpstreamError| matches!(error, UpstreamError::Timeout { .. });
    let layer = &image.blobs[1].digest;
    registry.fault(Fault::on("*").times(2).hang());
    assert!(timed_out(client.manifest(&name(), &tag()).await.unwrap_err()));
    assert!(timed_out(read_blob(&client, layer).await.unwrap_err()));
    assert_eq!(registry.count("*", "*"), 2, "a request that timed out is not repeated");
    registry.fault(Fault::on("*").times(2).hang_after(10));
    assert!(timed_out(client.manifest(&name(), &tag()).await.unwrap_err()));
    assert!(timed_out(read_blob(&client, layer).await.unwrap_err()));
    registry.fault(Fault::on("*").times(2).drip(1, Duration::from_millis(10)));
    assert!(timed_out(client.manifest(&name(), &tag()).await.unwrap_err()));
    assert!(timed_out(read_blob(&client, layer).await.unwrap_err()));
    let patient = super::client(registry.settings(HOST));
    assert!(patient.manifest(&name(), &tag()).await.is_ok());
}

#[tokio::test]
async fn u07_a_reset_is_repeated_before_the_headers_and_reported_after_them() {
    let (registry, image, client) = registry().await;
    registry.fault(Fault::on("*").times(UPSTREAM_RETRIES_MAX).reset());
    assert!(client.manifest(&name(), &tag()).await.is_ok());
    assert_eq!(registry.count("*", "*"), UPSTREAM_RETRIES_MAX + 1);
    registry.forget_requests();
    registry.fault(Fault::on("*").times(UPSTREAM_RETRIES_MAX + 1).reset());
    assert_eq!(connect(client.manifest(&name(), &tag()).await), "reset");
    assert_eq!(registry.count("*", "*"), UPSTREAM_RETRIES_MAX + 1);
    registry.heal();
    registry.fault(Fault::on("*").times(2).reset_after(50));
    assert_eq!(connect(client.manifest(&name(), &tag()).await), "reset");
    assert_eq!(connect(read_blob(&client, &image.blobs[1].digest).await), "reset");
}

#[tokio::test]
async fn u07_a_broken_transfer_can_be_resumed_where_it_stopped() {
    let (registry, image, _) = registry().await;
    let proxy = ChaosProxy::start(registry.address()).await;
    let mut settings = registry.settings(HOST);
    settings.endpoint = format!("http://{}", proxy.address()).parse().unwrap();
    let client = client(settings);
    let layer = &image.blobs[1];
    proxy.set(Chaos::CutAfter(40_000));
    let mut body = client.blob(&name(), &layer.digest, BlobRange::Whole).await.unwrap();
    let mut received = Vec::new();
    let error = loop {
        use futures_util::StreamExt as _;
        match body.stream.next().await.unwrap() {
            Ok(bytes) => received.extend_from_slice(&bytes),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, UpstreamError::Bad { reason: "truncated", .. }), "{error}");
    assert!(!received.is_empty() && received.len() < 100_000);
    proxy.set(Chaos::Pass);
    let start = u64::try_from(received.len()).unwrap();
    received.extend(read_range(&client, &layer.digest, BlobRange::From { start, end: None }).await.unwrap());
    assert_eq!(received, layer.bytes);
}

#[tokio::test]
async fn u08_a_5xx_is_repeated_twice_unless_it_says_when_to_come_back() {
    let (registry, _, client) = registry().await;
    for status in [500, 502, 503, 504] {
        registry.heal();
        registry.forget_requests();
        registry.fault(Fault::on("*").status(status));
        let error = client.manifest(&name(), &tag()).await.unwrap_err();
        let expected =
            matches!(error, UpstreamError::Failed { status: found, retry_after: None, .. } if found == status);
        assert!(expected, "{error:?}");
        assert_eq!(registry.count("*", "*"), UPSTREAM_RETRIES_MAX + 1);
    }
    registry.heal();
    registry.forget_requests();
    registry.fault(Fault::on("*").status(503).header("retry-after", "7"));
    let error = client.manifest(&name(), &tag()).await.unwrap_err();
    let seven = Some(Duration::from_secs(7));
    assert!(matches!(error, UpstreamError::Failed { retry_after, .. } if retry_after == seven), "{error:?}");
    assert_eq!(registry.count("*", "*"), 1);
    registry.heal();
    registry.fault(Fault::on("*").times(2).status(500));
    assert!(client.manifest(&name(), &tag()).await.is_ok(), "two failures are survived");
}

#[tokio::test]
async fn u09_a_429_ends_all_requests_for_as_long_as_it_says() {
    for (header, seconds) in [(Some("3600"), 300), (Some("0"), 1), (Some("soon"), 10), (None, 10)] {
        let (registry, image, client) = registry().await;
        let fault = Fault::on("*").times(1).status(429);
        registry.fault(match header {
            Some(header) => fault.header("retry-after", header),
            None => fault,
        });
        let limited = |error: UpstreamError| {
            let UpstreamError::RateLimited { retry_after, .. } = error else { panic!("{error:?}") };
            retry_after
        };
        let first = limited(client.manifest(&name(), &tag()).await.unwrap_err());
        assert_eq!(first, Duration::from_secs(seconds), "{header:?}");
        if seconds > 1 {
            let again = limited(read_blob(&client, &image.blobs[1].digest).await.unwrap_err());
            assert!(again <= first);
            assert!(matches!(client.tags(&name(), 1, None).await, Err(UpstreamError::RateLimited { .. })));
            assert_eq!(registry.count("*", "*"), 1, "nobody asked again");
        }
    }
}

/// CVE-2023-42813, CVE-2023-42814, CVE-2023-42815, CVE-2023-42816, CVE-2017-11468.
#[tokio::test]
async fn u16_a_manifest_is_at_most_4_mib_and_one_byte_more_is_not() {
    let (registry, _, client) = registry().await;
    let max = usize::try_from(MANIFEST_BYTES_MAX).unwrap();
    for (length, chunked) in [(max, false), (max, true), (max + 1, false), (max + 1, true)] {
        let body = vec![b' '; length];
        registry.heal();
        let fault = Fault::on("*/manifests/*").without_header("docker-content-digest").body(body);
        registry.fault(if chunked { fault.chunked() } else { fault });
        let fetched = client.manifest(&name(), &tag()).await;
        if length == max {
            assert_eq!(fetched.unwrap().bytes.len(), max);
        } else {
            assert_eq!(bad(fetched), "too_large");
        }
    }
}

#[tokio::test]
async fn u16_an_empty_manifest_is_handed_on_as_empty() {
    let (registry, image, client) = registry().await;
    registry.fault(Fault::on("*/manifests/*").without_header("docker-content-digest").body(""));
    assert_eq!(client.manifest(&name(), &tag()).await.unwrap().bytes.len(), 0);
    assert_eq!(bad(client.manifest(&name(), &Reference::Digest(image.digest())).await), "digest_mismatch");
}

#[tokio::test]
async fn u17_an_encoded_body_is_never_decoded() {
    let (registry, image, client) = registry().await;
    for encoding in ["gzip", "br", "zstd", "identity, gzip"] {
        registry.heal();
        registry.fault(Fault::on("*").header("content-encoding", encoding));
        assert_eq!(bad(client.manifest(&name(), &tag()).await), "content_encoding", "{encoding}");
        assert_eq!(bad(client.manifest_head(&name(), &tag()).await), "content_encoding", "{encoding}");
        assert_eq!(bad(read_blob(&client, &image.blobs[1].digest).await), "content_encoding", "{encoding}");
    }
    registry.heal();
    registry.fault(Fault::on("*").header("content-encoding", "identity"));
    assert!(client.manifest(&name(), &tag()).await.is_ok());
}

#[tokio::test]
async fn u18_a_manifest_has_exactly_one_known_type() {
    let (registry, _, client) = registry().await;
    let oci = MediaType::OciManifest.as_str();
    let parameter = format!("{oci}; charset=utf-8");
    registry.fault(Fault::on("*").times(1).content_type(&parameter));
    assert_eq!(client.manifest(&name(), &tag()).await.unwrap().content_type, parameter);
    registry.fault(Fault::on("*").times(1).without_header("content-type"));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "media_type");
    registry.fault(Fault::on("*").times(1).content_type("text/html"));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "media_type");
    registry.fault(Fault::on("*").times(1).header("content-type", oci));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "media_type", "two of them");
    registry.fault(Fault::on("*").times(1).content_type("application/vnd.docker.distribution.manifest.v1+prettyjws"));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "media_type");
}

#[tokio::test]
async fn u19_a_stated_digest_is_compared_and_never_believed() {
    let (registry, image, client) = registry().await;
    let header = "docker-content-digest";
    registry.fault(Fault::on("*").times(2).without_header(header));
    assert_eq!(client.manifest(&name(), &tag()).await.unwrap().digest, image.digest());
    assert_eq!(client.manifest_head(&name(), &tag()).await.unwrap().digest, None);
    let wrong = Digest::sha256(b"other").to_string();
    registry.heal();
    registry.fault(Fault::on("*").set_header(header, &wrong));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "digest_mismatch");
    assert_eq!(bad(client.manifest_head(&name(), &Reference::Digest(image.digest())).await), "digest_mismatch");
    assert_eq!(bad(read_blob(&client, &image.blobs[1].digest).await), "digest_mismatch");
    registry.heal();
    registry.fault(Fault::on("*").header(header, image.digest().to_string()));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "digest_mismatch", "two of them");
    assert_eq!(client.manifest_head(&name(), &tag()).await.unwrap().digest, None);
    registry.heal();
    registry.fault(Fault::on("*").set_header(header, "sha256:AB"));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "digest_mismatch");
}

#[tokio::test]
async fn u22_an_answer_to_another_question_is_refused() {
    let (registry, image, client) = registry().await;
    let layer = &image.blobs[1].digest;
    for status in [204, 206, 203, 300, 304, 305, 416] {
        registry.heal();
        registry.fault(Fault::on("*").status(status));
        assert_eq!(bad(client.manifest(&name(), &tag()).await), "protocol", "{status}");
        assert_eq!(bad(client.manifest_head(&name(), &tag()).await), "protocol", "{status}");
        assert_eq!(bad(read_blob(&client, layer).await), "protocol", "{status}");
    }
    let range = BlobRange::From { start: 10, end: Some(19) };
    registry.heal();
    registry.fault(Fault::on("*").status(200).body("0123456789"));
    assert_eq!(bad(read_range(&client, layer, range).await), "protocol", "200 for a range");
    for wrong in ["bytes 0-9/100000", "bytes 11-20/100000", "bytes 10-20/100000", "bytes 10-18/100000", "bytes */10"] {
        registry.heal();
        registry.fault(Fault::on("*").set_header("content-range", wrong));
        assert_eq!(bad(read_range(&client, layer, range).await), "protocol", "{wrong}");
    }
    registry.heal();
    registry.fault(Fault::on("*").without_header("content-range"));
    assert_eq!(bad(read_range(&client, layer, range).await), "protocol");
    registry.heal();
    assert_eq!(read_range(&client, layer, range).await.unwrap(), image.blobs[1].bytes[10..20]);
}

#[tokio::test]
async fn u22_u23_bytes_that_are_no_http_are_refused() {
    let registry = FakeRegistry::start().await;
    let padding = "a".repeat(UPSTREAM_HEADER_BYTES_MAX);
    let bomb = "b".repeat(1 << 20);
    let answers = [
        (format!("HTTP/1.1 404 Not Found\r\nX-Bomb: {padding}\r\nContent-Length: 0\r\n\r\n"), "protocol"),
        (format!("HTTP/1.1 404 Not Found\r\nX-Bomb: {bomb}\r\nContent-Length: 0\r\n\r\n"), "protocol"),
        ("HTTP/1.1 200 OK\r\nX-Evil: a\rb\r\nContent-Length: 0\r\n\r\n".to_owned(), "protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(), "protocol"),
        ("SSH-2.0-OpenSSH_9.9\r\n".to_owned(), "protocol"),
    ];
    for (answer, reason) in answers {
        let server = RawServer::answering(answer.clone()).await;
        let mut settings = registry.settings(HOST);
        settings.endpoint = format!("http://{}", server.address()).parse().unwrap();
        let start: String = answer.chars().take(60).collect();
        assert_eq!(bad(client(settings).manifest(&name(), &tag()).await), reason, "{start}");
    }
    let fits = "a".repeat(UPSTREAM_HEADER_BYTES_MAX - 1024);
    let server =
        RawServer::answering(format!("HTTP/1.1 404 Not Found\r\nX: {fits}\r\nContent-Length: 0\r\n\r\n")).await;
    let mut settings = registry.settings(HOST);
    settings.endpoint = format!("http://{}", server.address()).parse().unwrap();
    assert!(matches!(client(settings).manifest(&name(), &tag()).await, Err(UpstreamError::NotFound { .. })));
}
