//! The main job in one run, without a network: an upstream with a signed and an unsigned image, the mirror in front of
//! it, both images pulled, both outcomes printed.
//!
//! `cargo run --release --example demo`
#![expect(clippy::print_stdout, reason = "a demonstration is what it prints")]
#![expect(clippy::indexing_slicing, reason = "a JSON value that is absent is null, not a panic")]

use std::process::ExitCode;

use sealgate::clock::Clock;
use sealgate::oci::Digest;
use sealgate::testing::sigstore::{FakeSigstore, Flaw};
use sealgate::testing::{BuiltImage, FakeRegistry, ImageBuilder, TestSealgate, attach_signatures};
use serde_json::{Value, json};

const HOST: &str = "registry.example";
const REPOSITORY: &str = "demo/app";
const EMAIL: &str = "release@acme.example";
const ISSUER: &str = "https://accounts.acme.example";

#[tokio::main]
async fn main() -> ExitCode {
    let sigstore = FakeSigstore::from_seed(1, Clock::System.now());
    let upstream = FakeRegistry::start().await;
    let signed = ImageBuilder::new(1).layer(1 << 20).layer(300_000).build();
    let unsigned = ImageBuilder::new(2).layer(1 << 20).build();
    upstream.put(REPOSITORY, "signed", &signed);
    upstream.put(REPOSITORY, "unsigned", &unsigned);
    sign(&upstream, &sigstore, &signed);
    println!("upstream   {}: two images of {HOST}/{REPOSITORY}, one signed by {EMAIL}", upstream.url());

    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {HOST: [sigstore.fulcio_requirement(EMAIL, ISSUER)]}},
    });
    let mirror = TestSealgate::with_policy(&policy.to_string()).upstream(HOST, upstream.url()).start().await;
    println!("mirror     {}: serves what {EMAIL} signed, as {ISSUER} knows them\n", mirror.url());

    let pulled = pull(&mirror, "signed").await;
    let refused = !pull(&mirror, "unsigned").await;
    as_dockerd_sees_it(&mirror).await;
    verdicts(&mirror).await;
    mirror.stop().await;

    if pulled && refused {
        println!("As it must be: the signed image was pulled, the unsigned one was refused.");
        ExitCode::SUCCESS
    } else {
        println!("This is WRONG: signed image pulled: {pulled}; unsigned image refused: {refused}.");
        ExitCode::FAILURE
    }
}

/// Signs the image as cosign does without a key, and attaches the signature where cosign does.
fn sign(upstream: &FakeRegistry, sigstore: &FakeSigstore, image: &BuiltImage) {
    let reference = format!("{HOST}/{REPOSITORY}");
    let signature = sigstore.sign_keyless(&reference, &image.digest(), EMAIL, ISSUER, Flaw::None);
    attach_signatures(upstream, REPOSITORY, &image.digest(), &[signature]);
}

/// Pulls as podman does: the manifest by tag, then config and layers by digest. Whether all of it came.
async fn pull(mirror: &TestSealgate, tag: &str) -> bool {
    println!("pull {HOST}/{REPOSITORY}:{tag}");
    let manifest = mirror.get(&format!("/v2/{HOST}/{REPOSITORY}/manifests/{tag}")).await;
    println!("  {} {}", manifest.status, manifest.reason);
    if manifest.status != 200 {
        println!("  REFUSED ({})\n", manifest.error_code());
        return false;
    }
    println!("  Sealgate-Verdict: {}", manifest.header("sealgate-verdict").unwrap_or("none"));
    println!("  manifest {}, {} bytes", Digest::sha256(&manifest.body), manifest.body.len());
    let document = manifest.json();
    let layers = document["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    for descriptor in std::iter::once(&document["config"]).chain(layers) {
        if !pull_blob(mirror, descriptor).await {
            println!("  NOT PULLED\n");
            return false;
        }
    }
    println!("  PULLED\n");
    true
}

async fn pull_blob(mirror: &TestSealgate, descriptor: &Value) -> bool {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    let blob = mirror.get(&format!("/v2/{HOST}/{REPOSITORY}/blobs/{digest}")).await;
    let matches = blob.status == 200 && blob.complete && Digest::sha256(&blob.body).to_string() == digest;
    println!("  blob {digest}, {} bytes, {}", blob.body.len(), if matches { "digest matches" } else { "WRONG" });
    matches
}

/// dockerd would go round an ordinary refusal to the upstream; this one it does not.
async fn as_dockerd_sees_it(mirror: &TestSealgate) {
    let headers = [("User-Agent", "docker/28.5.2 go/go1.25 os/linux arch/amd64")];
    let target = format!("/v2/{HOST}/{REPOSITORY}/manifests/unsigned");
    let answer = mirror.request("HEAD", &target, &headers).await;
    println!("the same, as dockerd is answered so that it stops and says why\n  {} {}\n", answer.status, answer.reason);
}

/// What `sealgate verdicts list` shows.
async fn verdicts(mirror: &TestSealgate) {
    println!("verdicts (sealgate verdicts list)");
    let page = mirror.admin_get("/api/v1/verdicts").await.json();
    for verdict in page["verdicts"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let field = |name: &str| verdict[name].as_str().unwrap_or_default().to_owned();
        println!("  {:5}  {}  {}", field("decision"), field("image"), field("text"));
    }
    println!();
}
