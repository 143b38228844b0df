//! The upstream client against registries that break one thing each (threats.md §4.2, U-01 to U-26).

mod answers;
mod health;
mod lists;
mod network;
mod redirects;
mod tokens;

use std::time::Duration;

use sealgate::limits::UPSTREAM_BLOB_CONCURRENCY;
use sealgate::net::Timeouts;
use sealgate::oci::{Digest, Reference, RepositoryName};
use sealgate::telemetry::Telemetry;
use sealgate::testing::{BuiltImage, FakeRegistry, Fault, ImageBuilder};
use sealgate::upstream::{BlobRange, Network, Settings, Upstream, UpstreamError};

const HOST: &str = "registry.test";

/// A client with the product's time limits, but no pause before repetitions.
fn client(settings: Settings) -> Upstream {
    client_with(settings, Network { timeouts: quick(), ..Network::default() })
}

fn client_with(settings: Settings, network: Network) -> Upstream {
    let telemetry = Telemetry::new(std::slice::from_ref(&settings.host));
    Upstream::with_network(settings, telemetry, network).unwrap()
}

pub(crate) fn quick() -> Timeouts {
    Timeouts { retry_pause: Duration::from_millis(1), ..Timeouts::default() }
}

/// A client whose peers have no time; for peers that never answer.
fn impatient(settings: Settings) -> Upstream {
    let short = Duration::from_millis(200);
    let timeouts = Timeouts { first_byte: short, idle: short, ..quick() };
    client_with(settings, Network { timeouts, ..Network::default() })
}

/// Moves the time of timers, not of the wall clock.
pub(crate) async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

pub(crate) fn name() -> RepositoryName {
    "team/app".parse().unwrap()
}

pub(crate) fn tag() -> Reference {
    "1.0".parse().unwrap()
}

/// A registry with one image under `team/app:1.0`, and a client of it.
async fn registry() -> (FakeRegistry, BuiltImage, Upstream) {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(100_000).build();
    registry.put("team/app", "1.0", &image);
    let client = client(registry.settings(HOST));
    (registry, image, client)
}

/// The reason of an unusable answer, or the whole error where it is another kind.
fn bad<T: std::fmt::Debug>(result: Result<T, UpstreamError>) -> String {
    let error = result.unwrap_err();
    if let UpstreamError::Bad { reason, .. } = error { reason.to_owned() } else { format!("{error:?}") }
}

fn connect<T: std::fmt::Debug>(result: Result<T, UpstreamError>) -> String {
    let error = result.unwrap_err();
    if let UpstreamError::Connect { reason, .. } = error { reason.to_owned() } else { format!("{error:?}") }
}

/// Reads a blob to its end.
async fn read_blob(client: &Upstream, digest: &Digest) -> Result<Vec<u8>, UpstreamError> {
    read_range(client, digest, BlobRange::Whole).await
}

async fn read_range(client: &Upstream, digest: &Digest, range: BlobRange) -> Result<Vec<u8>, UpstreamError> {
    use futures_util::TryStreamExt as _;
    let body = client.blob(&name(), digest, range).await?;
    let pieces: Vec<bytes::Bytes> = body.stream.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test]
async fn what_a_registry_has_arrives_as_it_is() {
    let (registry, image, client) = registry().await;
    let fetched = client.manifest(&name(), &tag()).await.unwrap();
    assert_eq!((fetched.bytes, fetched.digest), (image.manifest.bytes.clone(), image.digest()));
    assert_eq!(fetched.content_type, image.manifest.media_type);
    let by_digest = client.manifest(&name(), &Reference::Digest(image.digest())).await.unwrap();
    assert_eq!(by_digest.digest, image.digest());
    let head = client.manifest_head(&name(), &tag()).await.unwrap();
    assert_eq!((head.digest, head.size), (Some(image.digest()), u64::try_from(image.manifest.bytes.len()).ok()));
    let layer = &image.blobs[1];
    assert_eq!(read_blob(&client, &layer.digest).await.unwrap(), layer.bytes);
    assert_eq!(client.blob_head(&name(), &layer.digest).await.unwrap(), Some(100_000));
    assert_eq!(client.small_blob(&name(), &layer.digest, 100_000).await.unwrap(), layer.bytes);
    assert_eq!(bad(client.small_blob(&name(), &layer.digest, 99_999).await), "too_large");
    let range = BlobRange::From { start: 60_000, end: None };
    assert_eq!(read_range(&client, &layer.digest, range).await.unwrap(), layer.bytes[60_000..]);
    let range = BlobRange::From { start: 1, end: Some(2) };
    assert_eq!(read_range(&client, &layer.digest, range).await.unwrap(), layer.bytes[1..=2]);
    assert_eq!(registry.count("*", "*"), 9);
}

#[tokio::test]
async fn a_sha512_manifest_is_hashed_by_sha512() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(10).sha512().build();
    registry.put("team/app", "1.0", &image);
    let client = client(registry.settings(HOST));
    let fetched = client.manifest(&name(), &Reference::Digest(image.digest())).await.unwrap();
    assert_eq!(fetched.digest, image.digest());
    assert_eq!(client.manifest(&name(), &tag()).await.unwrap().digest, Digest::sha256(&image.manifest.bytes));
}

#[tokio::test]
async fn a_clean_404_is_not_found_and_nothing_else_is() {
    let (registry, image, client) = registry().await;
    let missing: Reference = "2.0".parse().unwrap();
    assert!(matches!(client.manifest(&name(), &missing).await, Err(UpstreamError::NotFound { .. })));
    assert!(matches!(client.manifest_head(&name(), &missing).await, Err(UpstreamError::NotFound { .. })));
    let absent = Digest::sha256(b"absent");
    assert!(matches!(client.blob_head(&name(), &absent).await, Err(UpstreamError::NotFound { .. })));
    assert!(matches!(read_blob(&client, &absent).await, Err(UpstreamError::NotFound { .. })));
    let other = "other/app".parse().unwrap();
    assert!(matches!(client.tags(&other, 10, None).await, Err(UpstreamError::NotFound { .. })));
    registry.fault(Fault::on("*/manifests/*").status(410));
    assert_eq!(bad(client.manifest(&name(), &Reference::Digest(image.digest())).await), "protocol");
}

#[tokio::test]
async fn connections_are_used_again() {
    let (registry, image, client) = registry().await;
    for _ in 0..10 {
        client.manifest(&name(), &tag()).await.unwrap();
        read_blob(&client, &image.blobs[1].digest).await.unwrap();
        client.manifest_head(&name(), &tag()).await.unwrap();
    }
    assert_eq!((registry.count("*", "*"), registry.connections()), (30, 1));
}

#[tokio::test]
async fn requests_say_no_more_than_needed() {
    let (registry, _, client) = registry().await;
    client.manifest(&name(), &tag()).await.unwrap();
    let requests = registry.requests();
    let mut sent: Vec<&str> = requests[0].headers.keys().map(http::HeaderName::as_str).collect();
    sent.sort_unstable();
    assert_eq!(sent, ["accept", "accept-encoding", "host", "user-agent"]);
    assert_eq!(requests[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn transfers_queue_for_their_turn_and_nothing_else_queues_behind_them() {
    let (registry, image, client) = registry().await;
    let small = registry.put_blob("team/app", "a signature");
    let layer = image.blobs[1].digest;
    registry.fault(Fault::on(&format!("*/blobs/{layer}")).times(UPSTREAM_BLOB_CONCURRENCY).hang_after(10));
    let name = name();
    let mut running = Vec::new();
    for _ in 0..UPSTREAM_BLOB_CONCURRENCY {
        running.push(client.blob(&name, &layer, BlobRange::Whole).await.unwrap());
    }
    let mut next = Box::pin(read_blob(&client, &layer));
    assert!(futures_util::poll!(&mut next).is_pending());
    client.manifest(&name, &tag()).await.unwrap();
    client.small_blob(&name, &small, 100).await.unwrap();
    assert!(futures_util::poll!(&mut next).is_pending());
    assert_eq!(registry.count("*", &format!("*/blobs/{layer}")), UPSTREAM_BLOB_CONCURRENCY, "it has not asked yet");
    running.pop();
    assert_eq!(next.await.unwrap(), image.blobs[1].bytes, "a dropped transfer gives its turn back");
}

#[tokio::test]
async fn http_2_is_spoken_where_the_registry_offers_it() {
    let registry = FakeRegistry::builder().tls().http2().start().await;
    let image = ImageBuilder::new(1).layer(3_000_000).build();
    registry.put("team/app", "1.0", &image);
    let client = client(registry.settings(HOST));
    let layer = &image.blobs[1];
    let (name, tag) = (name(), tag());
    let manifests = futures_util::future::join_all((0..20).map(|_| client.manifest(&name, &tag))).await;
    assert!(manifests.iter().all(Result::is_ok));
    assert_eq!(read_blob(&client, &layer.digest).await.unwrap(), layer.bytes);
    assert_eq!(registry.requests()[0].version, http::Version::HTTP_2);
    for fault in [Fault::on("*/blobs/*").truncate(1000), Fault::on("*/blobs/*").reset_after(1000)] {
        registry.heal();
        registry.fault(fault);
        assert!(read_blob(&client, &layer.digest).await.is_err());
    }
    registry.heal();
    registry.fault(Fault::on("*").header("x-bomb", vec![b'a'; 40_000]));
    assert!(client.manifest(&name, &tag).await.is_err());
    registry.heal();
    assert!(client.manifest(&name, &tag).await.is_ok());
}

/// All requests of a connection share what may arrive unread. Bodies that clients do not take must not use it up.
#[tokio::test]
async fn transfers_that_nobody_reads_hold_up_nothing_else_on_their_connection() {
    let registry = FakeRegistry::builder().tls().http2().start().await;
    let image = ImageBuilder::new(1).layer(8_000_000).layer(3_000_000).build();
    registry.put("team/app", "1.0", &image);
    let client = client(registry.settings(HOST));
    let (name, unread, read) = (name(), image.blobs[1].digest, &image.blobs[2]);
    client.manifest(&name, &tag()).await.unwrap();
    let mut running = Vec::new();
    for _ in 1..UPSTREAM_BLOB_CONCURRENCY {
        running.push(client.blob(&name, &unread, BlobRange::Whole).await.unwrap());
    }
    // Until what may come has come.
    let whole = tokio::time::timeout(Duration::from_secs(20), read_blob(&client, &read.digest));
    assert_eq!(whole.await.expect("it is held up").unwrap(), read.bytes);
    client.manifest(&name, &tag()).await.unwrap();
    assert_eq!(registry.connections(), 1);
}
