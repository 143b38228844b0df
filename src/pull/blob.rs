//! Blobs that have a grant: from the cache, from a fill, or, when the disk is full, straight from upstream.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio_util::task::TaskTracker;

use super::cold::Place;
use super::fill::{Fills, Follower, Joined, Progress};
use super::reading::{Origin, Reading, is_wrong, unknown_blob};
use super::transfer::{Transfer, Wanted};
use super::turns::Turns;
use super::{PullError, Source, TransferRules};
use crate::limits::HOLD_BACK_BYTES;
use crate::oci::{Digest, Repository};
use crate::store::{BlobFile, Store};
use crate::telemetry::{CacheKind, CacheResult, Telemetry};
use crate::upstream::UpstreamError;

/// What a HEAD of a blob says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHead {
    /// Its size in bytes, as the admitting manifest states it.
    pub size: u64,
    /// Hit, joined or miss.
    pub cache: CacheResult,
}

/// A blob that may be served. Its headers can be sent: it is cached, or upstream has begun to send it.
#[derive(Debug)]
pub struct AdmittedBlob {
    origin: Origin,
    bytes: BytesFrom,
    cache: CacheResult,
    /// Among its client's transfers, when this is one of its own.
    place: Option<Arc<Place>>,
}

impl AdmittedBlob {
    /// Its size in bytes.
    pub const fn size(&self) -> u64 {
        self.origin.wanted.size
    }

    /// Hit, joined, or miss.
    pub const fn cache(&self) -> CacheResult {
        self.cache
    }

    /// The bytes from `start` up to and including `end`, both cut to the blob.
    ///
    /// An error item means that the rest will not come: whoever sends them must cut the connection, so that the client
    /// sees a body that ends short. The last 64 KiB of the blob come only after its digest was found right.
    pub fn stream(self, start: u64, end: u64, delivery: Delivery) -> BoxStream<'static, Result<Bytes, PullError>> {
        let size = self.origin.wanted.size;
        if start >= size || end < start {
            return stream::empty().boxed();
        }
        let stop = end.saturating_add(1).min(size);
        let reading = match self.bytes {
            BytesFrom::File(file) => Reading::of_file(self.origin, file, start, stop, delivery),
            BytesFrom::Fill(follower) => Reading::of_fill(self.origin, follower, start, stop, delivery),
            BytesFrom::Upstream(transfer) => Reading::of_transfer(self.origin, *transfer, start, stop),
        };
        stream::try_unfold((reading, self.place), |(mut reading, place)| async move {
            let bytes = reading.next().await?;
            Ok(bytes.map(|bytes| (bytes, (reading, place))))
        })
        .boxed()
    }
}

/// How the bytes of a cached file may reach whoever sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As memory that can be read: over TLS, or to anything but a connection of ours.
    Copied,
    /// As memory that names the file ([`crate::store::FileRegion`]) and must only be handed to a plaintext socket.
    ByFile,
}

/// Where the bytes come from.
enum BytesFrom {
    File(BlobFile),
    Fill(Follower),
    Upstream(Box<Transfer>),
}

impl fmt::Debug for BytesFrom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File(_) => "File",
            Self::Fill(_) => "Fill",
            Self::Upstream(_) => "Upstream",
        })
    }
}

/// Opens blobs; clones share the fills.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    store: Store,
    telemetry: Telemetry,
    fills: Arc<Fills>,
}

impl Blobs {
    /// Over that store, with so many transfers; each fill becomes a task in `tasks`.
    pub(super) fn new(store: Store, telemetry: Telemetry, rules: TransferRules, tasks: TaskTracker) -> Self {
        let turns = Turns::new(rules.turns, telemetry.clone());
        let fills = Arc::new(Fills::new(store.clone(), turns, rules.patience, tasks));
        Self { store, telemetry, fills }
    }

    /// The size of a granted blob; costs at most one upstream HEAD, for which it waits for `place`, and moves no body.
    pub(super) async fn head(
        &self,
        source: &Source,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        place: impl Future<Output = Result<Option<Arc<Place>>, PullError>>,
    ) -> Result<BlobHead, PullError> {
        let cache = if self.store.blob(digest).await.is_some_and(|file| file.size() == size) {
            CacheResult::Hit
        } else if self.fills.is_running(repository.host(), digest, size) {
            CacheResult::Joined
        } else {
            let _place = place.await?;
            let announced = source.upstream.blob_head(repository.name(), digest).await.map_err(unknown_blob)?;
            if announced.is_some_and(|announced| announced != size) {
                let upstream = repository.host().clone();
                return Err(UpstreamError::Bad { upstream, reason: "size_mismatch" }.into());
            }
            CacheResult::Miss
        };
        self.telemetry.cache_asked(CacheKind::Blob, cache);
        Ok(BlobHead { size, cache })
    }

    /// Opens a granted blob of `size` bytes.
    ///
    /// Returns when the first bytes can be sent, or, for one no longer than what is held back, when its digest is known. A blob
    /// that is not here and not on its way waits for `place`.
    pub(super) async fn open(
        &self,
        source: &Source,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        place: impl Future<Output = Result<Option<Place>, PullError>>,
    ) -> Result<AdmittedBlob, PullError> {
        let wanted = Wanted {
            upstream: source.upstream.clone(),
            repository: repository.clone(),
            digest: *digest,
            size,
            telemetry: self.telemetry.clone(),
        };
        let origin = Origin { wanted, fills: Arc::clone(&self.fills) };
        let mut held = None;
        let (bytes, cache) = if let Some(file) = self.cached(&origin).await? {
            (BytesFrom::File(file), CacheResult::Hit)
        } else {
            if !self.fills.is_running(repository.host(), digest, size) {
                held = place.await?.map(Arc::new);
            }
            self.fill(&origin, held.as_ref()).await?
        };
        self.telemetry.cache_asked(CacheKind::Blob, cache);
        // A fill keeps the place itself: whoever reads slowly behind it takes up no transfer.
        let place = held.filter(|_| matches!(bytes, BytesFrom::Upstream(_)));
        Ok(AdmittedBlob { origin, bytes, cache, place })
    }

    async fn cached(&self, origin: &Origin) -> Result<Option<BlobFile>, PullError> {
        match self.store.blob(&origin.wanted.digest).await {
            Some(file) if file.size() == origin.wanted.size => Ok(Some(file)),
            // The content has that digest, so it is the manifest's size that is wrong.
            Some(file) if file.is_verified() => Err(origin.bad("size_mismatch")),
            // The file or the manifest is wrong. What upstream sends decides: if it is the blob, it takes the file's place; if
            // not, other manifests' clients still have the file.
            Some(_) | None => Ok(None),
        }
    }

    async fn fill(&self, origin: &Origin, place: Option<&Arc<Place>>) -> Result<(BytesFrom, CacheResult), PullError> {
        let mut again = true;
        loop {
            let (follower, joined) = self.fills.join(&origin.wanted, place);
            let cache = match joined {
                Joined::Started => CacheResult::Miss,
                Joined::Found => CacheResult::Joined,
            };
            let mut progress = follower.progress();
            let begun = progress.wait_for(|progress| has_begun(progress, origin.wanted.size)).await;
            let begun = begun.map_err(|_| PullError::Lost)?.clone();
            match begun {
                Progress::Starting | Progress::Streaming { .. } | Progress::Verified => {
                    return Ok((BytesFrom::Fill(follower), cache));
                }
                Progress::Cached if let Some(file) = self.cached(origin).await? => {
                    return Ok((BytesFrom::File(file), CacheResult::Hit));
                }
                // Evicted since it was seen, or the disk does not give it back now.
                Progress::Cached | Progress::Unstorable => {
                    let transfer = origin.fetch().await?;
                    return Ok((BytesFrom::Upstream(Box::new(transfer)), CacheResult::Bypass));
                }
                // Another repository's failure is not ours, so we ask our own; and wrong bytes are asked for once more while
                // nobody has seen any: a blob that fails sends some clients round us. All who wait share what comes then.
                Progress::Failed(error)
                    if again && (*follower.repository() != origin.wanted.repository || is_wrong(&error)) =>
                {
                    again = false;
                }
                Progress::Failed(error) => return Err(error),
            }
        }
    }
}

/// Whether an answer's headers can be sent.
fn has_begun(progress: &Progress, size: u64) -> bool {
    match progress {
        Progress::Starting => false,
        Progress::Streaming { .. } => size > HOLD_BACK_BYTES,
        Progress::Verified | Progress::Cached | Progress::Unstorable | Progress::Failed(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;
    use crate::clock::Clock;
    use crate::store::Settings;
    use crate::testing::{FakeRegistry, Fault, ImageBuilder};
    use crate::upstream::Upstream;

    const SIZE: usize = 300_000;

    /// What a reader gets whose fill breaks off when it has read a part: `first` is what that fill has.
    async fn read_across_a_full_disk(first: impl Fn(&mut Vec<u8>)) -> Result<bool, PullError> {
        let registry = FakeRegistry::start().await;
        let right = ImageBuilder::new(1).layer(SIZE).build().blobs[1].bytes.clone();
        let digest = registry.put_blob("team/app", right.clone());
        let mut sent = right.to_vec();
        first(&mut sent);
        registry.fault(Fault::on("*").times(1).body(sent).hang_after(200_000));
        let settings = Settings { data_dir: None, max_bytes: 1 << 30, min_free_bytes: 0 };
        let (host, telemetry): (crate::oci::Host, _) = ("registry.test".parse().unwrap(), Telemetry::default());
        let store = Store::open(settings, Clock::System, telemetry.clone()).await.unwrap();
        let upstream = Upstream::new(registry.settings("registry.test"), telemetry.clone()).unwrap();
        let blobs = Blobs::new(store, telemetry.clone(), TransferRules::default(), TaskTracker::new());
        let repository = Repository::new(host, "team/app".parse().unwrap()).unwrap();
        let wanted = Wanted { upstream, repository, digest, size: right.len().try_into().unwrap(), telemetry };
        let origin = Origin { wanted, fills: Arc::clone(&blobs.fills) };
        let (bytes, cache) = blobs.fill(&origin, None).await?;
        let BytesFrom::Fill(follower) = &bytes else { panic!("there is a fill") };
        let fill = follower.clone();
        let end = origin.wanted.size - 1;
        let mut stream = AdmittedBlob { origin, bytes, cache, place: None }.stream(0, end, Delivery::Copied);
        let beginning = stream.try_next().await?.unwrap();
        assert!(beginning.len() < SIZE);
        fill.break_off();
        let rest: Vec<Bytes> = stream.try_collect().await?;
        Ok([&beginning[..], &rest.concat()].concat() == right)
    }

    #[tokio::test]
    async fn when_the_disk_is_full_in_the_middle_the_rest_comes_from_upstream() {
        assert!(read_across_a_full_disk(|_| {}).await.unwrap());
    }

    #[tokio::test]
    async fn what_takes_over_from_a_fill_must_begin_with_what_was_sent() {
        for wrong in [0, 1000] {
            let read = read_across_a_full_disk(|bytes| bytes[wrong] ^= 1).await;
            assert!(is_wrong(&read.unwrap_err()), "a wrong beginning and a right end are no blob");
        }
    }
}
