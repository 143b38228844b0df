//! Builds images, signs some of them with a Sigstore of its own, pushes all to a registry, and writes the policy that tells them apart.
//!
//! ```text
//! cargo run --example push_signed -- http://127.0.0.1:5000 --as docker.io --policy policy.json \
//!     library/one:1=single,keyed library/two:1=index,keyless library/three:1=single,unsigned
//! ```
//!
//! Each image is `REPOSITORY:TAG=KIND,SIGNATURE`. Kinds: `single`, `index` (two platforms). Signatures: `keyed`, `keyless`, `stranger` (keyless,
//! by somebody whom the policy does not name), `unsigned`. For each image one line goes out: reference, digest. The registry must take
//! pushes without a log-in. `tests/clients` feeds real clients with it; it is also a way to try a mirror of your own.
#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "an example stops where it cannot go on")]

use std::collections::BTreeMap;

use bytes::Bytes;
use sealgate::clock::Clock;
use sealgate::oci::{Algorithm, Digest};
use sealgate::testing::sigstore::{FakeSigstore, Flaw, key_requirement, signature_manifest};
use sealgate::testing::{BuiltImage, Content, ImageBuilder, pseudo_random};
use serde_json::{Value, json};

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse(std::env::args().skip(1).collect());
    let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
    let registry = Registry { url: arguments.registry, client: reqwest::Client::new() };
    let mut scopes: BTreeMap<String, Value> = BTreeMap::new();
    for wanted in &arguments.images {
        let repository = format!("{}/{}", arguments.host, wanted.repository);
        let image = build(wanted);
        let digest = image.digest();
        registry.push_image(&wanted.repository, &image, &wanted.tag).await;
        registry.push_signature(wanted, &digest, &sigstore, &repository).await;
        scopes.insert(repository.clone(), json!([requirement(wanted.signature, &sigstore)]));
        println!("{repository}:{} {digest}", wanted.tag);
    }
    if let Some(path) = arguments.policy {
        let policy = json!({ "default": [{ "type": "reject" }], "transports": { "docker": scopes } });
        std::fs::write(&path, format!("{policy:#}\n")).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

/// What was asked for on the command line.
struct Arguments {
    registry: String,
    host: String,
    policy: Option<String>,
    images: Vec<Wanted>,
}

/// One image to push.
struct Wanted {
    repository: String,
    tag: String,
    kind: Kind,
    signature: Signature,
}

#[derive(Clone, Copy)]
enum Kind {
    Single,
    Index,
}

#[derive(Clone, Copy)]
enum Signature {
    Keyed,
    Keyless,
    Stranger,
    Unsigned,
}

impl Arguments {
    fn parse(words: Vec<String>) -> Self {
        let mut words = words.into_iter();
        let registry = words.next().unwrap_or_else(|| panic!("{USAGE}")).trim_end_matches('/').to_owned();
        let mut arguments = Self { registry, host: "docker.io".to_owned(), policy: None, images: Vec::new() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--as" => arguments.host = words.next().unwrap_or_else(|| panic!("{USAGE}")),
                "--policy" => arguments.policy = words.next(),
                image => arguments.images.push(Wanted::parse(image).unwrap_or_else(|| panic!("{image}: {USAGE}"))),
            }
        }
        arguments
    }
}

impl Wanted {
    fn parse(text: &str) -> Option<Self> {
        let (name, how) = text.split_once('=')?;
        let (repository, tag) = name.rsplit_once(':')?;
        let (kind, signature) = how.split_once(',')?;
        let kind = match kind {
            "single" => Kind::Single,
            "index" => Kind::Index,
            _ => return None,
        };
        let signature = match signature {
            "keyed" => Signature::Keyed,
            "keyless" => Signature::Keyless,
            "stranger" => Signature::Stranger,
            "unsigned" => Signature::Unsigned,
            _ => return None,
        };
        Some(Self { repository: repository.to_owned(), tag: tag.to_owned(), kind, signature })
    }
}

/// What the policy asks of a repository whose image is signed like that.
fn requirement(signature: Signature, sigstore: &FakeSigstore) -> Value {
    match signature {
        Signature::Keyed => key_requirement(&sigstore.key(KEY)),
        Signature::Keyless | Signature::Stranger | Signature::Unsigned => sigstore.fulcio_requirement(EMAIL, ISSUER),
    }
}

/// A registry that takes pushes (distribution-spec, "Pushing").
struct Registry {
    url: String,
    client: reqwest::Client,
}

impl Registry {
    /// Pushes an image with its children and blobs, under `tag` or, when that is empty, under its digest.
    async fn push_image(&self, repository: &str, image: &BuiltImage, tag: &str) {
        for child in &image.children {
            Box::pin(self.push_image(repository, child, "")).await;
        }
        for blob in &image.blobs {
            self.push_blob(repository, blob.digest, blob.bytes.clone()).await;
        }
        self.push_manifest(repository, tag, &image.manifest).await;
    }

    /// Signs as cosign does, and pushes the signature under `sha256-<hex>.sig`.
    async fn push_signature(&self, wanted: &Wanted, digest: &Digest, sigstore: &FakeSigstore, reference: &str) {
        let signature = match wanted.signature {
            Signature::Keyed => sigstore.sign_keyed(&sigstore.key(KEY), reference, digest, Flaw::None),
            Signature::Keyless => sigstore.sign_keyless(reference, digest, EMAIL, ISSUER, Flaw::None),
            Signature::Stranger => sigstore.sign_keyless(reference, digest, STRANGER, ISSUER, Flaw::None),
            Signature::Unsigned => return,
        };
        let signature = signature_manifest(&[signature]);
        for (digest, blob) in signature.blobs {
            self.push_blob(&wanted.repository, digest, blob.into()).await;
        }
        let tag = format!("sha256-{}.sig", digest.hex());
        let manifest = Content::new(Algorithm::Sha256, signature.media_type, signature.manifest);
        self.push_manifest(&wanted.repository, &tag, &manifest).await;
    }

    async fn push_blob(&self, repository: &str, digest: Digest, bytes: Bytes) {
        let start = format!("{}/v2/{repository}/blobs/uploads/", self.url);
        let started = self.client.post(&start).send().await.unwrap_or_else(|error| panic!("{start}: {error}"));
        assert_eq!(started.status(), 202, "{start}");
        let location = started.headers().get("location").unwrap().to_str().unwrap();
        let location = if location.starts_with('/') { format!("{}{location}", self.url) } else { location.to_owned() };
        let separator = if location.contains('?') { '&' } else { '?' };
        let upload = self.client.put(format!("{location}{separator}digest={digest}")).body(bytes);
        assert_eq!(upload.send().await.unwrap().status(), 201, "{repository} {digest}");
    }

    /// Pushes a manifest under a tag or, when that is empty, under its digest.
    async fn push_manifest(&self, repository: &str, tag: &str, manifest: &Content) {
        let reference = if tag.is_empty() { manifest.digest.to_string() } else { tag.to_owned() };
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.url);
        let request = self.client.put(&url).header("content-type", &manifest.media_type).body(manifest.bytes.clone());
        assert_eq!(request.send().await.unwrap().status(), 201, "{url}");
    }
}

/// Builds what was asked for. No two names give the same bytes, so that no client holds any of it already.
fn build(wanted: &Wanted) -> BuiltImage {
    let platform = |architecture: &str| {
        let name = format!("{}:{} on {architecture}", wanted.repository, wanted.tag);
        let seed =
            Digest::sha256(name.as_bytes()).as_bytes().iter().fold(0, |seed: u64, byte| seed << 5 ^ u64::from(*byte));
        ImageBuilder::new(seed)
            .platform("linux", architecture)
            .layer_of(TAR, tar("hello.txt", name.as_bytes()), &[])
            .layer_of(TAR, tar("filler.bin", &pseudo_random(seed, 512 * 1024)), &[])
            .build()
    };
    match wanted.kind {
        Kind::Single => platform("amd64"),
        Kind::Index => ImageBuilder::index([platform("amd64"), platform("arm64")]).build(),
    }
}

/// A tar archive with one file (POSIX.1-1988 `ustar`).
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put =
        |at: usize, text: &str| header.iter_mut().skip(at).zip(text.bytes()).for_each(|(to, from)| *to = from);
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()).for_each(|(to, from)| *to = from);
    let padding = content.len().next_multiple_of(512) - content.len();
    [header, content.to_vec(), vec![0; padding + 1024]].concat()
}

const USAGE: &str = "push_signed REGISTRY-URL [--as HOST] [--policy FILE] REPOSITORY:TAG=single|index,keyed|keyless|stranger|unsigned …";
const KEY: &str = "release";
const EMAIL: &str = "release@example.com";
const STRANGER: &str = "somebody@example.net";
const ISSUER: &str = "https://issuer.example";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
