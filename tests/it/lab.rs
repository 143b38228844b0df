//! A `Puller` between a fake registry and a real store on disk, on a clock that the tests move.
//!
//! Everything happens in `registry.test/team/app` unless a test says otherwise. Signatures are made by a key without a log,
//! so that no test depends on the machine's clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use sealgate::clock::{Clock, ManualClock, Timestamp};
use sealgate::oci::{Digest, ImageReference, MediaType, Reference, Repository};
use sealgate::policy::{
    BundlesWithoutIdentity, ClusterImagePolicies, ContainersPolicy, ContainersPolicyDocument, Exemption, Mode,
    MultiArch, Override, PolicyFile, PolicySet, Reason, Settings as PolicySettings,
};
use sealgate::pull::{AdmittedManifest, Delivery, PullError, Puller, Snapshot, Source, TagList, TagRules, VerdictTtl};
use sealgate::store::{Settings as StoreSettings, Store, StoredVerdict, VerdictFilter};
use sealgate::telemetry::Telemetry;
use sealgate::testing::sigstore::{FakeKey, FakeSignature, FakeSigstore, Flaw, key_requirement, signature_manifest};
use sealgate::testing::{
    BuiltImage, Content, FakeRegistry, Fault, ImageBuilder, attach_attestations, attach_bundles, attach_spam,
};
use sealgate::upstream::Upstream;
use sealgate::verify::SigstoreRoot;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

const HOST: &str = "registry.test";
const OTHER_HOST: &str = "other.test";
const REPOSITORY: &str = "team/app";
const EMAIL: &str = "signer@team.test";
const ISSUER: &str = "https://issuer.test";
const HOUR: Duration = Duration::from_secs(3600);

/// What policy wants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Policy {
    /// A signature by the lab's key.
    Signed,
    /// A signature by another key.
    SignedByAnother,
    /// Nothing.
    AcceptAnything,
    /// A signature for this tag, nothing for the others.
    SignedTag(&'static str),
    /// A signature, and never this digest.
    RejectDigest(Digest),
    /// A signature, by a scope of its own for this digest.
    SignedDigest(Digest),
    /// A keyless signature by the lab's signer.
    Keyless,
    /// As `Signed`, where a bundle that names no image binds by its digest.
    Bundles,
    /// Nothing, and a warning where the lab's key has attested no provenance.
    Warned,
    /// A ClusterImagePolicy: provenance attested by the lab's key.
    Attested,
    /// As `Signed`, for indexes under `index-or-any-leaf`.
    AnyLeaf,
    /// As `Signed`, under `leaf-only`.
    LeafOnly,
    /// As `Signed`, under `leaf-only` for this digest alone.
    LeafOnlyOf(Digest),
    /// As `Signed`, in audit mode.
    Audit,
    /// As `Signed`, with audit mode for this tag.
    AuditTag(&'static str),
    /// As `Signed`, in audit mode but for this digest.
    AuditBut(Digest),
    /// As `Signed`, with an exemption that ends.
    Exempt { scope: &'static str, hours: u32 },
}

/// An image, index or artefact that the registry has.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
    pub(crate) config: Digest,
    pub(crate) layers: Vec<Digest>,
    built: BuiltImage,
}

impl Image {
    /// Bytes of config and layers.
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.built.blob_bytes()).unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) registry: FakeRegistry,
    pub(crate) clock: ManualClock,
    tags: TagRules,
    snapshot: Arc<ArcSwap<Snapshot>>,
    store: Store,
    puller: Puller,
    tasks: TaskTracker,
    telemetry: Telemetry,
    sigstore: FakeSigstore,
    contents: Mutex<HashMap<Digest, Bytes>>,
    dir: TempDir,
}

impl Lab {
    pub(crate) async fn new(policy: Policy) -> Self {
        // The library that verifies certificates reads the machine's clock, so the lab starts there.
        let start = Clock::System.now();
        let (registry, clock) = (FakeRegistry::start().await, ManualClock::at(start));
        let sigstore = FakeSigstore::from_seed(7, start);
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot(policy, &sigstore, start)));
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::new(&[]);
        let store = open(&dir, &clock, &telemetry).await;
        let tasks = TaskTracker::new();
        let tags = TagRules::of(Duration::from_secs(60), 24 * HOUR);
        let puller = puller(&registry, &tags, &store, &snapshot, &clock, &tasks);
        let contents = Mutex::default();
        Self { registry, clock, tags, snapshot, store, puller, tasks, telemetry, sigstore, contents, dir }
    }

    /// With other rules of freshness.
    pub(crate) fn with_tags(self, tags: TagRules) -> Self {
        Self { tags, ..self }.with_another_puller()
    }

    /// Tasks that no request owns.
    pub(crate) fn running(&self) -> usize {
        self.tasks.len()
    }

    /// The same store and policy behind a puller (and an upstream client) that has nothing in memory.
    pub(crate) fn with_another_puller(mut self) -> Self {
        self.puller = puller(&self.registry, &self.tags, &self.store, &self.snapshot, &self.clock, &self.tasks);
        self
    }

    /// As after a restart of the process.
    pub(crate) async fn restart(mut self) -> Self {
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
        self.tasks = TaskTracker::new();
        self.store = open(&self.dir, &self.clock, &self.telemetry).await;
        self.with_another_puller()
    }

    /// As after a restart on a disk that can take no database.
    pub(crate) async fn restart_without_database(self) -> Self {
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
        let database = self.dir.path().join("verdicts-v1");
        std::fs::remove_dir_all(&database).unwrap();
        std::fs::write(&database, "not a directory").unwrap();
        self.restart().await
    }

    pub(crate) fn reload(&self, policy: Policy) {
        self.snapshot.store(Arc::new(snapshot(policy, &self.sigstore, self.clock.now())));
    }

    /// The same policy with these bounds on the size of images, each with its scope.
    pub(crate) fn bound(&self, policy: Policy, bounds: &[(&str, u64)]) {
        let now = self.clock.now();
        let mut settings = settings(policy, &self.sigstore, now);
        settings.overrides.extend(bounds.iter().map(|(scope, max_image_bytes)| Override {
            max_image_bytes: Some(*max_image_bytes),
            ..Override::of(scope.parse().unwrap())
        }));
        self.snapshot.store(Arc::new(snapshot_of(settings)));
    }

    /// A policy of the test's own.
    pub(crate) fn reload_with(&self, settings: PolicySettings) {
        self.snapshot.store(Arc::new(snapshot_of(settings)));
    }

    // ---- what the registry has ----

    /// An image, by digest alone. Each name makes another one.
    pub(crate) fn image(&self, name: &str) -> Image {
        let seed = Digest::sha256(name.as_bytes());
        let seed = u64::from_le_bytes(seed.as_bytes()[..8].try_into().unwrap());
        self.put(ImageBuilder::new(seed).layer(2000).layer(100_000).build())
    }

    /// An image with one more layer, of that many bytes.
    pub(crate) fn image_with_layer(&self, name: &str, bytes: usize) -> Image {
        let seed = Digest::sha256(name.as_bytes());
        let seed = u64::from_le_bytes(seed.as_bytes()[..8].try_into().unwrap());
        self.put(ImageBuilder::new(seed).layer(2000).layer(100_000).layer(bytes).build())
    }

    /// An image under a tag, with a good signature.
    pub(crate) fn signed_image(&self, tag: &str) -> Image {
        let image = self.image(&format!("signed {tag}"));
        self.tag(tag, &image);
        self.sign(&image.digest);
        image
    }

    pub(crate) fn index(&self, children: &[&Image]) -> Image {
        self.put(ImageBuilder::index(children.iter().map(|child| child.built.clone())).build())
    }

    /// An index whose children after `children` are labelled as attestations.
    pub(crate) fn index_with_attestations(&self, children: &[&Image], attestations: &[&Image]) -> Image {
        let label = |image: &&Image| {
            let unknown = "unknown".to_owned();
            BuiltImage { platform: (unknown.clone(), unknown), ..image.built.clone() }
        };
        let children = children.iter().map(|child| child.built.clone()).chain(attestations.iter().map(label));
        self.put(ImageBuilder::index(children).build())
    }

    /// As registries without the referrers API keep them.
    pub(crate) fn index_without_platforms(&self, children: &[&Image]) -> Image {
        self.put_index(&children.iter().map(|child| child.built.descriptor()).collect::<Vec<_>>())
    }

    /// An index that lists the second child with another size and the third one with another type.
    pub(crate) fn index_lying(&self, right: &Image, sized: &Image, typed: &Image) -> Image {
        let mut descriptors = [right, sized, typed].map(|image| image.built.descriptor());
        descriptors[1]["size"] = json!(sized.bytes.len() + 1);
        descriptors[2]["mediaType"] = json!(MediaType::DockerManifest.as_str());
        self.put_index(&descriptors)
    }

    /// An index that calls its child an image, whatever it is.
    pub(crate) fn index_of_images(&self, child: &Image) -> Image {
        let mut descriptor = child.built.descriptor();
        descriptor["mediaType"] = json!(MediaType::OciManifest.as_str());
        self.put_index(&[descriptor])
    }

    fn put_index(&self, descriptors: &[Value]) -> Image {
        let media_type = MediaType::OciIndex.as_str();
        let document = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": descriptors });
        let mut built = ImageBuilder::index([]).build();
        built.manifest = Content::new(sealgate::oci::Algorithm::Sha256, media_type, document.to_string());
        self.put(built)
    }

    /// An artefact with one layer, by digest alone.
    pub(crate) fn artefact(&self, layer_type: &str, layer: &[u8], subject: Option<&Image>) -> Image {
        let mut builder = ImageBuilder::artefact("application/x").layer_of(layer_type, layer.to_vec(), &[]);
        if let Some(subject) = subject {
            builder = builder.subject(subject.built.descriptor());
        }
        self.put(builder.build())
    }

    /// As BuildKit writes them: an image config, and an in-toto layer.
    pub(crate) fn attestation(&self, statement: &[u8]) -> Image {
        let builder = ImageBuilder::new(1).platform("unknown", "unknown");
        self.put(builder.layer_of("application/vnd.in-toto+json", statement.to_vec(), &[]).build())
    }

    /// An image that does not name its own type, under a tag.
    pub(crate) fn untyped_image(&self, tag: &str, media_type: MediaType) -> Image {
        let mut built = ImageBuilder::new(99).layer(100).build();
        let mut document: Value = serde_json::from_slice(&built.manifest.bytes).unwrap();
        document.as_object_mut().unwrap().remove("mediaType");
        built.manifest = Content::new(sealgate::oci::Algorithm::Sha256, media_type.as_str(), document.to_string());
        let image = self.put(built);
        self.tag(tag, &image);
        image
    }

    /// An image of that repository that lists the same blobs, the last of them with another size.
    pub(crate) fn image_lying_of(&self, name: &str, image: &Image, size: usize) -> Digest {
        let mut document: Value = serde_json::from_slice(&image.bytes).unwrap();
        *document["layers"].as_array_mut().unwrap().last_mut().unwrap().get_mut("size").unwrap() = json!(size);
        let media_type = &image.built.manifest.media_type;
        let manifest = Content::new(sealgate::oci::Algorithm::Sha256, media_type, document.to_string());
        self.registry.put_manifest(name, &manifest);
        for blob in &image.built.blobs {
            self.registry.put_blob(name, blob.bytes.clone());
        }
        manifest.digest
    }

    /// The registry calls the same bytes something else from now on.
    pub(crate) fn retype(&self, image: &Image, media_type: MediaType) {
        let manifest = Content { media_type: media_type.as_str().to_owned(), ..image.built.manifest.clone() };
        self.registry.put_manifest(REPOSITORY, &manifest);
    }

    /// The registry has the same bytes under that digest too.
    pub(crate) fn serve_under(&self, digest: &Digest, image: &Image) {
        self.registry.put_manifest(REPOSITORY, &Content { digest: *digest, ..image.built.manifest.clone() });
    }

    pub(crate) fn tag(&self, tag: &str, image: &Image) {
        self.registry.tag(REPOSITORY, tag, image.digest);
    }

    /// Puts these bytes, called an OCI image manifest, under a tag.
    pub(crate) fn tag_bytes(&self, tag: &str, bytes: &[u8]) {
        let media_type = MediaType::OciManifest.as_str();
        let manifest = Content::new(sealgate::oci::Algorithm::Sha256, media_type, bytes.to_vec());
        self.registry.put_manifest(REPOSITORY, &manifest);
        self.registry.tag(REPOSITORY, tag, manifest.digest);
    }

    /// Removes a manifest; what lists it goes on to do so.
    pub(crate) fn remove(&self, digest: &Digest) {
        self.registry.remove_manifest(REPOSITORY, digest);
    }

    pub(crate) fn untag(&self, tag: &str) {
        self.registry.untag(REPOSITORY, tag);
    }

    pub(crate) fn content(&self, digest: &Digest) -> Bytes {
        self.contents.lock().unwrap()[digest].clone()
    }

    fn put(&self, built: BuiltImage) -> Image {
        self.registry.put_untagged(REPOSITORY, &built);
        let mut contents = self.contents.lock().unwrap();
        contents.extend(built.blobs.iter().map(|blob| (blob.digest, blob.bytes.clone())));
        let blobs: Vec<Digest> = built.blobs.iter().map(|blob| blob.digest).collect();
        Image {
            bytes: built.manifest.bytes.clone(),
            digest: built.digest(),
            config: blobs.first().copied().unwrap_or(built.digest()),
            layers: blobs.into_iter().skip(1).collect(),
            built,
        }
    }

    // ---- signatures ----

    pub(crate) fn signature_tag(&self, digest: &Digest) -> String {
        format!("sha256-{}.sig", digest.hex())
    }

    /// Signs with the key that policy wants.
    pub(crate) fn sign(&self, digest: &Digest) {
        self.sign_as(&format!("{HOST}/{REPOSITORY}"), digest);
    }

    pub(crate) fn sign_as(&self, reference: &str, digest: &Digest) {
        self.put_signatures(digest, &[self.signature(&key(&self.sigstore), reference, digest)]);
    }

    /// Signs without a key, as policy `Keyless` wants.
    pub(crate) fn sign_keyless(&self, digest: &Digest) {
        let reference = format!("{HOST}/{REPOSITORY}");
        self.put_signatures(digest, &[self.sigstore.sign_keyless(&reference, digest, EMAIL, ISSUER, Flaw::None)]);
    }

    /// Signs with the key that policy wants, as cosign v3 does. The digest of the referrer.
    pub(crate) fn sign_by_bundle(&self, image: &Image) -> Digest {
        self.attach(image, &key(&self.sigstore))
    }

    /// The same with another key.
    pub(crate) fn sign_by_bundle_with_another_key(&self, image: &Image) -> Digest {
        self.attach(image, &other_key(&self.sigstore))
    }

    fn attach(&self, image: &Image, key: &FakeKey) -> Digest {
        let bundle = self.sigstore.bundle_keyed(key, &image.digest).build();
        attach_bundles(&self.registry, REPOSITORY, &image.built.manifest, &[bundle])[0]
    }

    /// Attests with the key that policy wants, at the tag `sha256-<hex>.att`.
    pub(crate) fn attest(&self, image: &Image) {
        let key = key(&self.sigstore);
        let attested =
            self.sigstore.bundle_keyed(&key, &image.digest).predicate(PROVENANCE, json!({})).build_attestation();
        attach_attestations(&self.registry, REPOSITORY, &image.digest, &[attested]);
    }

    /// Attaches so many artefacts of that type, which sign nothing.
    pub(crate) fn spam(&self, image: &Image, artifact_type: &str, count: usize) {
        attach_spam(&self.registry, REPOSITORY, &image.built.manifest, artifact_type, "", count);
    }

    /// The digests of the payloads.
    pub(crate) fn sign_with_another_key(&self, digest: &Digest) -> Vec<Digest> {
        let signature = self.signature(&other_key(&self.sigstore), &format!("{HOST}/{REPOSITORY}"), digest);
        self.put_signatures(digest, &[signature])
    }

    /// So many bad signatures, and perhaps a good one behind them.
    pub(crate) fn sign_badly(&self, digest: &Digest, count: usize, good_last: bool) {
        let reference = format!("{HOST}/{REPOSITORY}");
        let bad = self.signature(&other_key(&self.sigstore), &reference, digest);
        let mut signatures: Vec<FakeSignature> = (0..count)
            .map(|number| {
                let mut bad = bad.clone();
                bad.payload.extend_from_slice(number.to_string().as_bytes());
                bad
            })
            .collect();
        if good_last {
            signatures.push(self.signature(&key(&self.sigstore), &reference, digest));
        }
        self.put_signatures(digest, &signatures);
    }

    /// The registry answers with other bytes for every payload of that image's signatures.
    pub(crate) fn corrupt_payloads(&self, digest: &Digest) {
        let signature = self.signature(&key(&self.sigstore), &format!("{HOST}/{REPOSITORY}"), digest);
        let payload = Digest::sha256(&signature.payload);
        self.registry.fault(Fault::on(&format!("*/blobs/{payload}")).wrong_bytes());
    }

    fn signature(&self, key: &FakeKey, reference: &str, digest: &Digest) -> FakeSignature {
        self.sigstore.sign_unlogged(key, reference, digest, Flaw::None)
    }

    fn put_signatures(&self, digest: &Digest, signatures: &[FakeSignature]) -> Vec<Digest> {
        let written = signature_manifest(signatures);
        for (_, bytes) in &written.blobs {
            self.registry.put_blob(REPOSITORY, bytes.clone());
        }
        let manifest = Content::new(sealgate::oci::Algorithm::Sha256, written.media_type, written.manifest);
        self.registry.put_manifest(REPOSITORY, &manifest);
        self.registry.tag(REPOSITORY, &self.signature_tag(digest), manifest.digest);
        written.blobs.iter().skip(1).map(|(digest, _)| *digest).collect()
    }

    // ---- how the registry behaves ----

    /// Requests whose path has `part` in it get that status.
    pub(crate) fn fail(&self, part: &str, status: u16) {
        self.registry.fault(Fault::on(&format!("*{part}*")).status(status));
    }

    /// Requests whose path has `part` in it get no answer.
    pub(crate) fn hang(&self, part: &str) {
        self.registry.fault(Fault::on(&format!("*{part}*")).hang());
    }

    pub(crate) fn heal(self) -> Self {
        self.registry.heal();
        self
    }

    pub(crate) fn stop_upstream(self) -> Self {
        self.registry.go_down();
        self
    }

    pub(crate) fn head_without_digest(&self, tag: &str) {
        let fault = Fault::on(&manifest_path(tag)).head();
        self.registry.fault(fault.without_header("docker-content-digest"));
    }

    pub(crate) fn head_claims(&self, tag: &str, digest: &Digest) {
        self.registry.heal();
        let fault = Fault::on(&manifest_path(tag)).head();
        self.registry.fault(fault.set_header("docker-content-digest", &digest.to_string()));
    }

    /// Each GET of the tag gets the next of these images, the last one for ever.
    pub(crate) fn answer_in_turn(&self, tag: &str, images: &[&Image]) {
        for (turn, image) in images.iter().enumerate() {
            let times = if turn + 1 == images.len() { usize::MAX } else { turn + 1 };
            let fault = Fault::on(&manifest_path(tag)).get().times(times);
            let fault = fault.set_header("docker-content-digest", &image.digest.to_string());
            self.registry.fault(fault.body(image.bytes.clone()));
        }
    }

    pub(crate) fn replace_bytes(&self, digest: &Digest, bytes: &'static [u8]) {
        self.registry.fault(Fault::on(&manifest_path(&digest.to_string())).get().body(bytes));
    }

    /// All requests that the registry got.
    pub(crate) fn requests(&self) -> usize {
        self.registry.count("*", "*")
    }

    /// Those with that method whose path has `part` in it.
    pub(crate) fn asked(&self, method: &str, part: &str) -> usize {
        self.registry.count(method, &format!("*{part}*"))
    }

    // ---- pulling ----

    pub(crate) async fn pull(&self, tag: &str) -> Result<AdmittedManifest, PullError> {
        self.manifest(HOST, REPOSITORY, Reference::Tag(tag.parse().unwrap())).await
    }

    pub(crate) async fn pull_digest(&self, digest: &Digest) -> Result<AdmittedManifest, PullError> {
        self.manifest(HOST, REPOSITORY, Reference::Digest(*digest)).await
    }

    pub(crate) async fn pull_digest_of(&self, name: &str, digest: &Digest) -> Result<AdmittedManifest, PullError> {
        self.manifest(HOST, name, Reference::Digest(*digest)).await
    }

    async fn manifest(&self, host: &str, name: &str, reference: Reference) -> Result<AdmittedManifest, PullError> {
        self.puller.manifest(&ImageReference::new(repository(host, name), reference)).await
    }

    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Bytes, PullError> {
        self.read_blob(HOST, REPOSITORY, digest).await
    }

    pub(crate) async fn blob_of(&self, name: &str, digest: &Digest) -> Result<Bytes, PullError> {
        self.read_blob(HOST, name, digest).await
    }

    /// A part of a blob that may be no good: as many bytes as came, and whether they came to their end.
    pub(crate) async fn raw_blob_of(&self, name: &str, digest: &Digest) -> (usize, Result<(), PullError>) {
        let blob = match self.puller.blob(&repository(HOST, name), digest).await {
            Ok(blob) => blob,
            Err(error) => return (0, Err(error)),
        };
        let end = blob.size().saturating_sub(1);
        let mut stream = blob.stream(0, end, Delivery::Copied);
        let mut bytes = 0;
        loop {
            match stream.try_next().await {
                Ok(Some(piece)) => bytes += piece.len(),
                Ok(None) => return (bytes, Ok(())),
                Err(error) => return (bytes, Err(error)),
            }
        }
    }

    pub(crate) async fn blob_of_other_upstream(&self, digest: &Digest) -> Result<Bytes, PullError> {
        self.read_blob(OTHER_HOST, REPOSITORY, digest).await
    }

    async fn read_blob(&self, host: &str, name: &str, digest: &Digest) -> Result<Bytes, PullError> {
        let repository = repository(host, name);
        let head = self.puller.blob_head(&repository, digest).await?;
        let blob = self.puller.blob(&repository, digest).await?;
        assert_eq!(head.size, blob.size());
        let end = blob.size().saturating_sub(1);
        let bytes: BytesMut = blob.stream(0, end, Delivery::Copied).try_collect().await?;
        assert!(digest.matches(&bytes));
        Ok(bytes.freeze())
    }

    pub(crate) async fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Value, PullError> {
        let document = self.puller.referrers(&repository(HOST, REPOSITORY), digest, artifact_type).await?;
        Ok(serde_json::from_slice(&document.bytes).unwrap())
    }

    pub(crate) async fn tags(&self, n: usize, last: Option<&str>) -> Result<TagList, PullError> {
        let last = last.map(|last| last.parse().unwrap());
        self.puller.tags(&repository(HOST, REPOSITORY), n, last.as_ref()).await
    }

    /// How often the verdict database was asked something. What it is told, it does when it comes to it.
    pub(crate) fn database_reads(&self) -> f64 {
        let text = self.telemetry.render();
        let reads = text.lines().filter(|line| line.starts_with("sealgate_verdict_store_ops_total{op=\"get\""));
        reads.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// Takes all cached files away.
    pub(crate) fn remove_files(&self) {
        // What is kept is written soon after the answer.
        while std::fs::remove_dir_all(self.dir.path().join("blobs")).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Whether the store has content of that digest.
    pub(crate) async fn has_content(&self, digest: &Digest) -> bool {
        self.store.content(digest).await.is_some()
    }

    /// The evidence of the newest verdict, once it was found out who signed.
    pub(crate) async fn reported_evidence(&self) -> Value {
        self.puller.reported().await;
        let id = self.verdicts().await[0].key.id();
        self.store.verdict_by_id(&id).await.unwrap().1.unwrap()
    }

    /// All verdicts that were kept.
    pub(crate) async fn verdicts(&self) -> Vec<Arc<StoredVerdict>> {
        self.store.verdicts(&VerdictFilter::default()).await
    }
}

/// The reason of a denial; anything else fails the test.
#[track_caller]
pub(crate) fn denied_for(result: Result<AdmittedManifest, PullError>) -> Reason {
    match result {
        Err(PullError::Denied(denial)) => denial.reason,
        other => panic!("not denied: {other:?}"),
    }
}

pub(crate) fn is_undecided<T>(result: &Result<T, PullError>) -> bool {
    matches!(result, Err(PullError::Undecided { .. }))
}

fn manifest_path(reference: &str) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

fn repository(host: &str, name: &str) -> Repository {
    Repository::new(host.parse().unwrap(), name.parse().unwrap()).unwrap()
}

async fn open(dir: &TempDir, clock: &ManualClock, telemetry: &Telemetry) -> Store {
    let settings = StoreSettings { data_dir: Some(dir.path().to_owned()), max_bytes: 1 << 30, min_free_bytes: 0 };
    Store::open(settings, Clock::Manual(clock.clone()), telemetry.clone()).await.unwrap()
}

fn puller(
    registry: &FakeRegistry,
    tags: &TagRules,
    store: &Store,
    snapshot: &Arc<ArcSwap<Snapshot>>,
    clock: &ManualClock,
    tasks: &TaskTracker,
) -> Puller {
    let source = |host: &str| Source {
        host: host.parse().unwrap(),
        upstream: Upstream::new(registry.settings(host), Telemetry::default()).unwrap(),
        tags: tags.clone(),
    };
    Puller::new(
        vec![source(HOST), source(OTHER_HOST)],
        store.clone(),
        Arc::clone(snapshot),
        Clock::Manual(clock.clone()),
        Telemetry::default(),
        tasks.clone(),
    )
}

fn key(sigstore: &FakeSigstore) -> FakeKey {
    sigstore.key("the signer")
}

fn other_key(sigstore: &FakeSigstore) -> FakeKey {
    sigstore.key("another signer")
}

fn snapshot(policy: Policy, sigstore: &FakeSigstore, now: Timestamp) -> Snapshot {
    snapshot_of(settings(policy, sigstore, now))
}

fn snapshot_of(settings: PolicySettings) -> Snapshot {
    Snapshot {
        policy: PolicySet::new(settings).unwrap(),
        trust_root: Digest::sha256(b"no trust root"),
        verdict_ttl: VerdictTtl { allow: 24 * HOUR, deny: Duration::from_secs(60) },
    }
}

fn settings(policy: Policy, sigstore: &FakeSigstore, now: Timestamp) -> PolicySettings {
    let signed = key_requirement(&key(sigstore));
    let (accept, reject) = (json!({"type": "insecureAcceptAnything"}), json!({"type": "reject"}));
    let scoped = |default: &Value, scope: String, requirement: &Value| json!({"default": [default], "transports": {"docker": {scope: [requirement]}}});
    let document = match policy {
        Policy::AcceptAnything | Policy::Warned | Policy::Attested => json!({"default": [accept]}),
        Policy::SignedByAnother => json!({"default": [key_requirement(&other_key(sigstore))]}),
        Policy::Keyless => json!({"default": [sigstore.fulcio_requirement(EMAIL, ISSUER)]}),
        Policy::SignedTag(tag) => scoped(&accept, format!("{HOST}/{REPOSITORY}:{tag}"), &signed),
        Policy::RejectDigest(digest) => scoped(&signed, format!("{HOST}/{REPOSITORY}@{digest}"), &reject),
        Policy::SignedDigest(digest) => scoped(&signed, format!("{HOST}/{REPOSITORY}@{digest}"), &signed),
        Policy::Signed
        | Policy::Bundles
        | Policy::AnyLeaf
        | Policy::LeafOnly
        | Policy::LeafOnlyOf(_)
        | Policy::Audit
        | Policy::AuditTag(_)
        | Policy::AuditBut(_)
        | Policy::Exempt { .. } => json!({"default": [signed]}),
    };
    let document = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
    let mut settings = PolicySettings {
        containers_policy: Some(ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap()),
        ..Default::default()
    };
    match policy {
        Policy::AnyLeaf => settings.multi_arch = MultiArch::IndexOrAnyLeaf,
        Policy::LeafOnly => settings.multi_arch = MultiArch::LeafOnly,
        Policy::LeafOnlyOf(digest) => settings.overrides.push(Override {
            multi_arch: Some(MultiArch::LeafOnly),
            ..Override::of(digest.to_string().parse().unwrap())
        }),
        Policy::Warned => settings.cluster_image_policies = Some(attested("warn", sigstore)),
        Policy::Attested => settings.cluster_image_policies = Some(attested("enforce", sigstore)),
        Policy::Bundles => settings.overrides.push(Override {
            bundles_without_identity: Some(BundlesWithoutIdentity::DigestIsEnough),
            ..Override::of(HOST.parse().unwrap())
        }),
        Policy::Audit => settings.mode = Mode::Audit,
        Policy::AuditBut(digest) => {
            settings.mode = Mode::Audit;
            let scope = digest.to_string().parse().unwrap();
            settings.overrides.push(Override { mode: Some(Mode::Enforce), ..Override::of(scope) });
        }
        Policy::AuditTag(tag) => settings.overrides.push(Override {
            mode: Some(Mode::Audit),
            ..Override::of(format!("{HOST}/{REPOSITORY}:{tag}").parse().unwrap())
        }),
        Policy::Exempt { scope, hours } => settings.exemptions.push(Exemption {
            scope: scope.parse().unwrap(),
            reason: "unsigned until the vendor moves".to_owned(),
            owner: "platform-team".to_owned(),
            expires: now.plus(hours * HOUR),
        }),
        Policy::Signed
        | Policy::SignedByAnother
        | Policy::Keyless
        | Policy::AcceptAnything
        | Policy::SignedTag(_)
        | Policy::RejectDigest(_)
        | Policy::SignedDigest(_) => {}
    }
    settings
}

/// A ClusterImagePolicy in that mode: provenance attested by the lab's key, in either format.
fn attested(mode: &str, sigstore: &FakeSigstore) -> ClusterImagePolicies {
    let authority = |format: &str| {
        json!({
            "key": { "data": key(sigstore).public_pem() },
            "signatureFormat": format,
            "attestations": [{ "name": "provenance", "predicateType": PROVENANCE }],
        })
    };
    let document = json!({
        "apiVersion": "policy.sigstore.dev/v1beta1",
        "kind": "ClusterImagePolicy",
        "metadata": { "name": "attested" },
        "spec": { "mode": mode, "images": [{ "glob": "**" }], "authorities": [authority("legacy"), authority("bundle")] },
    });
    let file = PolicyFile::parse("attested.yaml", document.to_string().as_bytes(), &mut |_| Err("no files".to_owned()));
    let root = SigstoreRoot::from_json(sigstore.trusted_root_json().as_bytes()).unwrap();
    ClusterImagePolicies::resolve(vec![file.unwrap()], &root).unwrap()
}

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
