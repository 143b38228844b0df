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

use sealgate::clock::Clock;
use sealgate::oci::Digest;
use sealgate::testing::sigstore::{FakeSigstore, Flaw, key_requirement, signature_manifest};
use serde_json::{Value, json};

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse(std::env::args().skip(1).collect());
    let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
    let registry = Registry { url: arguments.registry, client: reqwest::Client::new() };
    let mut scopes: BTreeMap<String, Value> = BTreeMap::new();
    for wanted in &arguments.images {
        let repository = format!("{}/{}", arguments.host, wanted.repository);
        let digest = registry.push_image(wanted).await;
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
    /// Pushes the image with its blobs; gives the digest of what the tag points at.
    async fn push_image(&self, wanted: &Wanted) -> Digest {
        let name = format!("{}:{}", wanted.repository, wanted.tag);
        match wanted.kind {
            Kind::Single => self.push_platform(&name, wanted, "amd64", &wanted.tag).await.0,
            Kind::Index => {
                let mut children = Vec::new();
                for architecture in ["amd64", "arm64"] {
                    let (digest, size) = self.push_platform(&name, wanted, architecture, "").await;
                    children.push(json!({
                        "mediaType": MANIFEST, "digest": digest.to_string(), "size": size,
                        "platform": { "architecture": architecture, "os": "linux" },
                    }));
                }
                let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
                self.push_manifest(&wanted.repository, &wanted.tag, INDEX, index.to_string().into_bytes()).await
            }
        }
    }

    /// Pushes the image of one platform, under `tag` or, when that is empty, under its digest; gives digest and size.
    async fn push_platform(&self, name: &str, wanted: &Wanted, architecture: &str, tag: &str) -> (Digest, usize) {
        let layers =
            [tar("hello.txt", format!("{name} on {architecture}\n").as_bytes()), tar("filler.bin", &filler(name))];
        let mut descriptors = Vec::new();
        for layer in &layers {
            let digest = self.push_blob(&wanted.repository, layer.clone()).await;
            let media_type = "application/vnd.oci.image.layer.v1.tar";
            descriptors.push(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": layer.len() }));
        }
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::sha256(layer).to_string()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": { "Cmd": ["/hello.txt"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let size = config.len();
        let digest = self.push_blob(&wanted.repository, config).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest.to_string(), "size": size,
            },
        });
        let manifest = manifest.to_string().into_bytes();
        let size = manifest.len();
        (self.push_manifest(&wanted.repository, tag, MANIFEST, manifest).await, size)
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
        for (_, blob) in signature.blobs {
            self.push_blob(&wanted.repository, blob).await;
        }
        let tag = format!("sha256-{}.sig", digest.hex());
        self.push_manifest(&wanted.repository, &tag, signature.media_type, signature.manifest).await;
    }

    async fn push_blob(&self, repository: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::sha256(&bytes);
        let start = format!("{}/v2/{repository}/blobs/uploads/", self.url);
        let started = self.client.post(&start).send().await.unwrap_or_else(|error| panic!("{start}: {error}"));
        assert_eq!(started.status(), 202, "{start}");
        let location = started.headers().get("location").unwrap().to_str().unwrap();
        let location = if location.starts_with('/') { format!("{}{location}", self.url) } else { location.to_owned() };
        let separator = if location.contains('?') { '&' } else { '?' };
        let upload = self.client.put(format!("{location}{separator}digest={digest}")).body(bytes);
        assert_eq!(upload.send().await.unwrap().status(), 201, "{repository} {digest}");
        digest
    }

    /// Pushes a manifest under a tag or, when that is empty, under its digest.
    async fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::sha256(&bytes);
        let reference = if tag.is_empty() { digest.to_string() } else { tag.to_owned() };
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.url);
        let request = self.client.put(&url).header("content-type", media_type).body(bytes);
        assert_eq!(request.send().await.unwrap().status(), 201, "{url}");
        digest
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

/// Half a MiB that no other image has, so that no client holds it already.
fn filler(name: &str) -> Vec<u8> {
    let block = |number: u32| Digest::sha256(format!("{name} {number}").as_bytes()).as_bytes().to_vec();
    (0..16_384).flat_map(block).collect()
}

const USAGE: &str = "push_signed REGISTRY-URL [--as HOST] [--policy FILE] REPOSITORY:TAG=single|index,keyed|keyless|stranger|unsigned …";
const KEY: &str = "release";
const EMAIL: &str = "release@example.com";
const STRANGER: &str = "somebody@example.net";
const ISSUER: &str = "https://issuer.example";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
