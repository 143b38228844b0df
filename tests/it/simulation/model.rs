//! What a mirror may answer, as a specification: no I/O, nothing of the product.
//!
//! The model keeps every **moment**: what the clock showed, what tags named and who had signed what, each time one of these
//! changed. An answer is right when it follows from moments that still count:
//!
//! - A tag names what it named at a moment younger than `tag_ttl`; while upstream is in trouble, younger than
//!   `tag_ttl + stale_if_error`.
//! - An image is allowed by what was signed at a moment at most `allow_ttl` away; while upstream is in trouble, by what was signed
//!   at any moment, since evidence that was kept is verified again offline.
//! - While upstream says nothing at all, only moments before that count.
//! - The rules that count are those in force, whatever was allowed before. An exemption, until it ends, and audit mode serve what
//!   policy denies, and all that it lists.
//! - When a tag was refused as unknown, nothing that it named before comes back, unless a process died since.
//! - A blob is there when an allowed image of that repository lists it.
//!
//! And it is missing nothing: while upstream has been well since the last calm, what was allowed and tagged at every moment since
//! then must be served. After a calm, when everything that was remembered has ended, answers are exactly what is true now.

use std::collections::BTreeMap;
use std::time::Duration;

use sealgate::clock::Timestamp;

pub(super) const TAG_TTL: Duration = Duration::from_mins(1);
pub(super) const STALE_IF_ERROR: Duration = Duration::from_hours(2);
pub(super) const ALLOW_TTL: Duration = Duration::from_hours(1);
pub(super) const DENY_TTL: Duration = Duration::from_mins(1);

/// One of the images that exist, by its place in the catalogue.
pub(super) type ImageId = usize;
/// One of the repositories, by its place in the catalogue.
pub(super) type RepositoryId = usize;
/// One of the tags, by its place in the catalogue.
pub(super) type TagId = usize;

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    A,
    B,
    /// An identity, by a certificate and the log.
    Keyless,
}

/// What policy says of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Anything,
    Nothing,
    SignedBy(Key),
}

/// What is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    /// Where denials are only recorded.
    pub(super) audited: Option<RepositoryId>,
    /// Served whatever policy says, until then.
    pub(super) exempt: Option<(ImageId, Timestamp)>,
}

/// How an image is built: what it lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    /// The children of an index.
    pub(super) children: Vec<ImageId>,
    /// Numbers of the blobs that it lists.
    pub(super) blobs: Vec<usize>,
}

/// What is true at upstream, and what the clock shows.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) clock: Timestamp,
    pub(super) tags: BTreeMap<(RepositoryId, TagId), ImageId>,
    pub(super) signed: BTreeMap<(RepositoryId, ImageId), Vec<Key>>,
}

impl Moment {
    fn is_signed(&self, repository: RepositoryId, image: ImageId, key: Key) -> bool {
        self.signed.get(&(repository, image)).is_some_and(|keys| keys.contains(&key))
    }
}

/// The specification with its memory.
#[derive(Debug)]
pub(super) struct Model {
    shapes: Vec<Shape>,
    moments: Vec<Moment>,
    rules: Rules,
    /// The moment from which on a tag counts that was refused as unknown.
    gone: BTreeMap<(RepositoryId, TagId), usize>,
    /// The moments since the last calm begin here.
    calm: usize,
    /// Upstream has failed, or was made to, since the last calm.
    troubled: bool,
    /// Upstream says nothing at all since this moment.
    dark: Option<usize>,
    /// Files of the cache were damaged since the last calm.
    damaged: bool,
}

impl Model {
    pub(super) fn new(shapes: Vec<Shape>, rules: Rules, now: Timestamp) -> Self {
        let moments = vec![Moment { clock: now, tags: BTreeMap::new(), signed: BTreeMap::new() }];
        let gone = BTreeMap::new();
        Self { shapes, moments, rules, gone, calm: 0, troubled: false, dark: None, damaged: false }
    }

    // ---- what happens ----

    /// Something changes at upstream, or the clock moves.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Moment)) {
        let mut moment = self.now().clone();
        change(&mut moment);
        self.moments.push(moment);
    }

    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The mirror has said, while upstream was well, that there is no such tag.
    pub(super) fn refused(&mut self, repository: RepositoryId, tag: TagId) {
        self.gone.insert((repository, tag), self.moments.len() - 1);
    }

    /// What was remembered may be lost.
    pub(super) fn forgets(&mut self) {
        self.gone.clear();
    }

    pub(super) fn trouble(&mut self) {
        self.troubled = true;
    }

    /// Upstream says nothing from now on: what it knows since then nobody can know here.
    pub(super) fn darkness(&mut self) {
        self.troubled = true;
        self.dark.get_or_insert(self.moments.len() - 1);
    }

    /// Upstream speaks again; whether it was silent.
    pub(super) fn light(&mut self) -> bool {
        self.dark.take().is_some()
    }

    pub(super) fn damage(&mut self) {
        self.damaged = true;
    }

    /// Upstream is well, the disk too, and the clock has moved so far that nothing remembered counts any more.
    pub(super) fn calm(&mut self) {
        self.calm = self.moments.len() - 1;
        (self.troubled, self.dark, self.damaged) = (false, None, false);
    }

    // ---- what may and must be ----

    pub(super) fn now(&self) -> &Moment {
        self.moments.last().unwrap()
    }

    pub(super) fn is_troubled(&self) -> bool {
        self.troubled
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// The latest time that the clock has ever shown.
    pub(super) fn latest_clock(&self) -> Timestamp {
        self.moments.iter().map(|moment| moment.clock).max().unwrap()
    }

    /// Whether the tag was there at any moment.
    pub(super) fn was_ever(&self, repository: RepositoryId, tag: TagId) -> bool {
        self.moments.iter().any(|moment| moment.tags.contains_key(&(repository, tag)))
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// Certificates are not judged while the clock lies behind what it has shown.
    pub(super) fn is_clock_behind(&self) -> bool {
        self.rules.policy == Policy::SignedBy(Key::Keyless) && self.now().clock < self.latest_clock()
    }

    /// Whether the tag may be answered with this image.
    pub(super) fn may_name(&self, repository: RepositoryId, tag: TagId, image: ImageId) -> bool {
        let named = |moment: &Moment| moment.tags.get(&(repository, tag)) == Some(&image);
        let life = if self.troubled { TAG_TTL + STALE_IF_ERROR } else { TAG_TTL };
        // A pointer from the future is good enough while upstream is in trouble.
        let counts = |moment: &Moment| {
            self.age(moment).is_some_and(|age| age < life) || (self.troubled && self.age(moment).is_none())
        };
        let from = self.gone.get(&(repository, tag)).copied().unwrap_or(0);
        self.seen().skip(from).any(|moment| named(moment) && counts(moment))
    }

    /// Whether the image is served whatever policy says.
    pub(super) fn is_relaxed(&self, repository: RepositoryId, image: ImageId) -> bool {
        let is_exempt = |(exempt, until)| exempt == image && self.now().clock < until;
        self.rules.audited == Some(repository) || self.rules.exempt.is_some_and(is_exempt)
    }

    /// Whether the rules may allow the image.
    pub(super) fn may_allow(&self, repository: RepositoryId, image: ImageId) -> bool {
        let key = match self.rules.policy {
            _ if self.is_relaxed(repository, image) => return true,
            _ if self.parents(image).any(|parent| self.is_relaxed(repository, parent)) => return true,
            Policy::Anything => return true,
            Policy::Nothing => return false,
            Policy::SignedBy(key) => key,
        };
        // The clock may have been set back since: then it is no older than it looks.
        let is_young =
            |moment: &Moment| self.age(moment).unwrap_or_else(|| moment.clock.since(self.now().clock)) < ALLOW_TTL;
        let counts = |moment: &Moment| self.troubled || is_young(moment);
        let signed =
            |image: ImageId| self.seen().any(|moment| moment.is_signed(repository, image, key) && counts(moment));
        let children = &self.shapes[image].children;
        signed(image)
            || self.parents(image).any(signed)
            || (!children.is_empty() && children.iter().all(|child| signed(*child)))
    }

    /// Whether the blob may be served.
    pub(super) fn may_have(&self, repository: RepositoryId, blob: usize) -> bool {
        self.listing(blob).any(|image| self.may_allow(repository, image))
    }

    /// The image that the tag must be answered with, if there is no excuse.
    pub(super) fn must_name(&self, repository: RepositoryId, tag: TagId) -> Option<ImageId> {
        let image = *self.now().tags.get(&(repository, tag))?;
        let steady = self.since_calm().all(|moment| moment.tags.get(&(repository, tag)) == Some(&image));
        (steady && self.must_allow(repository, image)).then_some(image)
    }

    /// Whether the image must be served by digest.
    pub(super) fn must_allow(&self, repository: RepositoryId, image: ImageId) -> bool {
        let key = match self.rules.policy {
            _ if self.troubled || self.went_back() || self.is_clock_behind() => return false,
            _ if self.is_relaxed(repository, image) => return true,
            Policy::Anything => return true,
            Policy::Nothing => return false,
            Policy::SignedBy(key) => key,
        };
        let signed = |image: ImageId| self.since_calm().all(|moment| moment.is_signed(repository, image, key));
        let children = &self.shapes[image].children;
        signed(image) || (!children.is_empty() && children.iter().all(|child| signed(*child)))
    }

    /// Whether the clock shows times again at which something else may have been true.
    fn went_back(&self) -> bool {
        self.since_calm().any(|moment| moment.clock < self.moments[self.calm].clock)
    }

    /// The moments that can be known here.
    fn seen(&self) -> impl Iterator<Item = &Moment> {
        self.moments[..=self.dark.unwrap_or(self.moments.len() - 1)].iter()
    }

    fn since_calm(&self) -> impl Iterator<Item = &Moment> {
        self.moments[self.calm..].iter()
    }

    /// `None`: it lies in the future, since the clock was set back.
    fn age(&self, moment: &Moment) -> Option<Duration> {
        (moment.clock <= self.now().clock).then(|| self.now().clock.since(moment.clock))
    }

    fn parents(&self, child: ImageId) -> impl Iterator<Item = ImageId> {
        (0..self.shapes.len()).filter(move |image| self.shapes[*image].children.contains(&child))
    }

    fn listing(&self, blob: usize) -> impl Iterator<Item = ImageId> {
        (0..self.shapes.len()).filter(move |image| self.shapes[*image].blobs.contains(&blob))
    }
}
