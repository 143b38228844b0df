//! One seed: what happens, what is asked, and the comparison with the model.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{join, join_all};
use sealgate::clock::{Clock, ManualClock, Timestamp};
use sealgate::oci::Digest;
use sealgate::testing::{Fault, TestSealgate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::Counts;
use super::disk::Disk;
use super::model::{ImageId, Key, Model, Policy, RepositoryId, Rules, TAG_TTL, TagId};
use super::request::{Ask, Range, Request, ask, words};
use super::world::{self, REPOSITORIES, TAGS, Trouble, Upstream, catalogue};
use crate::random::Random;

/// What happened in a run.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) counts: Counts,
    pub(super) steps: Vec<String>,
    pub(super) wrong: Option<String>,
}

impl Run {
    pub(super) fn last_steps(&self) -> String {
        self.steps[self.steps.len().saturating_sub(25)..].join("\n")
    }
}

/// Steps of a run.
const STEPS: usize = 50;
/// How often the driver looks whether anything goes on, in real time.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without an answer after which time is moved, while upstream is in trouble.
const PATIENCE_IN_TROUBLE: usize = 6;
/// Ticks without an answer after which a healthy mirror counts as stalled: far more than a busy machine needs.
const PATIENCE: usize = 30_000;

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", text.unwrap_or("of unknown text"))
}

/// The keys at an image's tag of signatures, and its bundle: by whom, and the digest of its manifest.
type Signatures = (Vec<Key>, Option<(Key, Digest)>);

/// A mirror in its world, and the model of it.
pub(super) struct Simulation<'a> {
    pub(super) random: Random,
    pub(super) model: Model,
    pub(super) upstream: Upstream,
    pub(super) mirror: Option<TestSealgate>,
    pub(super) disk: Disk,
    pub(super) clock: ManualClock,
    /// What is broken, and at which endpoint alone.
    pub(super) faults: Vec<(Option<usize>, Fault)>,
    /// Keys at the tag of signatures, and bundles with their key.
    pub(super) signatures: BTreeMap<(RepositoryId, ImageId), Signatures>,
    pub(super) tick: Arc<Notify>,
    pub(super) run: &'a Mutex<Run>,
}

/// Runs a seed. Stops at the first answer that the model does not allow.
pub(super) async fn simulate(seed: u64, run: &Mutex<Run>) -> Result<(), String> {
    let tick = Arc::new(Notify::new());
    let ticking = Arc::clone(&tick);
    // While this runs, the runtime does not move time by itself.
    let ticker = tokio::task::spawn_blocking(move || {
        while Arc::strong_count(&ticking) > 1 {
            std::thread::sleep(TICK);
            ticking.notify_one();
        }
    });
    let mut random = Random::new(seed);
    let by = |key| Policy::SignedBy(key);
    let policy = *random.one_of(&[by(Key::A), by(Key::A), by(Key::A), by(Key::Keyless), Policy::Anything]);
    let rules = Rules { policy, audited: None, exempt: None };
    let endpoints = 1 + random.below(2);
    let clock = ManualClock::at(Clock::System.now());
    let (upstream, mirror) = world::start(rules, endpoints, &clock).await;
    let model = Model::new(catalogue().shapes.clone(), rules, clock.now());
    let (faults, signatures) = (Vec::new(), BTreeMap::new());
    let disk = Disk::below(&mirror.dir().join("data"));
    let mut simulation =
        Simulation { random, model, upstream, mirror: Some(mirror), disk, clock, faults, signatures, tick, run };
    let mut outcome = simulation.all_steps().await;
    let mirror = simulation.mirror.take().unwrap();
    if outcome.is_ok() {
        outcome = simulation.drive(mirror.stop()).await;
    } else {
        // What is wrong is known; the rest of the mirror goes with the runtime.
        std::mem::forget(mirror);
    }
    drop(simulation);
    ticker.await.unwrap();
    outcome
}

impl Simulation<'_> {
    async fn all_steps(&mut self) -> Result<(), String> {
        for tag in 0..TAGS.len() - 1 {
            self.move_tag(0, tag);
        }
        for image in 0..catalogue().images.len() {
            self.sign(0, image);
        }
        for _ in 0..STEPS {
            self.step().await?;
        }
        self.calm().await
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..41 => self.clients().await?,
            41..45 => self.client_that_leaves().await?,
            45..53 => self.trouble().await?,
            53..57 => self.disk_trouble().await?,
            57..62 => self.change(),
            62..64 => self.withdrawal().await?,
            64..72 => self.move_clock(),
            72..77 => self.reload().await?,
            77..80 => self.restart().await?,
            80..83 => self.kill().await?,
            83..87 => self.damage(),
            87..92 => self.change_under_way().await?,
            92..95 => self.reload_under_way().await?,
            _ => self.calm().await?,
        }
        Ok(())
    }

    // ---- clients ----

    pub(super) async fn clients(&mut self) -> Result<(), String> {
        let count = 1 + self.random.below(4);
        self.note("clients at once", "");
        let requests: Vec<Request> = (0..count).map(|_| self.request()).collect();
        let address = self.address();
        let answers = self.drive(join_all(requests.iter().map(|request| ask(address, *request)))).await?;
        requests.iter().zip(&answers).try_for_each(|(request, answer)| self.check(*request, answer.as_ref()))
    }

    async fn client_that_leaves(&mut self) -> Result<(), String> {
        let request = self.request();
        let bytes = *self.random.one_of(&[0, 1, 1000, 30_000]);
        self.note("a client that leaves", &format!("{request:?} after {bytes} bytes"));
        let address = self.address();
        self.drive(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (method, target, headers) = words(request);
            let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let text = format!("{method} {target} HTTP/1.1\r\nHost: mirror\r\n{}\r\n", headers.concat());
            stream.write_all(text.as_bytes()).await.unwrap();
            if bytes > 0 {
                drop(stream.read(&mut vec![0; bytes]).await);
            }
        })
        .await
    }

    /// Mostly for what is there: a refusal says little.
    pub(super) fn request(&mut self) -> Request {
        let repository = usize::from(self.random.percent(15));
        let image = self.random.below(catalogue().images.len());
        let ask = match self.random.below(20) {
            0..6 => Ask::Tag(repository, self.tag(repository)),
            6..10 => Ask::Image(repository, image),
            10..17 => {
                let blob = self.blob(repository);
                Ask::Blob(repository, blob, self.range(catalogue().blobs[blob].1.len()))
            }
            17 => Ask::Referrers(repository, image),
            18 => Ask::Tags(repository),
            _ => Ask::Signatures(repository, image),
        };
        // A HEAD is about the whole (RFC 9110, 14.2), and lists are only read.
        let whole = matches!(ask, Ask::Tag(..) | Ask::Image(..) | Ask::Blob(_, _, Range::Whole) | Ask::Signatures(..));
        let head = whole && self.random.percent(20);
        let known = if self.random.percent(20) { self.known(ask) } else { None };
        Request { ask, head, known }
    }

    /// What a client may have of it already: that very thing, or another.
    fn known(&mut self, ask: Ask) -> Option<Digest> {
        let image = match ask {
            Ask::Image(_, image) if self.random.percent(70) => image,
            Ask::Tag(repository, tag) if self.random.percent(70) => {
                self.model.now().tags.get(&(repository, tag)).copied().unwrap_or(0)
            }
            Ask::Image(..) | Ask::Tag(..) => self.random.below(catalogue().images.len()),
            Ask::Blob(_, blob, Range::Whole) => return Some(catalogue().blobs[blob].0),
            _ => return None,
        };
        Some(catalogue().images[image].digest())
    }

    fn tag(&mut self, repository: RepositoryId) -> TagId {
        let there: Vec<TagId> =
            self.model.now().tags.keys().filter(|(of, _)| *of == repository).map(|(_, tag)| *tag).collect();
        if there.is_empty() || self.random.percent(20) {
            self.random.below(TAGS.len())
        } else {
            *self.random.one_of(&there)
        }
    }

    fn blob(&mut self, repository: RepositoryId) -> usize {
        let all = 0..catalogue().blobs.len();
        let there: Vec<usize> = all.clone().filter(|blob| self.model.may_have(repository, *blob)).collect();
        if there.is_empty() || self.random.percent(20) {
            self.random.below(all.len())
        } else {
            *self.random.one_of(&there)
        }
    }

    fn range(&mut self, size: usize) -> Range {
        match self.random.below(6) {
            0..4 => Range::Whole,
            4 => {
                let first = self.random.below(size);
                Range::Part(first, first + self.random.below(size - first))
            }
            _ => Range::Last(1 + self.random.below(size)),
        }
    }

    // ---- what happens ----

    /// Upstream fails, and clients ask at once; or first after a while, in which what is remembered grows old.
    async fn trouble(&mut self) -> Result<(), String> {
        self.begin_trouble();
        if self.random.percent(40) {
            self.move_clock();
        }
        self.clients().await?;
        self.clients().await
    }

    /// A tag is served, then removed, asked for and refused; when upstream is down later, nothing brings it back.
    async fn withdrawal(&mut self) -> Result<(), String> {
        let (repository, tag) = (0, self.tag(0));
        let request = Request::get(Ask::Tag(repository, tag));
        self.note("a withdrawal", &format!("{}:{}", REPOSITORIES[repository], TAGS[tag]));
        self.status(request).await?;
        self.remove_tag(repository, tag);
        self.advance(TAG_TTL);
        self.status(request).await?;
        self.advance(TAG_TTL);
        let darkness = world::darkness(&mut self.random);
        self.begin(darkness);
        self.status(request).await?;
        Ok(())
    }

    /// Upstream fails in one way more; the first fault that fits a request applies to it.
    fn begin_trouble(&mut self) {
        let trouble = world::trouble(&mut self.random, self.upstream.endpoints.len());
        self.begin(trouble);
    }

    fn begin(&mut self, trouble: Trouble) {
        self.count(format!("fault: {}", trouble.name));
        self.say(format!("fault: {}", trouble.text));
        if trouble.dark {
            self.upstream.heal();
            self.faults.clear();
        }
        self.count(format!(
            "endpoints: {} of {}",
            trouble.only.map_or("all", |_| "one"),
            self.upstream.endpoints.len()
        ));
        self.upstream.fault(trouble.only, &trouble.fault);
        self.faults.push((trouble.only, trouble.fault));
        if trouble.dark { self.model.darkness() } else { self.model.trouble() }
    }

    pub(super) fn move_clock(&mut self) {
        let on = [1, 9, 11, 59, 61, 600, 3500, 3700, 10_000, 200_000];
        if self.random.percent(15) {
            let seconds = *self.random.one_of(&[1, 10, 100, 86_400]);
            self.note("the clock goes back", &format!("{seconds} s"));
            self.clock.set(self.clock.now().minus(Duration::from_secs(seconds)));
        } else {
            let seconds = *self.random.one_of(&on);
            self.note("the clock goes on", &format!("{seconds} s"));
            self.clock.advance(Duration::from_secs(seconds));
        }
        self.model_clock();
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.clock.advance(time);
        self.model_clock();
    }

    fn model_clock(&mut self) {
        let now = self.clock.now();
        self.model.change(|moment| moment.clock = now);
    }

    // ---- the mirror ----

    async fn reload(&mut self) -> Result<(), String> {
        if self.random.percent(20) {
            self.note("a bad reload", "");
            self.mirror().write_policy("{\"default\": [{\"type\": \"insecureAcceptAnythin\"}]}");
            if self.drive(self.mirror().reload()).await?.is_ok() {
                return Err("a bad policy was put in force".to_owned());
            }
            world::write_rules(self.mirror(), self.model.rules());
            return Ok(());
        }
        let rules = self.some_rules();
        self.note("a reload", &format!("{rules:?}"));
        world::write_rules(self.mirror(), rules);
        self.drive(self.mirror().reload()).await?.map_err(|error| format!("the reload fails: {error}"))?;
        self.model.set_rules(rules);
        Ok(())
    }

    fn some_rules(&mut self) -> Rules {
        let audited = if self.random.percent(25) { Some(self.random.below(REPOSITORIES.len())) } else { None };
        let life = Duration::from_secs(*self.random.one_of(&[60, 7200, 1_000_000]));
        let until = Timestamp::from_unix_seconds(self.clock.now().plus(life).unix_seconds());
        let exempt =
            if self.random.percent(30) { Some((self.random.below(catalogue().images.len()), until)) } else { None };
        for (what, is) in [("audit", audited.is_some()), ("an exemption", exempt.is_some())] {
            if is {
                self.count(format!("step: {what}"));
            }
        }
        let policies = [
            Policy::SignedBy(Key::A),
            Policy::SignedBy(Key::A),
            Policy::SignedBy(Key::B),
            Policy::SignedBy(Key::Keyless),
            Policy::Anything,
            Policy::Nothing,
        ];
        Rules { policy: *self.random.one_of(&policies), audited, exempt }
    }

    async fn change_under_way(&mut self) -> Result<(), String> {
        self.note("a change under way", "");
        let requests = [self.request(), self.request()];
        let address = self.address();
        let later = self.random.below(4);
        let asking = join_all(requests.iter().map(|request| ask(address, *request)));
        let tick = Arc::clone(&self.tick);
        let mut asking = Box::pin(asking);
        for _ in 0..later {
            // The clients get on for a while before the change.
            tokio::select! {
                biased;
                answers = &mut asking => {
                    self.change();
                    return requests.iter().zip(&answers).try_for_each(|(one, answer)| self.check(*one, answer.as_ref()));
                }
                () = tick.notified() => {}
            }
        }
        self.change();
        let answers = self.drive(asking).await?;
        requests.iter().zip(&answers).try_for_each(|(request, answer)| self.check(*request, answer.as_ref()))
    }

    async fn reload_under_way(&mut self) -> Result<(), String> {
        let (before, rules) = (self.model.rules(), self.some_rules());
        self.note("a reload under way", &format!("{rules:?}"));
        let requests = [self.request(), self.request()];
        let address = self.address();
        world::write_rules(self.mirror(), rules);
        let asking = join_all(requests.iter().map(|request| ask(address, *request)));
        let (answers, reloaded) = self.drive(join(asking, self.mirror().reload())).await?;
        reloaded.map_err(|error| format!("the reload fails: {error}"))?;
        for (request, answer) in requests.iter().zip(&answers) {
            // Each answer follows from the rules before or after.
            self.model.set_rules(before);
            let by_the_old = self.check(*request, answer.as_ref());
            self.model.set_rules(rules);
            by_the_old.or_else(|_| self.check(*request, answer.as_ref()))?;
        }
        self.model.set_rules(rules);
        Ok(())
    }

    // ---- time ----

    /// Waits for what runs on its own: every time limit of an upstream call passes.
    pub(super) async fn settle(&self) {
        for _ in 0..14 {
            tokio::time::advance(Duration::from_secs(31)).await;
            self.tick.notified().await;
        }
    }

    /// Runs to the end. Time is moved only while upstream is in trouble; else nothing has to wait for it.
    pub(super) async fn drive<F: Future>(&self, work: F) -> Result<F::Output, String> {
        self.run_to_end(work, self.model.is_troubled()).await
    }

    pub(super) async fn run_to_end<F: Future>(&self, work: F, move_time: bool) -> Result<F::Output, String> {
        let mut work = std::pin::pin!(work);
        for ticks in 0.. {
            tokio::select! {
                biased;
                output = &mut work => return Ok(output),
                () = self.tick.notified() => {}
            }
            if move_time && ticks > PATIENCE_IN_TROUBLE {
                let step = if ticks < 40 { Duration::from_millis(500) } else { Duration::from_secs(5) };
                tokio::time::advance(step).await;
            }
            if ticks > PATIENCE {
                break;
            }
        }
        Err("nothing goes on any more".to_owned())
    }

    pub(super) fn note(&self, step: &str, more: &str) {
        self.count(format!("step: {step}"));
        self.say(format!("{step}: {more}"));
    }

    pub(super) fn count(&self, what: String) {
        self.count_many(what, 1);
    }

    pub(super) fn count_many(&self, what: String, times: u64) {
        *self.run.lock().unwrap().counts.entry(what).or_default() += times;
    }

    pub(super) fn say(&self, text: String) {
        self.run.lock().unwrap().steps.push(text);
    }

    pub(super) fn mirror(&self) -> &TestSealgate {
        self.mirror.as_ref().unwrap()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.mirror().address()
    }
}
