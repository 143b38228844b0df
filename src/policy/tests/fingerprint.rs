//! Nothing that changes an answer leaves the fingerprint as it was, and nothing else changes it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn fingerprint(document: &Value) -> Digest {
    PolicySet::new(settings(document)).unwrap().fingerprint()
}

#[test]
fn the_fingerprint_changes_with_whatever_changes_an_answer() {
    let base = document(&json!([requirement("a"), {"type": "insecureAcceptAnything"}]));
    let mut seen = std::collections::BTreeMap::from([(fingerprint(&base), "base".to_owned())]);
    let mut differs = |what: &str, fingerprint: Digest| {
        assert_eq!(seen.insert(fingerprint, what.to_owned()), None, "{what}");
    };
    let mut change = |what: &str, change: &dyn Fn(&mut Value)| {
        let mut changed = base.clone();
        change(&mut changed);
        differs(what, fingerprint(&changed));
    };
    let first = "/transports/docker/quay.io/0";
    change("another key", &|policy| *policy.pointer_mut(first).unwrap() = requirement("b"));
    change("another identity", &|policy| {
        policy.pointer_mut(first).unwrap()["signedIdentity"]["type"] = json!("matchExact");
    });
    change("one more scope", &|policy| policy["transports"]["docker"]["ghcr.io"] = json!([{"type": "reject"}]));
    change("another default", &|policy| policy["default"] = json!([{"type": "insecureAcceptAnything"}]));
    change("another order of requirements", &|policy| {
        policy.pointer_mut("/transports/docker/quay.io").unwrap().as_array_mut().unwrap().reverse();
    });
    change("a log", &|policy| {
        *policy.pointer_mut(first).unwrap() = sigstore().logged_key_requirement(&sigstore().key("a"));
    });
    let multi_arch = Settings { multi_arch: MultiArch::LeafOnly, ..settings(&base) };
    differs("multi_arch", PolicySet::new(multi_arch).unwrap().fingerprint());
    let over = |mode, multi_arch| {
        let over = Override { mode, multi_arch, ..Override::of("quay.io".parse().unwrap()) };
        PolicySet::new(Settings { overrides: vec![over], ..settings(&base) }).unwrap().fingerprint()
    };
    differs("an override of multi_arch", over(None, Some(MultiArch::LeafOnly)));
    let over_other =
        |over| PolicySet::new(Settings { overrides: vec![over], ..settings(&base) }).unwrap().fingerprint();
    let of = || Override::of("quay.io".parse().unwrap());
    let bundles = Some(BundlesWithoutIdentity::DigestIsEnough);
    differs("an override of bundles", over_other(Override { bundles_without_identity: bundles, ..of() }));
    differs("an override of the size", over_other(Override { max_image_bytes: Some(1), ..of() }));
    assert_eq!(over(Some(Mode::Audit), None), fingerprint(&base), "a mode is applied when the verdict is read");
    let audit = Settings { mode: Mode::Audit, ..settings(&base) };
    assert_eq!(PolicySet::new(audit).unwrap().fingerprint(), fingerprint(&base));
}

#[test]
fn the_fingerprint_does_not_depend_on_where_a_key_was_read() {
    let key = sigstore().key("a").public_pem().into_bytes();
    let resolve = |path: &str| {
        let document = document(&json!([{"type": "sigstoreSigned", "keyPath": path}]));
        let parsed = ContainersPolicyDocument::parse(document.to_string().as_bytes()).unwrap();
        let containers_policy = ContainersPolicy::resolve(parsed, &mut |_| Ok(key.clone())).unwrap();
        let settings = Settings { containers_policy: Some(containers_policy), ..settings(&document_of_nothing()) };
        PolicySet::new(settings).unwrap().fingerprint()
    };
    assert_eq!(resolve("/a.pub"), resolve("keys/b.pub"));
}

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
