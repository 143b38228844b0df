//! The public conformance cases of the Sigstore project, judged by our verifier. They are read from `SEALGATE_FIXTURES`.
//! `src/pull/discover/tests/conformance.rs` has them found in a registry first.

use sealgate::testing::ConformanceCase;
use sealgate::verify::{Place, VerifyError};

use crate::fixtures::fixtures;

/// All cases; none where the fixtures are not at hand.
fn cases() -> Vec<ConformanceCase> {
    fixtures().map(|folder| ConformanceCase::all(&folder.join("conformance/bundle-verify"))).unwrap_or_default()
}

#[test]
fn v_30_every_conformance_case_is_judged_right() {
    let (mut passed, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in cases() {
        let answer = case.judge(case.bundle.clone(), Place::Tag("bundle".to_owned()));
        match (case.should_pass(), &answer) {
            (true, Ok(())) => passed += 1,
            (false, Err(_)) => refused += 1,
            _ => wrong.push(format!("{}: {answer:?}", case.name)),
        }
    }
    println!(
        "conformance: {} cases, {passed} accepted, {refused} refused, {} wrong",
        passed + refused + wrong.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn v_30_as_referrers_bundles_older_than_v03_are_refused_and_all_others_judged_right() {
    for case in cases() {
        let answer = case.judge(case.bundle.clone(), Place::Referrer);
        if case.is_older() {
            assert!(matches!(answer, Err(VerifyError::BundleVersion { .. })), "{}: {answer:?}", case.name);
        } else {
            assert_eq!(answer.is_ok(), case.should_pass(), "{}: {answer:?}", case.name);
        }
    }
}
