//! Every bound on the time of a search, on both sides, by a clock that the runtime moves.

use super::*;
use crate::limits::{DISCOVERY_BUDGET, REPORT_DISCOVERY_BUDGET, REPORT_QUEUE_BYTES_MAX};
use crate::policy::{ClusterImagePolicies, LookasideBase, Mode, PolicyFile};
use crate::pull::PullError;
use crate::testing::put_lookaside;
use crate::testing::sigstore::FakeSigstore;
use crate::verify::SigstoreRoot;

/// Enough for everything that happens without waiting.
const SLACK: Duration = Duration::from_millis(100);

/// What is found of one signature, bundle and lookaside signature when one path answers after that time, and how long it takes.
async fn search(path: &str, delay: Duration) -> (Arc<Discovered>, Duration) {
    let bench = Bench::new().await;
    bench.put_signatures(&["signature"]);
    bench.put_bundle("bundle");
    put_lookaside(&bench.registry, REPOSITORY, &bench.subject.digest, &[vec![0xa3, 1]]);
    bench.registry.fault(Fault::on(path).delay(delay));
    let base: LookasideBase = bench.registry.lookaside_url().parse().unwrap();
    let wanted = Wanted { lookaside: Some(base), ..wanted(&[Signatures, Bundles]) };
    let began = Instant::now();
    (bench.find_wanted(&wanted, DISCOVERY_BUDGET).await, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_in_time_counts_and_what_is_listed_later_is_missing_while_the_rest_is_read() {
    let listing = DISCOVERY_BUDGET.mul_f32(LISTING_PART);
    for path in ["*.sig", "*/referrers/*"] {
        let (found, took) = search(path, listing.saturating_sub(SLACK)).await;
        assert!(is_clean(&found) && found.material.candidates.len() == 3, "{path}: {found:?}");
        assert!(took < listing + SLACK, "{path}: {took:?}");
        let (found, took) = search(path, listing + SLACK).await;
        assert!(matches!(found.missing.as_ref().unwrap().cause, UpstreamError::Timeout { .. }), "{path}");
        assert_eq!(found.material.candidates.len(), 2, "{path}: what the others have is read");
        assert!(took < listing + SLACK, "{path}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_read_in_time_counts_and_what_comes_later_is_missing() {
    for path in ["*/blobs/*", "/lookaside/*/signature-1"] {
        let (found, took) = search(path, DISCOVERY_BUDGET.saturating_sub(SLACK)).await;
        assert!(is_clean(&found) && found.material.candidates.len() == 3, "{path}: {found:?}");
        assert!(took < DISCOVERY_BUDGET, "{path}: {took:?}");
        let (found, took) = search(path, DISCOVERY_BUDGET + SLACK).await;
        assert!(matches!(found.missing.as_ref().unwrap().cause, UpstreamError::Timeout { .. }), "{path}");
        assert!(took < DISCOVERY_BUDGET + SLACK, "{path}: {took:?}");
    }
}

/// A puller's policy: what only warns where `warn`, else audit mode over a policy that accepts anything.
fn policy(warn: bool, sigstore: &FakeSigstore) -> PolicySettings {
    let root = SigstoreRoot::from_json(sigstore.trusted_root_json().as_bytes()).unwrap();
    let authority = json!({ "key": { "data": sigstore.key("k").public_pem() }, "signatureFormat": "bundle" });
    let document = json!({
        "apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": { "name": "warns" },
        "spec": { "mode": "warn", "images": [{ "glob": "**" }], "authorities": [authority] },
    });
    let file = PolicyFile::parse("a.yaml", document.to_string().as_bytes(), &mut |_| Err("no files".to_owned()));
    let document = ContainersPolicyDocument::parse(crate::testing::ACCEPT_ANYTHING.as_bytes()).unwrap();
    let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
    PolicySettings {
        containers_policy: Some(policy),
        cluster_image_policies: warn.then(|| ClusterImagePolicies::resolve(vec![file.unwrap()], &root).unwrap()),
        mode: if warn { Mode::Enforce } else { Mode::Audit },
        trust_root: Some(root),
        ..PolicySettings::default()
    }
}

async fn under(warn: bool) -> Bench {
    let bench = Bench::new().await;
    let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
    let policy = PolicySet::new(policy(warn, &sigstore)).unwrap();
    let snapshot = Snapshot { policy, ..snapshot() };
    bench.puller.parts.snapshot.store(Arc::new(snapshot));
    bench
}

/// How long an answer takes under that policy while the referrers need so long, and then its report.
async fn answered(warn: bool, delay: Duration) -> (Duration, Duration, Value) {
    let bench = under(warn).await;
    bench.registry.fault(Fault::on("*/referrers/*").delay(delay));
    let image = format!("{HOST}/{REPOSITORY}:1").parse().unwrap();
    let began = Instant::now();
    let admitted: Result<_, PullError> = bench.puller.manifest(&image).await;
    let answered = began.elapsed();
    bench.puller.reported().await;
    let reported = began.elapsed();
    let (_, evidence) = bench.store.verdict_by_id(&admitted.unwrap().verdict().unwrap()).await.unwrap();
    (answered, reported, evidence.unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_only_warnings_depend_on_is_waited_for_within_its_bound() {
    let listing = REPORT_DISCOVERY_BUDGET.mul_f32(LISTING_PART);
    for (delay, incomplete) in [(listing.saturating_sub(SLACK), false), (listing + SLACK, true)] {
        let (answered, _, evidence) = answered(true, delay).await;
        assert!(answered >= delay.min(listing) && answered < listing + SLACK, "{delay:?}: {answered:?}");
        let text = evidence["text"].as_str().unwrap();
        assert!(text.contains("no signatures found"), "{text}");
        assert_eq!(text.contains("not all signatures could be looked at"), incomplete, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_is_waited_for_by_nobody_and_ends_within_its_bound() {
    let listing = REPORT_DISCOVERY_BUDGET.mul_f32(LISTING_PART);
    for (delay, gaps) in [(listing.saturating_sub(SLACK), 0), (listing + SLACK, 1), (Duration::from_hours(1), 1)] {
        let (answered, reported, evidence) = answered(false, delay).await;
        assert!(answered < SLACK, "{delay:?}: {answered:?}");
        assert!(reported >= delay.min(listing) && reported < listing + SLACK, "{delay:?}: {reported:?}");
        assert_eq!(evidence["not_reported"].as_array().unwrap().len(), gaps, "{delay:?}: {evidence}");
    }
}

#[tokio::test]
async fn a_report_for_which_there_is_no_room_is_not_made_and_counted() {
    for (full, outcome) in [(false, "done"), (true, "queue_full")] {
        let bench = under(false).await;
        let taken = full.then(|| bench.puller.parts.reports.place(REPORT_QUEUE_BYTES_MAX).unwrap());
        let image = format!("{HOST}/{REPOSITORY}:1").parse().unwrap();
        let verdict = bench.puller.manifest(&image).await.unwrap().verdict().unwrap();
        drop(taken);
        bench.puller.reported().await;
        let metrics = bench.puller.parts.telemetry.render();
        for one in ["done", "queue_full", "outdated", "failed"] {
            let line = format!("sealgate_audit_reports_total{{outcome=\"{one}\"}} {}", usize::from(one == outcome));
            assert!(metrics.lines().any(|found| found == line), "{full}: {line} is not in\n{metrics}");
        }
        let (_, evidence) = bench.store.verdict_by_id(&verdict).await.unwrap();
        let why = &evidence.unwrap()["not_reported"][0]["why"];
        assert_eq!(why.as_str().is_some_and(|why| why.contains("too many images")), full, "{why}");
    }
}

/// A registry that hangs costs a lookaside server no time, nor the other way round.
#[tokio::test(start_paused = true)]
async fn places_are_searched_at_once() {
    for path in ["*.sig", "*/blobs/*", "/lookaside/*/signature-1"] {
        let half = DISCOVERY_BUDGET / 2;
        let (found, took) = search(path, half).await;
        assert!(is_clean(&found) && found.material.candidates.len() == 3, "{path}: {found:?}");
        assert!(took < half + SLACK, "{path}: {took:?}");
        let bench_time = search("*", Duration::from_secs(1)).await.1;
        // Two rounds in the registry (list and manifest or payload), three for a bundle; two at the lookaside server.
        assert!(bench_time < Duration::from_secs(3) + SLACK, "{bench_time:?}");
    }
}

/// What a decision needs is waited for as long as its search takes, and then there is no answer.
#[tokio::test(start_paused = true)]
async fn what_a_decision_needs_is_waited_for_within_its_bound_and_then_there_is_no_answer() {
    for (delay, decided) in [(DISCOVERY_BUDGET.mul_f32(LISTING_PART).saturating_sub(SLACK), true), (LIFE, false)] {
        let bench = Bench::new().await;
        let sigstore = FakeSigstore::from_seed(7, Clock::System.now());
        let document = json!({ "default": [crate::testing::sigstore::key_requirement(&sigstore.key("k"))] });
        let document = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
        let policy = ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap();
        let policy = PolicySet::new(PolicySettings { containers_policy: Some(policy), ..PolicySettings::default() });
        bench.puller.parts.snapshot.store(Arc::new(Snapshot { policy: policy.unwrap(), ..snapshot() }));
        bench.registry.fault(Fault::on("*.sig").delay(delay));
        let began = Instant::now();
        let answer = bench.puller.manifest(&format!("{HOST}/{REPOSITORY}:1").parse().unwrap()).await;
        let took = began.elapsed();
        match answer {
            Err(PullError::Denied(_)) => assert!(decided, "{delay:?}"),
            Err(PullError::Undecided { .. }) => assert!(!decided, "{delay:?}"),
            other => panic!("{delay:?}: {other:?}"),
        }
        assert!(took < DISCOVERY_BUDGET.mul_f32(LISTING_PART) + SLACK, "{delay:?}: {took:?}");
    }
}
