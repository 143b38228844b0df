//! Discovery against a registry over TCP: each place, each way in which it can fail, each bound.

mod bounds;
mod conformance;
mod faults;
mod places;
mod stored;
mod time;

use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::limits::{
    CANDIDATES_MAX, INDEX_CHILDREN_MAX, MATERIAL_IN_FLIGHT_BYTES_MAX, MATERIAL_UNCOUNTED_BYTES, REFERRERS_PAGES_MAX,
    SIGNATURE_BYTES_MAX,
};
use crate::oci::Tag;
use crate::policy::{
    AlternateSource, ContainersPolicy, ContainersPolicyDocument, MaterialKind, PolicySet, Settings as PolicySettings,
};
use crate::pull::room::Level;
use crate::pull::verdict::Depth;
use crate::pull::{Snapshot, Source, TagRules, VerdictTtl};
use crate::store::{Settings, Store};
use crate::telemetry::Telemetry;
use crate::testing::{
    BUNDLE_TYPE, BuiltImage, Content, EMPTY_TYPE, FakeRegistry, Fault, ImageBuilder, Referrers, attach_spam,
    put_fallback_index,
};
use crate::upstream::Upstream;
use crate::verify::{Place, Source as MaterialSource};

const HOST: &str = "registry.test";
const REPOSITORY: &str = "team/app";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
const LIFE: Duration = Duration::from_mins(1);

/// An image in a registry, and a puller that looks for its signatures.
struct Bench {
    registry: FakeRegistry,
    clock: ManualClock,
    store: Store,
    puller: Puller,
    subject: Content,
}

impl Bench {
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        let clock = ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000));
        let settings = Settings { data_dir: None, max_bytes: 1 << 30, min_free_bytes: 0 };
        let store = Store::open(settings, Clock::Manual(clock.clone()), Telemetry::default()).await.unwrap();
        let image = ImageBuilder::new(1).layer(100).build();
        registry.put(REPOSITORY, "1", &image);
        let puller = puller(&registry, &store, &clock);
        Self { registry, clock, store, puller, subject: image.manifest }
    }

    /// As after a restart: the same store, nothing else.
    fn restart(mut self) -> Self {
        self.puller = puller(&self.registry, &self.store, &self.clock);
        self
    }

    async fn find(&self, kinds: &[MaterialKind]) -> Arc<Discovered> {
        self.find_wanted(&wanted(kinds), Duration::from_mins(1)).await
    }

    async fn find_wanted(&self, wanted: &Wanted, budget: Duration) -> Arc<Discovered> {
        self.hold(wanted, budget).await.found
    }

    async fn hold(&self, wanted: &Wanted, budget: Duration) -> Held {
        let since = self.clock.now().minus(LIFE);
        let deadline = Instant::now() + budget;
        self.puller
            .discover(
                &repository(REPOSITORY),
                &self.subject.digest,
                wanted,
                since,
                (Level::Verdict(Depth::TOP), deadline),
            )
            .await
    }

    async fn stored(&self, kinds: &[MaterialKind]) -> Option<Material> {
        stored_material(&self.store, &repository(REPOSITORY), &self.subject.digest, &wanted(kinds)).await
    }

    async fn keep(&self, found: &Discovered) {
        self.puller.keep_material(&self.subject.digest, found, Keeping::Allow).await;
    }

    fn tag(&self, suffix: &str) -> String {
        format!("sha256-{}{suffix}", self.subject.digest.hex())
    }

    fn put_tagged(&self, suffix: &str, image: &BuiltImage) {
        self.registry.put(REPOSITORY, &self.tag(suffix), image);
    }

    fn put_signatures(&self, payloads: &[&str]) {
        self.put_tagged(".sig", &layered(SIMPLE_SIGNING, payloads).build());
    }

    fn put_attestations(&self, envelopes: &[&str]) {
        self.put_tagged(".att", &layered(DSSE, envelopes).build());
    }

    /// A bundle as cosign v3 attaches it.
    fn put_bundle(&self, content: &str) -> Digest {
        let bundle = layered(BUNDLE_TYPE, &[content]).subject(self.subject.descriptor()).build();
        self.registry.put_untagged(REPOSITORY, &bundle);
        bundle.digest()
    }

    fn put_bundles(&self, count: usize) {
        for number in 0..count {
            self.put_bundle(&format!("bundle {number}"));
        }
    }

    fn asked(&self, path: &str) -> usize {
        self.registry.count("GET", path)
    }
}

fn puller(registry: &FakeRegistry, store: &Store, clock: &ManualClock) -> Puller {
    let source = Source {
        host: HOST.parse().unwrap(),
        upstream: Upstream::new(registry.settings(HOST), Telemetry::default()).unwrap(),
        tags: TagRules::of(LIFE, LIFE),
    };
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot()));
    let clock = Clock::Manual(clock.clone());
    Puller::new(vec![source], store.clone(), snapshot, clock, Telemetry::default(), TaskTracker::new())
}

fn snapshot() -> Snapshot {
    let document = ContainersPolicyDocument::parse(crate::testing::ACCEPT_ANYTHING.as_bytes()).unwrap();
    let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
    let policy = PolicySet::new(PolicySettings { containers_policy: Some(policy), ..PolicySettings::default() });
    let verdict_ttl = VerdictTtl { allow: LIFE, deny: LIFE };
    Snapshot { policy: policy.unwrap(), trust_root: Digest::sha256(b"no root"), verdict_ttl }
}

fn repository(name: &str) -> Repository {
    Repository::new(HOST.parse().unwrap(), name.parse().unwrap()).unwrap()
}

fn wanted(kinds: &[MaterialKind]) -> Wanted {
    Wanted { kinds: kinds.iter().copied().collect(), ..Wanted::default() }
}

fn layered(media_type: &str, contents: &[&str]) -> ImageBuilder {
    let artefact = ImageBuilder::artefact(media_type);
    contents.iter().fold(artefact, |artefact, content| artefact.layer_of(media_type, content.to_string(), &[]))
}

/// What was found, in order.
fn contents(material: &Material) -> Vec<&str> {
    material.candidates.iter().map(|candidate| std::str::from_utf8(candidate.bytes()).unwrap()).collect()
}

/// Where it was found, without the digests.
fn places(material: &Material) -> Vec<(&'static str, Option<String>, usize)> {
    let place = |source: &MaterialSource| source.repository.as_ref().map(ToString::to_string);
    let candidates = material.candidates.iter();
    candidates.map(|found| (found.format(), place(found.source()), found.source().layer)).collect()
}

fn is_clean(found: &Discovered) -> bool {
    found.missing.is_none() && found.material.skipped.is_empty() && !found.material.more
}

use MaterialKind::{Attestations, Bundles, Signatures};
const ALL: [MaterialKind; 3] = [Signatures, Attestations, Bundles];
