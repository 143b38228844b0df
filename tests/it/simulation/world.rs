//! What the simulated mirror lives in: images, signers, a registry that can be made to fail, and the mirror itself.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use sealgate::clock::{Clock, ManualClock};
use sealgate::oci::Digest;
use sealgate::testing::sigstore::{FakeKey, FakeSignature, FakeSigstore, Flaw, key_requirement};
use sealgate::testing::{
    ACCEPT_ANYTHING, BuiltImage, FakeRegistry, Fault, ImageBuilder, REJECT, TestSealgate, attach_bundles,
    attach_signatures, pseudo_random,
};
use serde_json::json;

use super::model::{ALLOW_TTL, DENY_TTL, ImageId, Key, Policy, RepositoryId, Rules, STALE_IF_ERROR, Shape, TAG_TTL};
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
    fn key(&self, key: Key) -> Option<&FakeKey> {
        match key {
            Key::A => Some(&self.keys[0]),
            Key::B => Some(&self.keys[1]),
            Key::Keyless => None,
        }
    }

    pub(super) fn policy_json(&self, policy: Policy) -> String {
        let signed = match policy {
            Policy::Anything => return ACCEPT_ANYTHING.to_owned(),
            Policy::Nothing => return REJECT.to_owned(),
            Policy::SignedBy(key) => key,
        };
        let keyless = || self.sigstore.fulcio_requirement(SIGNER, ISSUER);
        json!({"default": [self.key(signed).map_or_else(keyless, key_requirement)]}).to_string()
    }

    fn signature(&self, reference: &str, digest: &Digest, by: Key) -> FakeSignature {
        match self.key(by) {
            Some(key) => self.sigstore.sign_unlogged(key, reference, digest, Flaw::None),
            None => self.sigstore.sign_keyless(reference, digest, SIGNER, ISSUER, Flaw::None),
        }
    }

    /// The tag `sha256-<hex>.sig` holds signatures by these; none: there is no such tag.
    pub(super) fn sign(&self, upstream: &Upstream, repository: RepositoryId, image: ImageId, keys: &[Key]) {
        let (name, digest) = (REPOSITORIES[repository], self.images[image].digest());
        let reference = format!("registry.test/{name}");
        let signatures: Vec<_> = keys.iter().map(|key| self.signature(&reference, &digest, *key)).collect();
        upstream.change(|registry| {
            if signatures.is_empty() {
                registry.untag(name, &format!("sha256-{}.sig", digest.hex()));
            } else {
                attach_signatures(registry, name, &digest, &signatures);
            }
        });
    }

    /// Attaches a bundle by a key; returns the digest of its manifest.
    pub(super) fn bundle(&self, upstream: &Upstream, repository: RepositoryId, image: ImageId, key: Key) -> Digest {
        let manifest = &self.images[image].manifest;
        let bundle = self.sigstore.bundle_keyed(self.key(key).unwrap(), &manifest.digest).unlogged().build();
        let attached = std::cell::Cell::new(None);
        upstream.change(|registry| {
            let manifests = attach_bundles(registry, REPOSITORIES[repository], manifest, std::slice::from_ref(&bundle));
            attached.set(Some(manifests[0]));
        });
        attached.get().unwrap()
    }
}

/// Upstream's endpoints, one or two, with the same content.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) endpoints: Vec<FakeRegistry>,
}

impl Upstream {
    /// With all images, no tags and no signatures.
    async fn start(endpoints: usize) -> Self {
        let mut upstream = Self { endpoints: Vec::new() };
        for _ in 0..endpoints {
            upstream.endpoints.push(FakeRegistry::start().await);
        }
        for image in &catalogue().images {
            upstream.change(|registry| REPOSITORIES.iter().for_each(|name| registry.put_untagged(name, image)));
        }
        upstream
    }

    /// Changes what is there.
    pub(super) fn change(&self, change: impl Fn(&FakeRegistry)) {
        self.endpoints.iter().for_each(change);
    }

    /// Breaks one endpoint, or all.
    pub(super) fn fault(&self, only: Option<usize>, fault: &Fault) {
        let hit = self.endpoints.iter().enumerate().filter(|(number, _)| only.is_none_or(|only| only == *number));
        hit.for_each(|(_, registry)| registry.fault(fault.clone()));
    }

    pub(super) fn heal(&self) {
        self.endpoints.iter().for_each(FakeRegistry::heal);
    }
}

/// An upstream of so many endpoints, and a mirror in front of it.
pub(super) async fn start(rules: Rules, endpoints: usize, clock: &ManualClock) -> (Upstream, TestSealgate) {
    let upstream = Upstream::start(endpoints).await;
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let mut keys = format!("tag_ttl = \"{}\"\nstale_if_error = \"{}\"\n", seconds(TAG_TTL), seconds(STALE_IF_ERROR));
    for fallback in &upstream.endpoints[1..] {
        writeln!(keys, "[[fallback]]\nendpoint = \"{}\"", fallback.url()).unwrap();
    }
    let mirror = TestSealgate::with_policy(&catalogue().policy_json(rules.policy))
        .upstream_with("registry.test", upstream.endpoints[0].url(), &keys)
        .set("verdicts.allow_ttl", seconds(ALLOW_TTL))
        .set("verdicts.deny_ttl", seconds(DENY_TTL))
        .adjust(|loaded| loaded.config.store.max_bytes = CACHE_BYTES)
        .toml(OVERRIDE)
        .clock(clock)
        .start()
        .await;
    (upstream, mirror)
}

/// Writes what is to be in force; a reload puts it there.
pub(super) fn write_rules(mirror: &TestSealgate, rules: Rules) {
    mirror.write_policy(&catalogue().policy_json(rules.policy));
    let file = mirror.dir().join("sealgate.toml");
    let mut config: toml::Table = std::fs::read_to_string(file).unwrap().parse().unwrap();
    let mut more = OVERRIDE.to_owned();
    if let Some(repository) = rules.audited {
        let scope = format!("registry.test/{}", REPOSITORIES[repository]);
        writeln!(more, "[[policy.override]]\nscope = \"{scope}\"\nmode = \"audit\"").unwrap();
    }
    if let Some((image, until)) = rules.exempt {
        let scope = catalogue().images[image].digest();
        let exemption = format!("scope = \"{scope}\"\nreason = \"r\"\nowner = \"o\"\nexpires = \"{until}\"");
        writeln!(more, "[[policy.exemption]]\n{exemption}").unwrap();
    }
    let more: toml::Table = more.parse().unwrap();
    let policy = config["policy"].as_table_mut().unwrap();
    policy.remove("exemption");
    policy.extend(more["policy"].as_table().unwrap().clone());
    mirror.write("sealgate.toml", toml::to_string(&config).unwrap());
}

const SIGNER: &str = "release@example.com";
const ISSUER: &str = "https://issuer.example";
const OVERRIDE: &str = "[[policy.override]]\nscope = \"registry.test\"\nbundles_without_identity = true\n";

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
    /// Of this endpoint alone.
    pub(super) only: Option<usize>,
    /// From now on upstream says nothing at all.
    pub(super) dark: bool,
}

pub(super) fn trouble(random: &mut Random, endpoints: usize) -> Trouble {
    // What brings wrong answers comes more often than what brings none.
    let name = match random.below(10) {
        0..3 => *random.one_of(&["wrong bytes", "wrong bytes", "another manifest", "truncated", "silence on the way"]),
        3 => "darkness",
        _ => *random.one_of(&FAULTS),
    };
    if name == "darkness" {
        return darkness(random);
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
    let only = if random.percent(50) { Some(random.below(endpoints)).filter(|_| endpoints > 1) } else { None };
    if let Some(only) = only {
        text = format!("{text}, at endpoint {only}");
    }
    Trouble { name, text, fault, only, dark: false }
}

/// Upstream says nothing at all.
pub(super) fn darkness(random: &mut Random) -> Trouble {
    let all = Fault::on("*");
    let how = *random.one_of(&["500", "503 with a time", "429", "reset", "silence"]);
    let fault = match how {
        "500" => all.status(500),
        "503 with a time" => all.status(503).header("retry-after", "30"),
        "429" => all.status(429).header("retry-after", "30"),
        "reset" => all.reset(),
        _ => all.hang(),
    };
    Trouble { name: "darkness", text: format!("darkness: {how}"), fault, only: None, dark: true }
}
