//! A real image of the SLSA project through the mirror: its index has a provenance attestation under `.att`, its children have
//! nothing of their own.

use std::path::Path;

use sealgate::oci::{Algorithm, Digest};

use sealgate::testing::{Content, FakeRegistry, Setup, TestSealgate};
use serde_json::Value;

use crate::fixtures::fixtures;

const REPOSITORY: &str = "slsa-framework/example-package.verifier-e2e.all.tag.main.default.slsa3";
const TAG: &str = "v13.0.30";
const WORKFLOW: &str =
    "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/generator_container_slsa3.yml";
const PROVENANCE: &str = "https://slsa.dev/provenance/v0.2";

/// What a ClusterImagePolicy asks of the image; each test changes one thing.
struct Asked {
    workflow: &'static str,
    reference: &'static str,
    /// None: a plain signature.
    predicate_type: Option<&'static str>,
    rule: &'static str,
}

impl Default for Asked {
    /// What is true of the image.
    fn default() -> Self {
        Self {
            workflow: WORKFLOW,
            reference: "refs/tags/v1.10.0",
            predicate_type: Some(PROVENANCE),
            rule: "input.predicate.invocation.configSource.uri == \
                   \"git+https://github.com/slsa-framework/example-package@refs/tags/v13.0.30\"",
        }
    }
}

impl Asked {
    fn policy(&self) -> String {
        let attestations = self.predicate_type.map(|predicate_type| {
            format!(
                "      attestations:\n        - name: provenance\n          predicateType: {predicate_type}\n          \
                 policy:\n            type: rego\n            data: |\n              package sigstore\n              \
                 isCompliant {{\n                {}\n              }}\n",
                self.rule
            )
        });
        format!(
            "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: slsa\nspec:\n  images:\n    \
             - glob: ghcr.io/slsa-framework/**\n  authorities:\n    - name: generator\n      keyless:\n        identities:\n          \
             - issuer: https://token.actions.githubusercontent.com\n            subject: {}@{}\n{}",
            self.workflow,
            self.reference,
            attestations.unwrap_or_default()
        )
    }
}

struct Image {
    registry: FakeRegistry,
    index: Digest,
    children: Vec<Digest>,
}

impl Image {
    async fn serve(folder: &Path) -> Self {
        let registry = FakeRegistry::start().await;
        for file in std::fs::read_dir(folder.join("layout/blobs/sha256")).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            match json["mediaType"].as_str() {
                Some(media_type) => {
                    registry.put_manifest(REPOSITORY, &Content::new(Algorithm::Sha256, media_type, bytes));
                }
                None => {
                    registry.put_blob(REPOSITORY, bytes);
                }
            }
        }
        let layout: Value = serde_json::from_slice(&std::fs::read(folder.join("layout/index.json")).unwrap()).unwrap();
        let digest_of =
            |number: usize| layout["manifests"][number]["digest"].as_str().unwrap().parse::<Digest>().unwrap();
        let (index, attestations) = (digest_of(0), digest_of(1));
        registry.tag(REPOSITORY, TAG, index);
        registry.tag(REPOSITORY, &format!("sha256-{}.att", index.hex()), attestations);
        let bytes = std::fs::read(folder.join("layout/blobs/sha256").join(index.hex())).unwrap();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let children = document["manifests"].as_array().unwrap().iter();
        let children = children.map(|child| child["digest"].as_str().unwrap().parse().unwrap()).collect();
        Self { registry, index, children }
    }

    async fn mirror(&self, asked: &Asked, multi_arch: &str) -> TestSealgate {
        Setup::new("")
            .set("policy.containers_policy", "")
            .set("policy.cluster_image_policies", vec![toml::Value::from("policy-*.yaml")])
            .set("policy.multi_arch", multi_arch)
            .file("policy-slsa.yaml", asked.policy())
            .upstream("ghcr.io", self.registry.url())
            .start()
            .await
    }

    /// The status and the text of a pull by tag.
    async fn pull(&self, asked: &Asked) -> (u16, String) {
        let mirror = self.mirror(asked, "index-or-every-leaf").await;
        let answer = mirror.get(&manifest(TAG)).await;
        mirror.stop().await;
        (answer.status, answer.text())
    }
}

fn manifest(reference: &str) -> String {
    format!("/v2/ghcr.io/{REPOSITORY}/manifests/{reference}")
}

async fn image() -> Option<Image> {
    Some(Image::serve(&fixtures()?.join("slsa-image")).await)
}

#[tokio::test]
async fn it_is_pulled_under_its_real_workflow_and_predicate_type_and_its_children_follow() {
    let Some(image) = image().await else { return };
    let mirror = image.mirror(&Asked::default(), "index-or-every-leaf").await;
    // Before its index is known, a child has only its own verdict.
    assert_eq!(mirror.get(&manifest(&image.children[0].to_string())).await.status, 403);
    let answer = mirror.get(&manifest(TAG)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(Digest::sha256(&answer.body), image.index);
    for child in &image.children {
        let answer = mirror.get(&manifest(&child.to_string())).await;
        assert_eq!(answer.status, 200, "{child}: {}", answer.text());
        let document: Value = serde_json::from_slice(&answer.body).unwrap();
        let layers = document["layers"].as_array().unwrap().iter();
        for blob in layers.chain([&document["config"]]).map(|blob| blob["digest"].as_str().unwrap()) {
            let answer = mirror.get(&format!("/v2/ghcr.io/{REPOSITORY}/blobs/{blob}")).await;
            assert_eq!(answer.status, 200, "{blob}");
            assert_eq!(Digest::sha256(&answer.body).to_string(), blob);
        }
    }
    let verdicts = mirror.admin_get("/api/v1/verdicts?decision=allow").await.text();
    assert!(verdicts.contains("attested by"), "{verdicts}");
    assert!(verdicts.contains("generator_container_slsa3.yml@refs/tags/v1.10.0"), "{verdicts}");
    mirror.stop().await;
}

#[tokio::test]
async fn another_workflow_ref_or_predicate_type_and_a_failing_rule_refuse_it() {
    let Some(image) = image().await else { return };
    let other_workflow =
        "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/generator_generic_slsa3.yml";
    for (what, asked, says) in [
        ("workflow", Asked { workflow: other_workflow, ..Asked::default() }, "no matching attestations"),
        ("ref", Asked { reference: "refs/tags/v1.9.0", ..Asked::default() }, "no matching attestations"),
        (
            "predicate type",
            Asked { predicate_type: Some("https://slsa.dev/provenance/v1"), ..Asked::default() },
            "its predicate type is https://slsa.dev/provenance/v0.2",
        ),
        (
            "rule",
            Asked {
                rule: "input.predicate.invocation.configSource.uri == \"git+https://evil.example\"",
                ..Asked::default()
            },
            "Rego",
        ),
        ("a plain signature", Asked { predicate_type: None, ..Asked::default() }, "no signatures found"),
    ] {
        let (status, text) = image.pull(&asked).await;
        assert_eq!(status, 403, "{what}: {text}");
        assert!(text.contains("failed policy: slsa") && text.contains(says), "{what}: {text}");
    }
}

#[tokio::test]
async fn under_leaf_only_its_children_have_nothing_of_their_own() {
    let Some(image) = image().await else { return };
    let mirror = image.mirror(&Asked::default(), "leaf-only").await;
    assert_eq!(mirror.get(&manifest(TAG)).await.status, 200, "an index passes, and grants nothing");
    assert_eq!(mirror.get(&manifest(&image.children[0].to_string())).await.status, 403);
    mirror.stop().await;
}
