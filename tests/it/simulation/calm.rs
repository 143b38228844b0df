//! Calms: everything that was in the way ends, and answers are exactly what is true.

use std::time::Duration;

use super::driver::Simulation;
use super::model::{ALLOW_TTL, ImageId, RepositoryId, TagId};
use super::request::{Ask, Range, Request, ask};
use super::world::{REPOSITORIES, TAGS, catalogue};

/// Ticks within which a mirror at rest has tidied up; far more than a busy machine needs.
const PATIENCE: usize = 20_000;

impl Simulation<'_> {
    pub(super) async fn calm(&mut self) -> Result<(), String> {
        self.note("a calm", "");
        for (fault, times) in self.disk.heal() {
            self.count_many(format!("disk operation failed: {fault}"), times);
        }
        self.upstream.heal();
        self.faults.clear();
        self.settle().await;
        let now = self.model.latest_clock().plus(ALLOW_TTL + Duration::from_mins(2));
        self.clock.set(now);
        self.model.change(|moment| moment.clock = now);
        let damaged = self.model.is_damaged();
        self.model.calm();
        let scrub_first = self.random.percent(50);
        if scrub_first {
            self.note("a calm with a scrub first", "");
            self.scrub().await?;
        } else if damaged {
            // Then whoever comes first finds out, and whoever comes next has what he asks for.
            self.model.damage();
        }
        if self.random.percent(50) {
            // Who comes first after trouble finds out that it is over, whatever it asks for.
            self.clients().await?;
        }
        for repository in 0..REPOSITORIES.len() {
            for tag in 0..TAGS.len() {
                self.exact(repository, tag).await?;
            }
        }
        if !scrub_first {
            self.scrub().await?;
            self.model.calm();
        }
        self.in_order().await
    }

    async fn exact(&mut self, repository: RepositoryId, tag: TagId) -> Result<(), String> {
        let named = self.model.now().tags.get(&(repository, tag)).copied();
        let must = self.model.must_name(repository, tag);
        let expected = match (named, must) {
            (None, _) => 404,
            (_, None) => 403,
            _ => 200,
        };
        let status = self.status(Request::get(Ask::Tag(repository, tag))).await?;
        if status != expected {
            return Err(format!("after a calm {}:{} is {status}", REPOSITORIES[repository], TAGS[tag]));
        }
        let Some(image) = must else { return Ok(()) };
        let relaxed = self.model.is_relaxed(repository, image);
        let by = if relaxed { "audit or exemption".to_owned() } else { format!("{:?}", self.model.rules().policy) };
        self.count(format!("allowed after a calm by: {by}"));
        for leaf in catalogue().shapes[image].children.iter().copied().chain([image]) {
            let status = self.status(Request::get(Ask::Image(repository, leaf))).await?;
            if status != 200 {
                return Err(format!("after a calm image {leaf} of the allowed image {image} is {status}"));
            }
            for blob in catalogue().shapes[leaf].blobs.clone() {
                self.whole(repository, blob, image).await?;
            }
        }
        Ok(())
    }

    /// A large file that is damaged costs one answer, and no more.
    async fn whole(&mut self, repository: RepositoryId, blob: usize, image: ImageId) -> Result<(), String> {
        let request = Request::get(Ask::Blob(repository, blob, Range::Whole));
        for _ in 0..=u8::from(self.model.is_damaged()) {
            let answer = self.drive(ask(self.address(), request)).await?;
            self.check(request, answer.as_ref())?;
            if answer.is_some_and(|answer| answer.status == 200 && answer.complete) {
                return Ok(());
            }
        }
        Err(format!("after a calm blob {blob} of the allowed image {image} is not whole"))
    }

    pub(super) async fn status(&mut self, request: Request) -> Result<u16, String> {
        let answer = self.drive(ask(self.address(), request)).await?;
        self.check(request, answer.as_ref())?;
        Ok(answer.map_or(0, |answer| answer.status))
    }

    /// The mirror hashes all of its files again.
    async fn scrub(&mut self) -> Result<(), String> {
        let mut asked = false;
        for _ in 0..PATIENCE {
            if !asked {
                asked = self.mirror().app().store().verify_cache();
                // By its end this pass is told from one that was under way, and had passed what has changed since.
                self.advance(Duration::from_secs(u64::from(asked)));
            }
            let store = self.mirror().app().store();
            let stats = store.scrub_stats();
            if asked && !stats.running && stats.ended == Some(self.model.now().clock) {
                let wrong = self.disk.wrong_file();
                return wrong.map_or(Ok(()), |file| Err(format!("after a scrub {} is wrong", file.display())));
            }
            self.tick.notified().await;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        Err("a scrub does not end".to_owned())
    }

    /// No staging is left, and the cache has counted what lies on the disk, which is no more than it may.
    async fn in_order(&mut self) -> Result<(), String> {
        for digest in std::mem::take(&mut self.disk.removed) {
            // Nobody told the mirror that this one is gone.
            drop(self.mirror().app().store().blob(&digest).await);
        }
        let mut found = String::new();
        for _ in 0..PATIENCE {
            let (staged, on_disk) = (self.mirror().staging().len(), self.disk.bytes());
            let stats = self.mirror().app().store().cache_stats();
            if staged == 0 && stats.bytes == on_disk && on_disk <= stats.limit_bytes {
                return Ok(());
            }
            found = format!("{staged} files in staging, {on_disk} bytes on the disk, {stats:?}");
            self.tick.notified().await;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        Err(format!("after a calm there are {found}"))
    }
}
