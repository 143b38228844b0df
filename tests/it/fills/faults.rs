//! Upstream faults that concern bodies (threats.md §4.2), as a client of the mirror meets them.

use std::time::Duration;

use sealgate::limits::UPSTREAM_HEADER_BYTES_MAX;
use sealgate::net::Timeouts;
use sealgate::oci::{Digest, MediaType};
use sealgate::testing::{BuiltImage, Fault, ImageBuilder, RawServer};

use super::{REPOSITORY, Site, free, quick, until};
use crate::parts::Rig;
use crate::wire::Answer;

const SIZE: usize = 300_000;

fn blobs() -> Fault {
    Fault::on("*/blobs/*").get()
}

fn manifests() -> Fault {
    Fault::on("*/manifests/*").get()
}

/// Another image for each tag.
fn image_of(tag: &str) -> BuiltImage {
    let seed = tag.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    ImageBuilder::new(seed).layer(100).build()
}

/// The answer for an image that upstream has and the mirror does not.
async fn cold_manifest(site: &Site, tag: &str) -> Answer {
    let image = image_of(tag);
    site.mirror.upstream.put("library/app", tag, &image);
    site.get(&format!("{REPOSITORY}/manifests/{tag}")).await
}

/// A manifest that cannot be had: status and reason. Nothing of it is kept, so that the next request has it.
async fn refused_manifest(site: &Site, tag: &str) -> (u16, String) {
    let answer = cold_manifest(site, tag).await;
    assert_eq!(answer.header("docker-content-digest"), None);
    site.mirror.upstream.heal();
    let again = cold_manifest(site, tag).await;
    assert_eq!(again.status, 200, "{tag}: {again:?}");
    assert_eq!(again.header("docker-content-digest").unwrap(), Digest::sha256(&again.body).to_string());
    (answer.status, answer.detail("reason"))
}

/// A blob whose transfer fails for its client, and leaves nothing; the next one has it.
async fn fails(site: &Site, digest: &Digest, what: &str) {
    let (mut wire, answer) = site.open(digest, "").await;
    let body = wire.rest().await;
    if answer.status == 200 {
        assert!(body.len() <= free(SIZE), "{what}: {} bytes went out", body.len());
    } else {
        assert!(matches!(answer.status, 502 | 504), "{what}: {answer:?}");
    }
    assert!(!site.is_cached(digest), "{what}");
    until("nothing is staged", || site.staged().is_empty()).await;
    site.mirror.upstream.heal();
    let again = site.pull(digest).await;
    assert!(again.is_whole() && digest.matches(&again.body), "{what}: the next one is whole");
    until("it is cached", || site.no_fill_runs()).await;
    std::fs::remove_file(blob_file(site, digest)).unwrap();
}

fn blob_file(site: &Site, digest: &Digest) -> std::path::PathBuf {
    let hex = digest.to_string().split_once(':').unwrap().1.to_owned();
    site.dir.path().join("blobs/sha256").join(&hex[..2]).join(hex)
}

#[tokio::test]
async fn u01_a_body_cut_short_anywhere_is_never_whole() {
    let site = Site::new().await;
    let (digest, _) = site.layer(SIZE).await;
    let length = image_of("2a").manifest.bytes.len();
    for (tag, cut) in ["2a", "2b", "2c", "2d"].into_iter().zip([0, 1, length / 2, length - 1]) {
        site.mirror.upstream.fault(manifests().truncate(cut));
        assert_eq!(refused_manifest(&site, tag).await, (502, "truncated".to_owned()), "{cut}");
    }
    for (failed, cut) in [0, 1, SIZE / 2, SIZE - 1].into_iter().enumerate() {
        site.mirror.upstream.fault(blobs().times(1).truncate(cut));
        site.mirror.upstream.fault(blobs().truncate(0));
        fails(&site, &digest, &format!("cut at {cut}")).await;
        assert_eq!(site.fills("truncated"), u64::try_from(failed).unwrap() + 1);
    }
    site.stop().await;
}

#[tokio::test]
async fn u02_wrong_bytes_of_the_right_length_are_never_whole_and_never_kept() {
    let site = Site::new().await;
    let (digest, _) = site.layer(SIZE).await;
    site.mirror.upstream.fault(manifests().wrong_bytes());
    assert_eq!(refused_manifest(&site, "2").await, (502, "digest_mismatch".to_owned()));
    for fault in [blobs().wrong_bytes(), blobs().wrong_bytes().chunked()] {
        site.mirror.upstream.fault(fault);
        fails(&site, &digest, "wrong bytes").await;
    }
    // Whose first bytes nobody had seen was asked for once more.
    let failed = site.fills("digest_mismatch");
    assert!((2..=4).contains(&failed), "{failed}");
    site.stop().await;
}

#[tokio::test]
async fn u03_a_stated_length_that_is_not_the_blobs_fails_at_the_headers() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    let shorter = bytes[..SIZE - 1].to_vec();
    let longer = [&bytes[..], b"x"].concat();
    for body in [shorter, longer] {
        site.mirror.upstream.fault(blobs().body(body));
        assert_eq!(site.refusal(&digest).await, (502, "size_mismatch".to_owned()));
        assert_eq!(site.gets(&digest), 1, "it is not asked for again");
        site.mirror.upstream.heal();
        site.mirror.upstream.forget_requests();
        let head = crate::wire::head(site.mirror.address, &format!("{REPOSITORY}/blobs/{digest}"), "").await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("300000")));
    }
    site.mirror.upstream.fault(Fault::on("*/blobs/*").head().body("short"));
    let head = crate::wire::head(site.mirror.address, &format!("{REPOSITORY}/blobs/{digest}"), "").await;
    assert_eq!(head.status, 502, "HEAD does not claim what GET could not keep");
    site.stop().await;
}

#[tokio::test]
async fn u03_what_follows_a_body_is_not_part_of_it() {
    let storage = |more: &'static str| async move {
        let (seed, size) = (301_000, SIZE);
        let layer = ImageBuilder::new(seed).layer(size).build().blobs[1].bytes.clone();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
        RawServer::answering([head.as_bytes(), &layer, more.as_bytes()].concat()).await
    };
    for more in ["", "and more", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"] {
        let storage = storage(more).await;
        let rig = Rig { timeouts: quick(), redirect_hosts: vec![storage.address().to_string()], ..Rig::default() };
        let site = Site::rigged(rig).await;
        let (digest, bytes) = site.layer(SIZE).await;
        site.mirror.upstream.fault(blobs().redirect(&format!("http://{}/blob", storage.address())));
        let got = site.pull(&digest).await;
        assert!(got.is_whole() && got.body == bytes, "{more:?}: {:?}", got.answer);
        site.stop().await;
    }
}

#[tokio::test]
async fn u04_a_body_without_length_is_whole_when_it_ends_well_and_no_longer_than_the_blob() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    site.mirror.upstream.fault(blobs().chunked());
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes);
    until("it is cached", || site.no_fill_runs()).await;
    std::fs::remove_file(blob_file(&site, &digest)).unwrap();
    site.mirror.upstream.heal();
    site.mirror.upstream.fault(blobs().chunked_cut(10_000));
    fails(&site, &digest, "ends early").await;
    // All bytes are there, and only the end of the body is not.
    site.mirror.upstream.fault(blobs().chunked_cut(SIZE));
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes, "the digest tells that it is whole");
    until("it is cached", || site.no_fill_runs()).await;
    std::fs::remove_file(blob_file(&site, &digest)).unwrap();
    site.mirror.upstream.heal();
    site.mirror.upstream.fault(blobs().endless());
    fails(&site, &digest, "never ends").await;
    assert!(site.mirror.metric("sealgate_upstream_bytes_total{upstream=\"docker.io\"}") < 10_000_000);
    site.mirror.upstream.fault(manifests().chunked());
    assert_eq!(cold_manifest(&site, "2").await.status, 200);
    site.mirror.upstream.heal();
    site.mirror.upstream.fault(manifests().chunked_cut(20));
    assert_eq!(refused_manifest(&site, "33").await, (502, "truncated".to_owned()));
    site.mirror.upstream.fault(manifests().endless());
    assert_eq!(refused_manifest(&site, "444").await, (502, "too_large".to_owned()));
    site.stop().await;
}

#[tokio::test]
async fn u05_a_body_that_drips_is_given_up_and_all_who_wait_get_the_same() {
    let timeouts = Timeouts { total: Duration::from_secs(2), ..quick() };
    let site = Site::rigged(Rig { timeouts, ..Rig::default() }).await;
    let (digest, _) = site.layer(SIZE).await;
    // Less than 30 KiB in the idle time is a stall, although it never falls silent.
    site.mirror.upstream.fault(blobs().drip(1, Duration::from_millis(20)));
    let all = site.pull_by(3, &digest).await;
    let most = all.iter().map(|got| got.body.len()).max().unwrap();
    assert!(all.iter().all(|got| !got.is_whole()) && most < 30 * 1024, "{most}");
    assert_eq!((site.fills("upstream_error"), site.gets(&digest)), (1, 2), "resumed once");
    site.mirror.upstream.heal();
    site.mirror.upstream.fault(manifests().drip(1, Duration::from_millis(100)));
    assert_eq!(refused_manifest(&site, "2").await, (504, "timeout".to_owned()));
    site.stop().await;
}

#[tokio::test]
async fn u06_an_upstream_that_accepts_and_says_nothing_is_left_in_time_and_not_asked_again() {
    let timeouts = Timeouts { first_byte: Duration::from_secs(2), ..quick() };
    let site = Site::rigged(Rig { timeouts, ..Rig::default() }).await;
    let (digest, _) = site.layer(SIZE).await;
    site.mirror.upstream.fault(Fault::on("*").get().hang());
    assert_eq!(site.refusal(&digest).await, (504, "timeout".to_owned()));
    assert_eq!(site.gets(&digest), 1, "a wait that was too long is not doubled");
    let timed_out = "sealgate_upstream_requests_total{code_class=\"timeout\",op=\"blob_get\",upstream=\"docker.io\"}";
    assert_eq!(site.mirror.metric(timed_out), 1);
    assert_eq!(refused_manifest(&site, "2").await, (504, "timeout".to_owned()));
    site.stop().await;
}

#[tokio::test]
async fn u07_an_upstream_that_nobody_answers_at_is_a_502() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    site.mirror.upstream.go_down();
    assert_eq!(site.refusal(&digest).await.0, 502);
    assert_eq!(cold_manifest(&site, "2").await.status, 502);
    site.mirror.upstream.come_back().await;
    assert_eq!(cold_manifest(&site, "2").await.status, 200);
    site.mirror.upstream.fault(blobs().reset());
    assert_eq!(site.refusal(&digest).await, (502, "reset".to_owned()));
    site.mirror.upstream.heal();
    site.mirror.upstream.fault(blobs().times(1).reset_after(0));
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes, "a reset right after the headers is survived");
    site.stop().await;
}

#[tokio::test]
async fn u08_a_failing_upstream_is_a_502_that_says_when_and_costs_nothing_that_is_cached() {
    for (status, after) in [(500, None), (502, None), (503, Some("7")), (504, None)] {
        let site = Site::new().await;
        let image = site.publish("1", &[SIZE, 1000]).await;
        let (cold, warm) = (image.blobs[1].digest, &image.blobs[2]);
        assert!(site.pull(&warm.digest).await.is_whole());
        let fault = Fault::on("*").status(status);
        site.mirror.upstream.fault(match after {
            Some(after) => fault.header("retry-after", after),
            None => fault,
        });
        let answer = site.get(&format!("{REPOSITORY}/blobs/{cold}")).await;
        assert_eq!((answer.status, answer.header("retry-after")), (502, after), "{status}");
        assert_eq!(site.gets(&cold), if after.is_some() { 1 } else { 3 }, "{status}");
        let manifest = cold_manifest(&site, "2").await;
        assert_eq!((manifest.status, manifest.header("retry-after")), (502, after), "{status}");
        let by_digest = site.get(&format!("{REPOSITORY}/manifests/{}", image.digest())).await;
        assert_eq!((by_digest.status, by_digest.body), (200, image.manifest.bytes.to_vec()), "{status}");
        assert!(site.pull(&warm.digest).await.is_whole(), "{status}");
        site.stop().await;
    }
}

#[tokio::test]
async fn u20_what_head_says_is_what_get_gives_whatever_upstreams_head_says() {
    let site = Site::new().await;
    for (tag, fault) in [
        ("2", Fault::on("*/manifests/*").head().body("another")),
        ("33", Fault::on("*/manifests/*").head().content_type(MediaType::OciIndex.as_str())),
        (
            "444",
            Fault::on("*/manifests/444").head().set_header("docker-content-digest", &Digest::sha256(b"").to_string()),
        ),
    ] {
        site.mirror.upstream.heal();
        site.mirror.upstream.fault(fault);
        let image = image_of(tag);
        site.mirror.upstream.put("library/app", tag, &image);
        let target = format!("{REPOSITORY}/manifests/{tag}");
        let head = crate::wire::head(site.mirror.address, &target, "").await;
        let get = site.get(&target).await;
        assert_eq!((head.status, get.status, get.body.as_slice()), (200, 200, image.manifest.bytes.as_ref()), "{tag}");
        for name in ["content-length", "content-type", "docker-content-digest"] {
            assert_eq!(head.header(name), get.header(name), "{tag}: {name}");
        }
        assert_eq!(get.header("docker-content-digest").unwrap(), image.digest().to_string());
    }
    site.stop().await;
}

#[tokio::test]
async fn u21_a_tag_that_moves_while_clients_wait_gives_each_of_them_one_whole_image() {
    let site = Site::new().await;
    let images: Vec<_> = (0..2).map(|seed| ImageBuilder::new(seed).layer(1000).build()).collect();
    for round in 0..20 {
        let tag = format!("moving-{round}");
        site.mirror.upstream.put("library/app", &tag, &images[0]);
        site.mirror.upstream.put_untagged("library/app", &images[1]);
        site.mirror.upstream.fault(Fault::on(&format!("*/{tag}")).delay(Duration::from_millis(10)));
        let target = format!("{REPOSITORY}/manifests/{tag}");
        let clients = (0..10).map(async |client| {
            tokio::time::sleep(Duration::from_millis(2 * client)).await;
            site.get(&target).await
        });
        let moves = async {
            tokio::time::sleep(Duration::from_millis(round)).await;
            site.mirror.upstream.tag("library/app", &tag, images[1].digest());
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(clients), moves);
        for answer in answers {
            assert_eq!(answer.status, 200, "{answer:?}");
            let digest = Digest::sha256(&answer.body);
            assert_eq!(answer.header("docker-content-digest").unwrap(), digest.to_string());
            assert!(images.iter().any(|image| image.digest() == digest));
        }
    }
    site.stop().await;
}

#[tokio::test]
async fn u22_an_answer_to_another_question_is_a_502() {
    let site = Site::new().await;
    let (digest, _) = site.layer(SIZE).await;
    for status in [204, 206, 304] {
        site.mirror.upstream.fault(blobs().status(status));
        assert_eq!(site.refusal(&digest).await, (502, "protocol".to_owned()), "{status}");
        site.mirror.upstream.heal();
        site.mirror.upstream.fault(manifests().status(status));
        assert_eq!(refused_manifest(&site, &"t".repeat(usize::from(status) - 200)).await.0, 502, "{status}");
    }
    site.mirror.upstream.fault(blobs().status(206).set_header("content-range", "bytes 0-299999/300000"));
    assert_eq!(site.refusal(&digest).await, (502, "protocol".to_owned()));
    site.stop().await;
}

#[tokio::test]
async fn u22_a_flood_of_interim_answers_is_left() {
    for interim in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"] {
        let server = RawServer::answering(interim.repeat(50_000)).await;
        let rig = Rig { timeouts: quick(), endpoint: Some(format!("http://{}", server.address())), ..Rig::default() };
        let site = Site::rigged(rig).await;
        let answer = site.get(&format!("{REPOSITORY}/manifests/1")).await;
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(server.requests().len() <= 3);
        site.stop().await;
    }
}

#[tokio::test]
async fn u23_headers_of_upstream_are_not_handed_on() {
    let site = Site::new().await;
    let noise = |fault: Fault| {
        fault
            .header("set-cookie", "session=1")
            .header("location", "http://elsewhere.test/")
            .header("www-authenticate", "Bearer realm=\"http://elsewhere.test\"")
            .header("x-evil", "b")
            .header("server", "upstream")
    };
    site.mirror.upstream.fault(noise(Fault::on("*")));
    let manifest = cold_manifest(&site, "2").await;
    let blob = site.get(&format!("{REPOSITORY}/blobs/{}", image_of("2").blobs[1].digest)).await;
    let missing = site.get("/v2/docker.io/library/app/manifests/missing").await;
    assert_eq!((manifest.status, blob.status), (200, 200));
    for answer in [manifest, blob, missing] {
        for name in ["set-cookie", "location", "www-authenticate", "x-evil", "server"] {
            assert_eq!(answer.header(name), None, "{answer:?}");
        }
    }
    site.stop().await;
}

#[tokio::test]
async fn u23_more_headers_than_are_read_are_a_502() {
    let site = Site::new().await;
    let (digest, bytes) = site.layer(SIZE).await;
    for length in [UPSTREAM_HEADER_BYTES_MAX, 1 << 20] {
        site.mirror.upstream.fault(Fault::on("*").header("x-bomb", vec![b'a'; length]));
        assert_eq!(site.refusal(&digest).await, (502, "protocol".to_owned()), "{length}");
        site.mirror.upstream.heal();
    }
    site.mirror.upstream.fault(Fault::on("*").header("x-large", vec![b'a'; UPSTREAM_HEADER_BYTES_MAX - 1024]));
    let got = site.pull(&digest).await;
    assert!(got.is_whole() && got.body == bytes);
    site.stop().await;
}
