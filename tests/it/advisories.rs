//! The public advisories of other verifiers, mirrors and registries: each has a row in `docs/threat-model.md`, and a test that
//! carries its id in its name or in the comment before it.

use sealgate::testing::sigstore::{FakeKey, key_requirement};
use sealgate::testing::{FakeRegistry, Fault, ImageBuilder, TestSealgate};
use serde_json::json;

use crate::catalogue::{tests_by_name, tests_in, threat_model};

/// Every advisory that is known to bear on a verifying mirror; to be looked through again before each release.
const ADVISORIES: [&str; 72] = [
    "CVE-2014-8179",
    "CVE-2017-11468",
    "CVE-2019-10214",
    "CVE-2020-15157",
    "CVE-2021-41087",
    "CVE-2022-23649",
    "CVE-2022-29173",
    "CVE-2022-35929",
    "CVE-2022-35930",
    "CVE-2022-36056",
    "CVE-2022-47633",
    "CVE-2023-2253",
    "CVE-2023-25656",
    "CVE-2023-30551",
    "CVE-2023-33199",
    "CVE-2023-33957",
    "CVE-2023-33958",
    "CVE-2023-33959",
    "CVE-2023-42813",
    "CVE-2023-42814",
    "CVE-2023-42815",
    "CVE-2023-42816",
    "CVE-2023-46737",
    "CVE-2023-47122",
    "CVE-2023-47630",
    "CVE-2024-3727",
    "CVE-2024-23332",
    "CVE-2024-29902",
    "CVE-2024-29903",
    "CVE-2024-39897",
    "CVE-2024-45395",
    "CVE-2024-47534",
    "CVE-2024-48921",
    "CVE-2024-51491",
    "CVE-2024-51746",
    "CVE-2024-53267",
    "CVE-2025-27403",
    "CVE-2025-29778",
    "CVE-2025-46342",
    "CVE-2025-66564",
    "CVE-2026-22703",
    "CVE-2026-23831",
    "CVE-2026-23991",
    "CVE-2026-23992",
    "CVE-2026-24122",
    "CVE-2026-24137",
    "CVE-2026-24686",
    "CVE-2026-32280",
    "CVE-2026-33540",
    "CVE-2026-35172",
    "CVE-2026-39395",
    "CVE-2026-39984",
    "CVE-2026-44310",
    "CVE-2026-48978",
    "CVE-2026-49834",
    "CVE-2026-50195",
    "CVE-2026-54787",
    "CVE-2026-85747",
    "CVE-2026-111361",
    "CVE-2026-122321",
    "GHSA-5j5w-g665-5m35",
    "GHSA-cvxm-645q-p574",
    "GHSA-gg4x-fgg2-h9w9",
    "GHSA-pggw-qqjf-6cxw",
    "GHSA-pmwq-pjrm-6p5r",
    "GHSA-qq97-vm5h-rrhg",
    "artifact-keeper#2929",
    "artifact-keeper#3606",
    "go-containerregistry#2193",
    "kyverno#16336",
    "nora#581",
    "policy-controller#1971",
];

#[test]
fn every_advisory_has_a_row_and_a_test_that_carries_its_id() {
    let (page, tests) = (threat_model(), tests_by_name());
    let rows = table(&page);
    let mut wrong = Vec::new();
    for id in ADVISORIES {
        let Some(row) = rows.iter().find(|row| ids(row).any(|found| found == id)) else {
            wrong.push(format!("{id} has no row"));
            continue;
        };
        let carries = |name: &str, comment: &str| {
            let in_name = name.contains(&id.to_lowercase().replace('-', "_"));
            in_name || words(comment).any(|word| word == id)
        };
        if !tests_in(row).any(|name| tests.get(name).is_some_and(|comment| carries(name, comment))) {
            wrong.push(format!("{id}: none of the tests in its row carries it"));
        }
    }
    for row in rows {
        wrong.extend(tests_in(row).filter(|name| !tests.contains_key(*name)).map(|name| format!("no test {name}")));
        wrong.extend(ids(row).filter(|id| !ADVISORIES.contains(id)).map(|id| format!("{id} is not in the list")));
    }
    assert!(wrong.is_empty(), "docs/threat-model.md, Advisories:\n{}", wrong.join("\n"));
}

/// CVE-2026-50195, GHSA-cvxm-645q-p574: what a client does with its own store is out of a mirror's reach.
#[test]
fn what_a_mirror_cannot_prevent_is_said() {
    let page = threat_model();
    let section = page.split("## What is not protected").nth(1).unwrap();
    assert!(section.contains("CVE-2026-50195"), "the page says that poisoned local tags are not prevented");
}

/// kyverno#16336: what anybody can write down decides nothing.
#[tokio::test]
async fn t18_what_clients_images_and_upstreams_say_about_verdicts_changes_none() {
    let registry = FakeRegistry::start().await;
    let claim = "allow; id=0000000000000000";
    let image = ImageBuilder::new(18)
        .layer(1000)
        .annotation("sealgate-verdict", claim)
        .annotation("Sealgate-Verdict", claim)
        .annotation("kyverno.io/verify-images", r#"{"registry.test/team/app:1": true}"#)
        .annotation("dev.cosignproject.cosign/signature", "c2lnbmVk")
        .build();
    registry.put("team/app", "1", &image);
    registry.fault(Fault::on("*").header("sealgate-verdict", claim).header("cache-status", "sealgate; hit"));
    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {"registry.test": [key_requirement(&FakeKey::p256(18, "nobody signed"))]}},
    });
    let mirror = TestSealgate::with_policy(&policy.to_string()).upstream("registry.test", registry.url()).start().await;
    let headers = [("sealgate-verdict", claim), ("sealgate-admin", "1"), ("x-sealgate-mode", "audit")];
    for target in ["/v2/team/app/manifests/1".to_owned(), format!("/v2/team/app/manifests/{}", image.digest())] {
        for method in ["GET", "HEAD"] {
            let answer = mirror.request(method, &target, &headers).await;
            assert_eq!(answer.status, 403, "{method} {target}: {}", answer.reason);
            assert_ne!(answer.header("sealgate-verdict"), Some(claim), "{method} {target}");
        }
    }
    let blob = format!("/v2/team/app/blobs/{}", image.blobs[1].digest);
    assert_eq!(mirror.request("GET", &blob, &headers).await.status, 404);
    mirror.stop().await;
}

/// The rows of the table, without its head.
fn table(page: &str) -> Vec<&str> {
    let section = page.split("## Advisories").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| advisory")).collect()
}

/// The ids in the first cell.
fn ids(row: &str) -> impl Iterator<Item = &str> {
    words(row.split('|').nth(1).unwrap())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', ':', ';', '.', '(', ')']).filter(|word| !word.is_empty())
}
