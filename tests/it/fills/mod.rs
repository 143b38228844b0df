//! Fills, over TCP and against upstreams that break one thing each: who waits, who pays, and what comes out.

mod company;
mod faults;
mod resume;
mod turns;

use std::path::PathBuf;
use std::time::Duration;

use sealgate::limits::HOLD_BACK_BYTES;
use sealgate::net::Timeouts;
use sealgate::oci::Digest;
use sealgate::testing::{BuiltImage, Fault, ImageBuilder};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::parts::{ACCEPT_ANYTHING, Mirror, Rig};
use crate::wire::{Answer, PATIENCE, Wire};

const MIB: usize = 1024 * 1024;
/// Where an image is asked for.
const REPOSITORY: &str = "/v2/docker.io/library/app";

/// A mirror with its cache on disk.
struct Site {
    mirror: Mirror,
    dir: TempDir,
}

/// What one client got of a blob.
#[derive(Debug)]
struct Got {
    answer: Answer,
    body: Vec<u8>,
    /// What the answer promised.
    length: usize,
}

impl Got {
    fn is_whole(&self) -> bool {
        self.answer.status == 200 && self.body.len() == self.length
    }
}

/// Time limits with which a test need not wait for a peer that stalls in mid-body.
fn quick() -> Timeouts {
    Timeouts { idle: Duration::from_secs(1), retry_pause: Duration::from_millis(1), ..Timeouts::default() }
}

impl Site {
    async fn new() -> Self {
        Self::rigged(Rig { timeouts: quick(), ..Rig::default() }).await
    }

    async fn rigged(rig: Rig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig { data_dir: Some(dir.path().to_owned()), ..rig };
        Self { mirror: Mirror::rigged(ACCEPT_ANYTHING, rig, |_| {}).await, dir }
    }

    /// Publishes an image with these layers as `library/app:TAG` and admits it.
    async fn publish(&self, tag: &str, layers: &[usize]) -> BuiltImage {
        let seed = u64::try_from(tag.len()).unwrap() * 1000 + u64::try_from(layers.iter().sum::<usize>()).unwrap();
        let image = layers.iter().fold(ImageBuilder::new(seed), |builder, bytes| builder.layer(*bytes)).build();
        self.mirror.upstream.put("library/app", tag, &image);
        let answer = self.get(&format!("{REPOSITORY}/manifests/{tag}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.mirror.upstream.forget_requests();
        image
    }

    /// One image with one layer of so many bytes: the layer.
    async fn layer(&self, bytes: usize) -> (Digest, Vec<u8>) {
        let image = self.publish("1", &[bytes]).await;
        (image.blobs[1].digest, image.blobs[1].bytes.to_vec())
    }

    async fn get(&self, target: &str) -> Answer {
        crate::wire::get(self.mirror.address, target, "").await
    }

    /// Opens a transfer and reads its head.
    async fn open(&self, digest: &Digest, headers: &str) -> (Wire, Answer) {
        let mut wire = Wire::open(self.mirror.address).await;
        let target = format!("{REPOSITORY}/blobs/{digest}");
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n{headers}Connection: close\r\n\r\n")).await;
        let answer = wire.head().await;
        (wire, answer)
    }

    /// Reads a blob as far as it comes.
    async fn pull(&self, digest: &Digest) -> Got {
        let (mut wire, answer) = self.open(digest, "").await;
        let body = wire.rest().await;
        let length = answer.header("content-length").unwrap().parse().unwrap();
        Got { answer, body, length }
    }

    async fn pull_by(&self, clients: usize, digest: &Digest) -> Vec<Got> {
        futures_util::future::join_all((0..clients).map(|_| self.pull(digest))).await
    }

    /// As many pulls, all of which wait when upstream answers the one transfer, with that fault.
    async fn pull_together(&self, clients: usize, digest: &Digest, fault: Fault) -> Vec<Got> {
        let released = CancellationToken::new();
        self.mirror.upstream.fault(fault.times(1).hold(&released));
        let answer_all = async {
            until("all wait", || self.mirror.metric("sealgate_cache_fill_waiters") >= u64::try_from(clients).unwrap())
                .await;
            released.cancel();
        };
        tokio::join!(self.pull_by(clients, digest), answer_all).0
    }

    /// The answer to a blob that cannot be begun: status and reason.
    async fn refusal(&self, digest: &Digest) -> (u16, String) {
        let answer = self.get(&format!("{REPOSITORY}/blobs/{digest}")).await;
        (answer.status, answer.detail("reason"))
    }

    fn gets(&self, digest: &Digest) -> usize {
        self.mirror.upstream.count("GET", &format!("*/blobs/{digest}"))
    }

    fn fills(&self, outcome: &str) -> u64 {
        self.mirror.metric(&format!("sealgate_cache_fills_total{{outcome=\"{outcome}\"}}"))
    }

    /// Whether no fill is under way, not even one whose clients have gone.
    fn no_fill_runs(&self) -> bool {
        self.mirror.metric("sealgate_cache_fills_in_flight") == 0
    }

    fn is_cached(&self, digest: &Digest) -> bool {
        let hex = digest.to_string().split_once(':').unwrap().1.to_owned();
        self.dir.path().join("blobs/sha256").join(&hex[..2]).join(hex).exists()
    }

    fn staged(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("staging")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Stops; nothing may be left over.
    async fn stop(self) {
        let stopped = self.mirror.stop().await;
        assert_eq!(stopped.metric("sealgate_cache_fills_in_flight"), 0);
        assert_eq!(stopped.metric("sealgate_cache_fill_waiters"), 0);
        for upstream in ["docker.io", "quay.io"] {
            assert_eq!(stopped.metric(&format!("sealgate_cache_fills_queued{{upstream=\"{upstream}\"}}")), 0);
        }
        let staged = std::fs::read_dir(self.dir.path().join("staging")).unwrap().count();
        assert_eq!(staged, 0, "files are left in staging");
    }
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("it never came to this: {what}"));
}

/// Bytes of a blob of that size that may go out before its digest is known.
fn free(size: usize) -> usize {
    size.saturating_sub(usize::try_from(HOLD_BACK_BYTES).unwrap())
}
