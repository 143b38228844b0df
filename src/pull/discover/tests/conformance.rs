//! The public conformance cases of the Sigstore project, found in a registry as every bundle is.

use super::*;
use crate::testing::ConformanceCase;
use crate::verify::VerifyError;

/// The bundle is the layer of a manifest whose subject is the artifact's digest. Discovery finds it among the artifact's
/// referrers, fetches it, and it is judged as what it was found as. There bundles older than v0.3 are refused for that alone; so
/// that they are judged too, they are asked about once more as if their version did not matter.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test asks the environment where its fixtures are")]
#[expect(clippy::print_stdout, reason = "the count is read by people")]
async fn v_30_every_conformance_case_is_judged_right_from_a_registry() {
    let Ok(fixtures) = std::env::var("SEALGATE_FIXTURES") else {
        println!("skipped: SEALGATE_FIXTURES is not set");
        return;
    };
    let cases = ConformanceCase::all(&std::path::Path::new(&fixtures).join("conformance/bundle-verify"));
    let bench = Bench::new().await;
    let (mut accepted, mut refused, mut older, mut wrong) = (0, 0, 0, Vec::new());
    for case in &cases {
        let material = bench.found_in_registry(case).await;
        let as_found = case.judge_material(&material);
        let answer = if case.is_older() {
            assert!(matches!(as_found, Err(VerifyError::BundleVersion { .. })), "{}: {as_found:?}", case.name);
            older += 1;
            case.judge(material.bytes().clone(), Place::Tag("bundle".to_owned()))
        } else {
            as_found
        };
        match (case.should_pass(), &answer) {
            (true, Ok(())) => accepted += 1,
            (false, Err(_)) => refused += 1,
            _ => wrong.push(format!("{}: {answer:?}", case.name)),
        }
    }
    println!(
        "conformance from a registry: {} cases found by discovery, {accepted} accepted, {refused} refused, {} wrong; {older} of \
         them are older than v0.3, and refused as referrers for that",
        cases.len(),
        wrong.len()
    );
    assert_eq!(accepted + refused + wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Bench {
    async fn found_in_registry(&self, case: &ConformanceCase) -> SignatureMaterial {
        let name = format!("conformance/{}", case.name.to_lowercase().replace('_', "-"));
        let subject = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": case.artifact.to_string(), "size": 1});
        let artefact =
            ImageBuilder::artefact(BUNDLE_TYPE).subject(subject).layer_of(BUNDLE_TYPE, case.bundle.clone(), &[]);
        self.registry.put_untagged(&name, &artefact.build());
        let (since, deadline) = (self.clock.now().minus(LIFE), Instant::now() + Duration::from_mins(1));
        let wanted = wanted(&[MaterialKind::Bundles]);
        let found = self
            .puller
            .discover(&repository(&name), &case.artifact, &wanted, since, (Level::Verdict(Depth::TOP), deadline))
            .await
            .found;
        assert!(found.missing.is_none() && !found.material.more, "{}: {found:?}", case.name);
        let [candidate] = found.material.candidates.as_slice() else {
            panic!("{}: one bundle is found: {:?}", case.name, found.material)
        };
        assert!(candidate.bytes() == &case.bundle, "{}", case.name);
        candidate.clone()
    }
}
