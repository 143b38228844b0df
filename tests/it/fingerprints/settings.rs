//! What the configuration says beside the policies: every field of the settings, and of what they list.

use sealgate::oci::Digest;
use sealgate::policy::{
    BundlesWithoutIdentity, ClusterImagePolicies, ContainersPolicy, ContainersPolicyDocument, Exemption, Mode,
    MultiArch, NoMatch, Override, PolicyFile, RegistriesD, Settings,
};
use sealgate::testing::sigstore::FakeSigstore;
use sealgate::verify::SigstoreRoot;

use super::{now, of};

const CIP: &str = "{apiVersion: policy.sigstore.dev/v1beta1, kind: ClusterImagePolicy, metadata: {name: p}, \
                   spec: {images: [{glob: '**'}], authorities: [{static: {action: ACTION}}]}}";

fn containers_policy(kind: &str) -> ContainersPolicy {
    let text = format!(r#"{{"default": [{{"type": "{kind}"}}]}}"#);
    let document = ContainersPolicyDocument::parse(text.as_bytes()).unwrap();
    ContainersPolicy::resolve(document, &mut |_| Err("no files".to_owned())).unwrap()
}

fn root() -> SigstoreRoot {
    SigstoreRoot::from_json(FakeSigstore::from_seed(35, now()).trusted_root_json().as_bytes()).unwrap()
}

fn cluster_image_policies(action: &str) -> ClusterImagePolicies {
    let beside = |_: &str| Err("no files".to_owned());
    let text = CIP.replace("ACTION", action);
    let file = PolicyFile::parse("cip.yaml", text.as_bytes(), &mut { beside }).unwrap();
    ClusterImagePolicies::resolve(vec![file], &root()).unwrap()
}

fn registries_d(text: &str) -> RegistriesD {
    RegistriesD::parse(&[("a.yaml".to_owned(), text.as_bytes().to_vec())]).unwrap()
}

fn over() -> Override {
    Override::of("quay.io".parse().unwrap())
}

fn base() -> Settings {
    Settings {
        containers_policy: Some(containers_policy("reject")),
        cluster_image_policies: Some(cluster_image_policies("pass")),
        ..Settings::default()
    }
}

fn with(change: impl FnOnce(&mut Settings)) -> Digest {
    let mut settings = base();
    change(&mut settings);
    of(settings)
}

/// A field that is added to the settings, to an override or to an exemption does not compile here until it has its line.
#[test]
fn every_setting_changes_the_fingerprint_or_is_applied_when_a_verdict_is_read() {
    let Settings {
        containers_policy: _,
        cluster_image_policies: _,
        no_match: _,
        trust_root: _,
        registries_d: _,
        mode: _,
        multi_arch: _,
        overrides: _,
        exemptions: _,
    } = base();
    let Override { scope: _, mode: _, multi_arch: _, bundles_without_identity: _, max_image_bytes: _ } = over();
    let changing = [changed_formats(), changed_overrides()].concat();
    for (index, (name, fingerprint)) in changing.iter().enumerate() {
        for (earlier, other) in &changing[..index] {
            assert_ne!(fingerprint, other, "{name}, and {earlier}");
        }
    }
    let audited = Override { mode: Some(Mode::Audit), ..over() };
    let exemption = Exemption {
        scope: "quay.io/a/b:1".parse().unwrap(),
        reason: "a".to_owned(),
        owner: "b".to_owned(),
        expires: now(),
    };
    for (name, fingerprint) in [
        ("mode", with(|settings| settings.mode = Mode::Audit)),
        ("a scope's mode", with(|settings| settings.overrides = vec![audited])),
        ("an exemption", with(|settings| settings.exemptions = vec![exemption])),
        ("whom reports name; it has its own part in the key", with(|settings| settings.trust_root = Some(root()))),
    ] {
        assert_eq!(fingerprint, of(base()), "{name}");
    }
}

fn changed_formats() -> Vec<(&'static str, Digest)> {
    let policy_json = |policy| with(|settings| settings.containers_policy = policy);
    let policies = |policies| with(|settings| settings.cluster_image_policies = policies);
    let no_match = |no_match| with(|settings| settings.no_match = no_match);
    let multi_arch = |multi_arch| with(|settings| settings.multi_arch = multi_arch);
    let lookaside = registries_d("default-docker: {lookaside: 'https://a'}");
    vec![
        ("nothing", of(base())),
        ("another policy.json", policy_json(Some(containers_policy("insecureAcceptAnything")))),
        ("no policy.json", policy_json(None)),
        ("another ClusterImagePolicy", policies(Some(cluster_image_policies("fail")))),
        ("no ClusterImagePolicy", policies(None)),
        ("no_match allow", no_match(NoMatch::Allow)),
        ("no_match warn", no_match(NoMatch::Warn)),
        ("registries.d", with(|settings| settings.registries_d = lookaside)),
        ("multi_arch any", multi_arch(MultiArch::IndexOrAnyLeaf)),
        ("multi_arch leaf", multi_arch(MultiArch::LeafOnly)),
    ]
}

/// An override that says what holds anyway is another policy too: it outranks less specific ones.
fn changed_overrides() -> Vec<(&'static str, Digest)> {
    let one = |over| with(|settings| settings.overrides = vec![over]);
    let multi_arch = |multi_arch| one(Override { multi_arch: Some(multi_arch), ..over() });
    let bundles = |bundles| one(Override { bundles_without_identity: Some(bundles), ..over() });
    let size =
        |bytes, scope: &str| one(Override { max_image_bytes: Some(bytes), ..Override::of(scope.parse().unwrap()) });
    vec![
        ("multi_arch", multi_arch(MultiArch::LeafOnly)),
        ("multi_arch as it is", multi_arch(MultiArch::IndexOrEveryLeaf)),
        ("bundles", bundles(BundlesWithoutIdentity::DigestIsEnough)),
        ("bundles as it is", bundles(BundlesWithoutIdentity::Refused)),
        ("a size", size(1, "quay.io")),
        ("another size", size(2, "quay.io")),
        ("another scope", size(1, "ghcr.io")),
    ]
}

/// The keys are those that the reader's own error names.
#[test]
fn every_key_of_registries_d_changes_the_fingerprint_or_is_for_writers() {
    let fingerprint = |text: &str| with(|settings| settings.registries_d = registries_d(text));
    let known = |text: &str| {
        let error = RegistriesD::parse(&[("a.yaml".to_owned(), text.as_bytes().to_vec())]).unwrap_err();
        let keys = error.problem.rsplit("the keys here are ").next().unwrap().to_owned();
        keys.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(known("x: 1"), ["default-docker", "docker"]);
    let none = fingerprint("");
    let mut seen = vec![none];
    for key in known("default-docker: {x: 1}") {
        let (value, other) =
            if key == "use-sigstore-attachments" { ("false", "true") } else { ("'https://a'", "'https://b'") };
        for (at, value) in [
            ("default-docker: {KEY: V}", value),
            ("docker: {quay.io: {KEY: V}}", value),
            ("docker: {quay.io: {KEY: V}}", other),
        ] {
            let changed = fingerprint(&at.replace("KEY", &key).replace('V', value));
            match key.as_str() {
                "lookaside" | "use-sigstore-attachments" => {
                    assert!(!seen.contains(&changed), "{key}: {at} {value}");
                    seen.push(changed);
                }
                "sigstore" => assert!(seen.contains(&changed) && changed != none, "the old name of lookaside"),
                "lookaside-staging" | "sigstore-staging" => assert_eq!(changed, none, "{key}: nothing is written"),
                other => panic!("{other} has no line here"),
            }
        }
    }
}
