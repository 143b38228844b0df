//! What is served, as it stands on the wire: manifests, blobs, ranges, conditions, slow and broken transfers.

use std::time::Duration;

use sealgate::oci::Digest;
use sealgate::testing::{BuiltImage, Fault, ImageBuilder};

use crate::parts::{ACCEPT_ANYTHING, Mirror, REJECT};
use crate::wire::{Answer, PATIENCE, Wire, get, head};

const MIB: usize = 1024 * 1024;

/// A mirror whose upstream has an image of these layers as `library/app:1`, already admitted.
async fn serving(layers: &[usize]) -> (Mirror, BuiltImage) {
    let mirror = Mirror::start(ACCEPT_ANYTHING).await;
    let image = publish(&mirror, layers).await;
    (mirror, image)
}

async fn publish(mirror: &Mirror, layers: &[usize]) -> BuiltImage {
    let image = layers.iter().fold(ImageBuilder::new(7), |builder, bytes| builder.layer(*bytes)).build();
    mirror.upstream.put("library/app", "1", &image);
    assert_eq!(get(mirror.address, "/v2/app/manifests/1", "").await.status, 200);
    image
}

fn layer(image: &BuiltImage) -> (Digest, &[u8]) {
    let blob = &image.blobs[1];
    (blob.digest, blob.bytes.as_ref())
}

fn blob_path(digest: &Digest) -> String {
    format!("/v2/app/blobs/{digest}")
}

#[tokio::test]
async fn a_manifest_is_served_byte_for_byte_under_its_type_and_digest() {
    let (mirror, image) = serving(&[1000]).await;
    let digest = image.digest();
    for reference in ["1".to_owned(), digest.to_string()] {
        let path = format!("/v2/docker.io/library/app/manifests/{reference}?ns=docker.io");
        let answer =
            get(mirror.address, &path, "Accept: application/vnd.docker.distribution.manifest.v2+json\r\n").await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, image.manifest.bytes.as_ref()), "{reference}");
        let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
        assert_eq!(header("content-type"), image.manifest.media_type);
        assert_eq!(header("docker-content-digest"), digest.to_string());
        assert_eq!(header("etag"), format!("\"{digest}\""));
        assert_eq!(header("docker-distribution-api-version"), "registry/2.0");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("oci-namespace"), "docker.io");
        assert!(header("cache-status").starts_with("sealgate; hit"), "{answer:?}");
        assert!(header("sealgate-verdict").starts_with("allow; id="), "{answer:?}");

        let head = head(mirror.address, &path, "").await;
        let without =
            |answer: &Answer| answer.headers.iter().filter(|(name, _)| name != "date").cloned().collect::<Vec<_>>();
        assert_eq!((head.status, without(&head)), (200, without(&answer)), "HEAD is GET without the body");
    }
    mirror.stop().await;
}

#[tokio::test]
async fn p03_and_p04_names_and_tags_at_the_edge_of_the_grammar_are_asked_for() {
    let mirror = Mirror::start(ACCEPT_ANYTHING).await;
    let image = ImageBuilder::new(1).build();
    let tag = "t".repeat(128);
    for name in ["a__b/c", "a-----b/c", "a.b/0"] {
        mirror.upstream.put(name, &tag, &image);
        let answer = get(mirror.address, &format!("/v2/{name}/manifests/{tag}"), "").await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    mirror.stop().await;
}

#[tokio::test]
async fn p16_ranges_give_the_bytes_that_were_asked_for_and_no_others() {
    let (mirror, image) = serving(&[200_000]).await;
    let (digest, bytes) = layer(&image);
    let size = bytes.len();
    let ask = async |headers: &str| get(mirror.address, &blob_path(&digest), headers).await;
    let part = async |range: &str, start: usize, end: usize| {
        let answer = ask(&format!("Range: {range}\r\n")).await;
        assert_eq!((answer.status, answer.body.as_slice()), (206, &bytes[start..=end]), "{range}");
        assert_eq!(answer.header("content-range"), Some(format!("bytes {start}-{end}/{size}").as_str()), "{range}");
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    };
    // Cold first: the answer comes from the transfer that fills the cache.
    part("bytes=500-1499", 500, 1499).await;
    part("bytes=0-", 0, size - 1).await;
    part("bytes=199000-", 199_000, size - 1).await;
    part("bytes=-500", size - 500, size - 1).await;
    part("bytes=199500-999999", 199_500, size - 1).await;
    for range in ["bytes=500-0", "bytes=200000-", "bytes=-0"] {
        let answer = ask(&format!("Range: {range}\r\n")).await;
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{size}").as_str()));
    }
    let many = format!("Range: bytes={}\r\n", "0-1,".repeat(5000));
    for header in ["Range: bytes=0-1,5-6\r\n", &many, "Range: lines=1-2\r\n", "Range: bytes=1-2\r\nIf-Range: \"x\"\r\n"]
    {
        let answer = ask(header).await;
        assert_eq!((answer.status, answer.body.len()), (200, size), "{}", header.len());
        assert_eq!(Digest::sha256(&answer.body), digest);
    }
    let holds = ask(&format!("Range: bytes=1-2\r\nIf-Range: \"{digest}\"\r\n")).await;
    assert_eq!((holds.status, holds.body.as_slice()), (206, &bytes[1..=2]));
    let manifest = get(mirror.address, "/v2/app/manifests/1", "Range: bytes=0-1\r\n").await;
    assert_eq!((manifest.status, manifest.body.as_slice()), (200, image.manifest.bytes.as_ref()));
    mirror.stop().await;
}

#[tokio::test]
async fn a_head_of_a_blob_moves_no_bytes() {
    let (mirror, image) = serving(&[100_000]).await;
    let (digest, bytes) = layer(&image);
    let cold = head(mirror.address, &blob_path(&digest), "Range: bytes=0-1\r\n").await;
    assert_eq!((cold.status, cold.header("content-length")), (200, Some(bytes.len().to_string().as_str())));
    assert_eq!(cold.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(cold.header("accept-ranges"), Some("bytes"));
    let known = get(mirror.address, &blob_path(&digest), &format!("If-None-Match: \"{digest}\"\r\n")).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(mirror.upstream.count("GET", "*/blobs/*"), 0);
    mirror.stop().await;
}

#[tokio::test]
async fn a_blob_needs_a_grant_and_a_manifest_is_no_blob() {
    let (mirror, image) = serving(&[1000]).await;
    let (digest, bytes) = layer(&image);
    mirror.upstream.put_blob("library/other", bytes.to_vec());
    let stray = mirror.upstream.put_blob("library/app", b"listed by nothing".to_vec());
    mirror.upstream.forget_requests();
    for path in [
        blob_path(&stray),
        blob_path(&image.digest()),
        format!("/v2/other/blobs/{digest}"),
        blob_path(&Digest::sha256(b"nowhere")),
    ] {
        for answer in [get(mirror.address, &path, "").await, head(mirror.address, &path, "").await] {
            assert_eq!(answer.status, 404, "{path}");
            assert_eq!(answer.header("docker-content-digest"), None);
        }
        assert_eq!(get(mirror.address, &path, "").await.code(), "BLOB_UNKNOWN");
    }
    assert_eq!(mirror.upstream.count("*", "*"), 0, "upstream is not asked about what nothing admitted lists");
    mirror.stop().await;
}

#[tokio::test]
async fn p17_what_a_client_knows_is_no_reason_to_admit_it() {
    let (mirror, image) = serving(&[1000]).await;
    let known = format!("If-None-Match: \"{}\"\r\n", image.digest());
    let paths = ["/v2/app/manifests/1".to_owned(), format!("/v2/app/manifests/{}", image.digest())];
    for path in &paths {
        let answer = get(mirror.address, path, &known).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{path}");
        assert_eq!(answer.header("etag"), Some(format!("\"{}\"", image.digest()).as_str()));
    }
    mirror.set_policy(REJECT);
    for path in &paths {
        for answer in [get(mirror.address, path, &known).await, head(mirror.address, path, &known).await] {
            assert_eq!((answer.status, answer.header("etag")), (403, None), "{path}");
        }
    }
    mirror.stop().await;
}

#[tokio::test]
async fn p18_accept_is_advice_and_nothing_is_converted() {
    let (mirror, image) = serving(&[1000]).await;
    let ask = async |accept: &str| get(mirror.address, "/v2/app/manifests/1", accept).await;
    let many = format!("Accept: {}\r\n", vec!["application/x"; 200].join(", "));
    let six: String = ["a/b", "application/json", "application/vnd.oci.image.index.v1+json", "x/y", "z/z", "*/*"]
        .map(|kind| format!("Accept: {kind}\r\n"))
        .concat();
    for accept in ["", "Accept: */*\r\n", "Accept: application/vnd.oci.image.index.v1+json\r\n", &many, &six] {
        let answer = ask(accept).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, image.manifest.bytes.as_ref()));
        assert_eq!(answer.header("content-type"), Some(image.manifest.media_type.as_str()));
    }
    let old = ask("Accept: application/vnd.docker.distribution.manifest.v1+prettyjws\r\n").await;
    assert_eq!((old.status, old.code().as_str()), (404, "MANIFEST_UNKNOWN"));
    assert_eq!(old.detail("reason"), "not_acceptable");
    mirror.stop().await;
}

#[tokio::test]
async fn p14_a_client_that_stops_reading_is_dropped_and_others_are_not() {
    let mirror =
        Mirror::start_with(ACCEPT_ANYTHING, |settings| settings.timeouts.write_idle = Duration::from_millis(500)).await;
    let image = publish(&mirror, &[32 * MIB]).await;
    let (digest, bytes) = layer(&image);
    let path = blob_path(&digest);
    let mut stalled = Wire::open(mirror.address).await;
    stalled.send(format!("GET {path} HTTP/1.1\r\nHost: mirror\r\n\r\n")).await;
    assert_eq!(stalled.head().await.status, 200);
    let other = get(mirror.address, &path, "").await;
    assert_eq!(Digest::sha256(&other.body), digest);
    let series = "sealgate_connections_closed_total{reason=\"write_timeout\"}";
    let dropped = async {
        while mirror.metric(series) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.unwrap();
    assert!(stalled.rest().await.len() < bytes.len());
    let stopped = mirror.stop().await;
    assert_eq!(stopped.metric(r#"sealgate_http_requests_total{code="499",method="GET",route="blob"}"#), 1);
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_as_such() {
    let (mirror, image) = serving(&[32 * MIB]).await;
    let (digest, _) = layer(&image);
    let mut leaving = Wire::open(mirror.address).await;
    leaving.send(format!("GET {} HTTP/1.1\r\nHost: mirror\r\n\r\n", blob_path(&digest))).await;
    assert_eq!(leaving.head().await.status, 200);
    drop(leaving);
    let stopped = mirror.stop().await;
    assert_eq!(stopped.metric(r#"sealgate_http_requests_total{code="499",method="GET",route="blob"}"#), 1);
    assert_eq!(stopped.metric(r#"sealgate_http_requests_in_flight{route="blob"}"#), 0);
}

#[tokio::test]
async fn shutdown_lets_a_running_transfer_end() {
    let (mirror, image) = serving(&[32 * MIB]).await;
    let (digest, bytes) = layer(&image);
    let mut wire = Wire::open(mirror.address).await;
    wire.send(format!("GET {} HTTP/1.1\r\nHost: mirror\r\n\r\n", blob_path(&digest))).await;
    assert_eq!(wire.head().await.status, 200);
    mirror.shutdown.cancel();
    while tokio::net::TcpStream::connect(mirror.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let body = wire.rest().await;
    assert_eq!((body.len(), Digest::sha256(&body)), (bytes.len(), digest));
    mirror.stop().await;
}

#[tokio::test]
async fn wrong_bytes_never_look_like_a_whole_blob() {
    let (mirror, image) = serving(&[300_000]).await;
    let (digest, bytes) = layer(&image);
    mirror.upstream.fault(Fault::on("*/blobs/*").get().wrong_bytes());
    let mut wire = Wire::open(mirror.address).await;
    wire.send(format!("GET {} HTTP/1.1\r\nHost: mirror\r\n\r\n", blob_path(&digest))).await;
    let answer = wire.head().await;
    assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
    assert!(wire.rest().await.len() < bytes.len(), "the connection closes before the length is reached");
    mirror.upstream.heal();
    let again = get(mirror.address, &blob_path(&digest), "").await;
    assert_eq!(Digest::sha256(&again.body), digest, "and nothing wrong was kept");
    let stopped = mirror.stop().await;
    assert_eq!(stopped.metric(r#"sealgate_http_requests_total{code="502",method="GET",route="blob"}"#), 1);
}
