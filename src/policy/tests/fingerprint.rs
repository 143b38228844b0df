//! The order in which scopes are written changes nothing; `tests/it/fingerprints` has what does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn document_of_nothing() -> Value {
    json!({"default": [{"type": "reject"}]})
}

/// Scopes that overlap in every way there is, each asking for another key.
fn overlapping() -> Vec<String> {
    let by_digest = format!("{APP}@{}", digest());
    let scopes =
        ["", "*.io", "quay.io", "quay.io/team", APP, "quay.io/team/app:1", "quay.io/team/app:2", "ghcr.io", "*"];
    scopes.iter().map(|scope| (*scope).to_owned()).chain([by_digest]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn c_10_the_order_of_scopes_changes_neither_answers_nor_fingerprint(
        order in Just(overlapping()).prop_shuffle(),
        left_out in 0..10_usize,
    ) {
        let left_out = overlapping()[left_out].clone();
        let identity = |scope: &str| json!([{
            "type": "signedBaseLayer",
            "baseLayerIdentity": {"type": "remapIdentity", "prefix": "a.example", "signedPrefix": format!("s{}.example", scope.len())},
        }]);
        let written = |order: &[String]| {
            let scopes = order.iter().filter(|scope| **scope != left_out);
            let members: Vec<String> =
                scopes.map(|scope| format!("{}:{}", json!(scope), identity(scope))).collect();
            let text = format!(r#"{{"transports":{{"docker":{{{}}}}},"default":[{{"type":"reject"}}]}}"#, members.join(","));
            let parsed = ContainersPolicyDocument::parse(text.as_bytes()).unwrap();
            let containers_policy = ContainersPolicy::resolve(parsed, &mut |_| Err(String::new())).unwrap();
            let base = settings(&document_of_nothing());
            PolicySet::new(Settings { containers_policy: Some(containers_policy), ..base }).unwrap()
        };
        let (plain, shuffled) = (written(&overlapping()), written(&order));
        prop_assert_eq!(plain.fingerprint(), shuffled.fingerprint());
        // Most specific first; the first that is there decides.
        let by_digest = format!("{APP}@{}", digest());
        let expected: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
            ("quay.io/team/app:1", vec!["quay.io/team/app:1", APP, "quay.io/team"]),
            ("quay.io/team/other:1", vec!["quay.io/team", "quay.io"]),
            ("quay.io/x/y:1", vec!["quay.io", "*.io"]),
            ("docker.io/a/b:1", vec!["*.io", ""]),
            ("gcr.test/a:1", vec![""]),
            (by_digest.as_str(), vec![by_digest.as_str(), APP]),
        ]);
        for (name, scopes) in expected {
            let wanted = scopes.into_iter().find(|scope| *scope != left_out);
            let (name, now) = (image(name), now());
            prop_assert_eq!(plain.explain(&name, now).containers_policy.unwrap().scope, wanted);
            prop_assert_eq!(shuffled.explain(&name, now).containers_policy.unwrap().scope, wanted);
        }
    }
}
