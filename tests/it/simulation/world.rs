//! What the simulated mirror lives in: images, signers, a registry that can be made to fail, and the mirror itself.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use sealgate::clock::{Clock, ManualClock};
use sealgate::oci::Digest;
use sealgate::testing::sigstore::{FakeKey, FakeSigstore, Flaw, key_requirement};
use sealgate::testing::{
    ACCEPT_ANYTHING, BuiltImage, FakeRegistry, Fault, ImageBuilder, REJECT, TestSealgate, attach_bundles,
    attach_signatures, pseudo_random,
};
use serde_json::json;

use super::model::{ALLOW_TTL, DENY_TTL, ImageId, Key, Policy, RepositoryId, STALE_IF_ERROR, Shape, TAG_TTL};
use crate::random::Random;

pub(super) const REPOSITORIES: [&str; 2] = ["team/app", "team/other"];
pub(super) const TAGS: [&str; 4] = ["1.0", "latest", "edge", "never"];

/// Less than all blobs together, so that some are evicted.
const CACHE_BYTES: u64 = 130 * 1024;

/// All images and blobs that there are; every upstream has them all, and only tags and signatures come and go.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) images: Vec<BuiltImage>,
    pub(super) blobs: Vec<(Digest, Bytes)>,
    pub(super) shapes: Vec<Shape>,
    sigstore: FakeSigstore,
    keys: [FakeKey; 2],
}

pub(super) fn catalogue() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
        let shared = pseudo_random(77, 120_000);
        let small = ImageBuilder::new(1).layer(1000).build();
        let large = ImageBuilder::new(2).layer(70_000).layer_of(LAYER, shared.clone(), &[]).build();
        let sharing = ImageBuilder::new(3).layer_of(LAYER, shared, &[]).layer(300).build();
        let amd = ImageBuilder::new(4).platform("linux", "amd64").layer(66_000).build();
        let arm = ImageBuilder::new(5).platform("linux", "arm64").layer(10).build();
        let index = ImageBuilder::index([amd.clone(), arm.clone()]).build();
        let images = vec![small, large, sharing, amd, arm, index];
        let mut blobs: Vec<(Digest, Bytes)> = Vec::new();
        for blob in images.iter().flat_map(|image| &image.blobs) {
            if !blobs.iter().any(|(digest, _)| *digest == blob.digest) {
                blobs.push((blob.digest, blob.bytes.clone()));
            }
        }
        let place = |digest: &Digest| images.iter().position(|image| image.digest() == *digest).unwrap();
        let number = |digest: &Digest| blobs.iter().position(|(known, _)| known == digest).unwrap();
        let shapes = images
            .iter()
            .map(|image| Shape {
                children: image.children.iter().map(|child| place(&child.digest())).collect(),
                blobs: image.blobs.iter().map(|blob| number(&blob.digest)).collect(),
            })
            .collect();
        let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
        let keys = [sigstore.key("a"), sigstore.key("b")];
        Catalogue { images, blobs, shapes, sigstore, keys }
    })
}

impl Catalogue {
    fn key(&self, key: Key) -> &FakeKey {
        match key {
            Key::A => &self.keys[0],
            Key::B => &self.keys[1],
        }
    }

    pub(super) fn policy_json(&self, policy: Policy) -> String {
        match policy {
            Policy::Anything => ACCEPT_ANYTHING.to_owned(),
            Policy::Nothing => REJECT.to_owned(),
            Policy::SignedBy(key) => json!({"default": [key_requirement(self.key(key))]}).to_string(),
        }
    }

    /// The tag `sha256-<hex>.sig` holds signatures by these keys; none: there is no such tag.
    pub(super) fn sign(&self, registry: &FakeRegistry, repository: RepositoryId, image: ImageId, keys: &[Key]) {
        let (name, digest) = (REPOSITORIES[repository], self.images[image].digest());
        if keys.is_empty() {
            registry.untag(name, &format!("sha256-{}.sig", digest.hex()));
            return;
        }
        let reference = format!("registry.test/{name}");
        let sign = |key: &Key| self.sigstore.sign_unlogged(self.key(*key), &reference, &digest, Flaw::None);
        attach_signatures(registry, name, &digest, &keys.iter().map(sign).collect::<Vec<_>>());
    }

    /// Attaches a bundle; returns the digest of its manifest.
    pub(super) fn bundle(&self, registry: &FakeRegistry, repository: RepositoryId, image: ImageId, key: Key) -> Digest {
        let manifest = &self.images[image].manifest;
        let bundle = self.sigstore.bundle_keyed(self.key(key), &manifest.digest).unlogged().build();
        attach_bundles(registry, REPOSITORIES[repository], manifest, &[bundle])[0]
    }
}

/// A registry with all images, no tags and no signatures, and a mirror in front of it.
pub(super) async fn start(policy: Policy, clock: &ManualClock) -> (FakeRegistry, TestSealgate) {
    let registry = FakeRegistry::start().await;
    let catalogue = catalogue();
    for (repository, image) in REPOSITORIES.iter().flat_map(|name| catalogue.images.iter().map(move |one| (name, one)))
    {
        registry.put_untagged(repository, image);
    }
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let freshness = format!("tag_ttl = \"{}\"\nstale_if_error = \"{}\"", seconds(TAG_TTL), seconds(STALE_IF_ERROR));
    let mirror = TestSealgate::with_policy(&catalogue.policy_json(policy))
        .upstream_with("registry.test", registry.url(), &freshness)
        .set("verdicts.allow_ttl", seconds(ALLOW_TTL))
        .set("verdicts.deny_ttl", seconds(DENY_TTL))
        .adjust(|loaded| loaded.config.store.max_bytes = CACHE_BYTES)
        .toml("[[policy.override]]\nscope = \"registry.test\"\nbundles_without_identity = true\n")
        .clock(clock)
        .start()
        .await;
    (registry, mirror)
}

/// What upstream can be made to do, by name.
pub(super) const FAULTS: [&str; 20] = [
    "404",
    "401",
    "403",
    "429",
    "500",
    "503",
    "503 with a time",
    "wrong bytes",
    "another manifest",
    "wrong digest",
    "a page in HTML",
    "darkness",
    "reset",
    "silence",
    "truncated",
    "reset on the way",
    "silence on the way",
    "slow",
    "late",
    "chunked",
];

/// One of them, on some of the requests.
pub(super) struct Trouble {
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) fault: Fault,
    /// From now on upstream says nothing at all.
    pub(super) dark: bool,
}

pub(super) fn trouble(random: &mut Random) -> Trouble {
    // What brings wrong answers comes more often than what brings none.
    let name = match random.below(10) {
        0..3 => *random.one_of(&["wrong bytes", "wrong bytes", "another manifest", "truncated", "silence on the way"]),
        3 => "darkness",
        _ => *random.one_of(&FAULTS),
    };
    if name == "darkness" {
        let all = Fault::on("*");
        let how = *random.one_of(&["500", "503 with a time", "429", "reset", "silence"]);
        let fault = match how {
            "500" => all.status(500),
            "503 with a time" => all.status(503).header("retry-after", "30"),
            "429" => all.status(429).header("retry-after", "30"),
            "reset" => all.reset(),
            _ => all.hang(),
        };
        return Trouble { name, text: format!("{name}: {how}"), fault, dark: true };
    }
    let paths = ["*", "*/manifests/*", "*/blobs/*", "*/blobs/*", "*/referrers/*", "*.sig", "*/manifests/latest"];
    let path = if name == "another manifest" { "*/manifests/sha256:*" } else { *random.one_of(&paths) };
    let bytes = *random.one_of(&[0, 1, 100, 5000, 65_000, 69_999]);
    let fault = Fault::on(path);
    let mut fault = match name {
        "404" => fault.status(404),
        "401" => fault.status(401),
        "403" => fault.status(403),
        "429" => fault.status(429).header("retry-after", "30"),
        "500" => fault.status(500),
        "503" => fault.status(503),
        "503 with a time" => fault.status(503).header("retry-after", "30"),
        "wrong bytes" => fault.get().wrong_bytes(),
        "another manifest" => {
            let other = &catalogue().images[random.below(catalogue().images.len())].manifest;
            let fault = fault.get().body(other.bytes.clone()).content_type(&other.media_type);
            fault.without_header("docker-content-digest")
        }
        "wrong digest" => fault.set_header("docker-content-digest", &Digest::sha256(b"nothing").to_string()),
        "a page in HTML" => fault.get().body("<html></html>").content_type("text/html"),
        "reset" => fault.reset(),
        "silence" => fault.hang(),
        "truncated" => fault.get().truncate(bytes),
        "reset on the way" => fault.get().reset_after(bytes),
        "silence on the way" => fault.get().hang_after(bytes),
        "slow" => fault.get().drip(16 * 1024, Duration::from_millis(100)),
        "late" => fault.delay(Duration::from_secs(3)),
        _ => fault.get().chunked(),
    };
    let mut text = format!("{name} on {path}");
    if random.percent(40) {
        let times = 1 + random.below(3);
        fault = fault.times(times);
        text = format!("{text}, {times} times");
    }
    Trouble { name, text, fault, dark: false }
}
