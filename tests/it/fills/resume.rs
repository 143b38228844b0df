//! Broken transfers: resumed where they stopped, on condition that it is the same blob, and not for ever.

use sealgate::limits::FILL_RESUMES_MAX;
use sealgate::oci::Digest;
use sealgate::testing::{FakeRegistry, Fault, Recorded};

use super::{Site, free, quick, until};
use crate::parts::Rig;

const SIZE: usize = 300_000;

fn blobs() -> Fault {
    Fault::on("*/blobs/*").get()
}

/// What was asked of upstream for that blob, in order: `Range` and `If-Range`.
fn asked(site: &Site, digest: &Digest) -> Vec<(Option<String>, Option<String>)> {
    let text = |request: &Recorded, name: &str| request.header(name).map(str::to_owned);
    let requests = site.mirror.upstream.requests_to("GET", &format!("*/blobs/{digest}"));
    requests.iter().map(|request| (text(request, "range"), text(request, "if-range"))).collect()
}

fn resumes(site: &Site) -> u64 {
    site.mirror.metric("sealgate_upstream_resumes_total{upstream=\"docker.io\"}")
}

/// The place where a resumed transfer went on.
fn place(range: Option<&String>) -> usize {
    range.unwrap().strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
}

#[tokio::test]
async fn u07_a_transfer_that_breaks_goes_on_where_it_stopped() {
    for fault in [
        blobs().reset_after(100_000),
        blobs().truncate(100_000),
        blobs().hang_after(100_000),
        blobs().chunked_cut(100_000),
    ] {
        let site = Site::new().await;
        let (digest, bytes) = site.layer(SIZE).await;
        site.mirror.upstream.fault(fault.times(1));
        let got = site.pull(&digest).await;
        assert!(got.is_whole() && got.body == bytes);
        let asked = asked(&site, &digest);
        assert_eq!((asked.len(), &asked[0]), (2, &(None, None)));
        // A reset may overtake what was sent before it.
        let at = place(asked[1].0.as_ref());
        assert!(at > 0 && at <= 100_000, "{asked:?}");
        until("it is cached", || site.fills("committed") == 1).await;
        assert_eq!((resumes(&site), site.is_cached(&digest)), (1, true));
        let upstream_bytes = site.mirror.metric("sealgate_upstream_bytes_total{upstream=\"docker.io\"}");
        assert!(upstream_bytes < 310_000, "nothing was moved twice: {upstream_bytes}");
        site.stop().await;
    }
}

#[tokio::test]
async fn u07_a_transfer_that_keeps_breaking_is_given_up_after_so_many() {
    for (breaks, whole) in [(FILL_RESUMES_MAX, true), (FILL_RESUMES_MAX + 1, false)] {
        let site = Site::new().await;
        let (digest, bytes) = site.layer(SIZE).await;
        site.mirror.upstream.fault(blobs().times(breaks).truncate(10_000));
        let got = site.pull(&digest).await;
        assert_eq!(got.is_whole(), whole, "{breaks}");
        assert!(bytes.starts_with(&got.body));
        assert_eq!(site.gets(&digest), FILL_RESUMES_MAX + 1);
        until("the fill has ended", || site.fills("committed") == u64::from(whole)).await;
        assert_eq!(site.is_cached(&digest), whole);
        assert!(whole || got.body.len() <= free(SIZE));
        site.stop().await;
    }
}

#[tokio::test]
async fn u07_a_rest_is_asked_for_on_condition_that_nothing_has_changed() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    site.mirror.upstream.fault(blobs().times(1).truncate(100_000).header("etag", "\"one\""));
    site.mirror.upstream.fault(blobs().times(1).header("etag", "\"one\""));
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes);
    let asked = asked(&site, &digest);
    assert_eq!(asked[1], (Some("bytes=100000-".to_owned()), Some("\"one\"".to_owned())));
    assert_eq!(asked.len(), 2);
    site.stop().await;
}

#[tokio::test]
async fn u07_a_weak_tag_is_no_condition() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    site.mirror.upstream.fault(blobs().times(1).truncate(100_000).header("etag", "W/\"one\""));
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes);
    assert_eq!(asked(&site, &digest)[1], (Some("bytes=100000-".to_owned()), None));
    site.stop().await;
}

#[tokio::test]
async fn u07_u22_a_registry_that_sends_all_of_it_again_is_taken_at_its_word() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    site.mirror.upstream.fault(blobs().times(1).truncate(100_000));
    site.mirror.upstream.fault(blobs().times(1).status(200).body(bytes.clone()));
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes, "what had come is passed over");
    until("it is cached", || site.fills("committed") == 1).await;
    assert_eq!(site.gets(&digest), 2);
    site.stop().await;
}

#[tokio::test]
async fn u07_u22_a_beginning_and_an_end_of_different_things_are_no_blob() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    let mut other = bytes.clone();
    other[200_000] ^= 1;
    site.mirror.upstream.fault(blobs().times(1).truncate(100_000).header("etag", "\"one\""));
    site.mirror.upstream.fault(blobs().times(1).status(200).body(other).header("etag", "\"two\""));
    let got = site.pull(&digest).await;
    assert!(!got.is_whole() && got.body.len() <= free(SIZE), "{} bytes", got.body.len());
    assert_eq!((site.fills("digest_mismatch"), site.is_cached(&digest)), (1, false));
    let again = site.pull(&digest).await;
    assert!(again.is_whole() && again.body == bytes, "the next one is right");
    site.stop().await;
}

#[tokio::test]
async fn u22_a_part_that_was_not_asked_for_is_not_used_and_the_whole_is_asked_for() {
    let wrong = [
        blobs().set_header("content-range", "bytes 0-199999/300000"),
        blobs().set_header("content-range", "bytes 100001-299999/300000"),
        blobs().set_header("content-range", "bytes 100000-299999/300001"),
        blobs().set_header("content-range", "bytes 100000-299998/300000"),
        blobs().without_header("content-range"),
        blobs().header("etag", "\"two\""),
        blobs().status(204),
        blobs().status(304),
        blobs().status(416),
    ];
    for fault in wrong {
        let site = Site::new().await;
        let (digest, bytes) = site.layer(SIZE).await;
        let what = format!("{fault:?}");
        site.mirror.upstream.fault(blobs().times(1).truncate(100_000).header("etag", "\"one\""));
        site.mirror.upstream.fault(fault.times(1));
        let got = site.pull(&digest).await;
        assert!(got.is_whole() && got.body == bytes, "{what}");
        let asked = asked(&site, &digest);
        assert_eq!((asked.len(), &asked[2]), (3, &(None, None)), "{what}");
        site.stop().await;
    }
}

#[tokio::test]
async fn u07_a_rest_of_unknown_size_belongs_to_a_beginning_of_known_size_only() {
    for (first, requests) in [(blobs().truncate(100_000), 2), (blobs().chunked_cut(100_000), 3)] {
        let site = Site::new().await;
        let (digest, bytes) = site.layer(SIZE).await;
        site.mirror.upstream.fault(first.times(1));
        site.mirror.upstream.fault(blobs().times(1).set_header("content-range", "bytes 100000-299999/*"));
        let got = site.pull(&digest).await;
        assert!(got.is_whole() && got.body == bytes);
        assert_eq!(site.gets(&digest), requests, "who never said how long it is must say so now");
        site.stop().await;
    }
}

#[tokio::test]
async fn u07_a_registry_that_restarts_costs_a_transfer_a_moment() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    site.mirror.upstream.fault(blobs().times(1).truncate(100_000));
    site.mirror.upstream.fault(blobs().times(3).status(503));
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes);
    site.stop().await;
}

#[tokio::test]
async fn u07_a_transfer_waits_for_as_long_as_a_busy_registry_asks_it_to() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    site.mirror.upstream.fault(blobs().times(1).truncate(100_000));
    site.mirror.upstream.fault(blobs().times(1).status(429).header("retry-after", "1"));
    let began = std::time::Instant::now();
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes);
    assert!(began.elapsed() >= std::time::Duration::from_secs(1));
    assert_eq!(site.gets(&digest), 3);
    site.stop().await;
}

#[tokio::test]
async fn u07_what_is_gone_or_refused_in_mid_transfer_is_not_asked_for_again() {
    for status in [404, 403, 429] {
        let site = Site::new().await;
        let (digest, _) = site.layer(SIZE).await;
        site.mirror.upstream.fault(blobs().times(1).truncate(100_000));
        site.mirror.upstream.fault(blobs().status(status));
        let got = site.pull(&digest).await;
        assert!(!got.is_whole() && got.body.len() <= free(SIZE), "{status}");
        assert_eq!(site.gets(&digest), 2, "{status}");
        site.stop().await;
    }
}

#[tokio::test]
async fn u07_what_is_not_cached_is_resumed_too() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    // Without its directory the cache takes nothing. The manifest may just be on its way there, and makes it again.
    let staging = site.dir.path().join("staging");
    until("a file is in its place", || {
        drop(std::fs::remove_dir_all(&staging));
        std::fs::write(&staging, "in the way").is_ok()
    })
    .await;
    site.mirror.upstream.fault(blobs().times(2).truncate(100_000));
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes);
    assert!(resumes(&site) >= 1 && !site.is_cached(&digest));
    std::fs::remove_file(site.dir.path().join("staging")).unwrap();
    std::fs::create_dir(site.dir.path().join("staging")).unwrap();
    site.stop().await;
}

/// An endpoint whose bodies stall answers all the same: whoever asked it again would wait for the same a second time.
#[tokio::test]
async fn u05_a_body_that_stalls_goes_on_at_the_next_endpoint() {
    for sent in [0, 100_000] {
        let second = FakeRegistry::start().await;
        let site = Site::rigged(Rig { timeouts: quick(), fallback: Some(second.url()), ..Rig::default() }).await;
        let image = site.publish("1", &[SIZE]).await;
        second.put("library/app", "1", &image);
        let layer = &image.blobs[1];
        site.mirror.upstream.fault(blobs().hang_after(sent));
        let got = site.pull(&layer.digest).await;
        assert!(got.is_whole() && got.body == layer.bytes, "{sent}");
        assert_eq!((site.gets(&layer.digest), second.count("GET", "*/blobs/*")), (1, 1), "{sent}");
        site.stop().await;
    }
}
