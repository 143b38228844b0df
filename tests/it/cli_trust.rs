//! `sealgate trust`: what is trusted, from where, and for how long.

use sealgate::clock::{Clock, Timestamp};
use sealgate::testing::sigstore::FakeSigstore;
use serde_json::Value;

use crate::program::Place;

const POLICY: &str = r#"{"default": [{"type": "reject"}]}"#;

/// Snapshots without what differs from day to day and between instances.
fn filtered() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"sha256:[0-9a-f]{64}", "sha256:DIGEST");
    settings.add_filter(r"fingerprint [0-9a-f]{12}", "fingerprint FINGERPRINT");
    settings.add_filter(r"\(\d+ days? ago\)|\(today\)", "(AGE)");
    settings.add_filter(r"\n  warning: it is \d+ days old[^\n]*\n", "\n");
    settings.bind_to_scope()
}

#[test]
fn trust_show_names_everybody_that_the_built_in_root_trusts_with_their_windows() {
    let _filters = filtered();
    let place = Place::with_policy(POLICY);
    insta::assert_snapshot!("trust_show", place.run(&["trust", "show"]));
}

#[test]
fn trust_show_tells_programs_where_the_root_comes_from_how_old_it_is_and_which_windows_have_ended() {
    let place = Place::with_policy(POLICY);
    let ran = place.run(&["trust", "show", "--output", "json"]);
    let root: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.status, root["source"].as_str()), (0, Some("built_in")));
    let as_of: Timestamp = root["as_of"].as_str().unwrap().parse().unwrap();
    let age = i64::try_from(Clock::System.now().since(as_of).as_secs()).unwrap();
    assert!((age - root["age_seconds"].as_i64().unwrap()).abs() < 3600);
    let trusted = root["trusted"].as_array().unwrap();
    let windows = |role: &str| -> Vec<&str> {
        trusted.iter().filter(|one| one["role"] == role).map(|one| one["window"].as_str().unwrap()).collect()
    };
    assert_eq!(windows("certificate_authority"), ["ended", "current"]);
    assert_eq!(windows("certificate_log"), ["ended", "current"]);
    assert!(windows("transparency_log").contains(&"current") && windows("timestamp_authority").contains(&"current"));
}

#[test]
fn trust_show_warns_of_a_role_for_which_nobody_is_left_and_needs_no_usable_policy() {
    let place = Place::with_policy("no JSON at all");
    let root = FakeSigstore::from_seed(1, Clock::System.now()).trusted_root_json();
    let mut root: Value = serde_json::from_str(&root).unwrap();
    for log in root["tlogs"].as_array_mut().unwrap() {
        log["publicKey"]["validFor"]["end"] = "2024-05-06T07:08:09Z".into();
    }
    place.write("config/root.json", &root.to_string());
    place
        .write("config/sealgate.toml", "[policy]\ncontainers_policy = \"policy.json\"\ntrusted_root = \"root.json\"\n");
    let ran = place.run(&["trust", "show"]);
    assert_eq!(ran.status, 0, "{ran}");
    assert!(ran.stdout.contains("config/root.json") && ran.stdout.contains("ended"), "{ran}");
    assert!(ran.stdout.contains("no transparency log is trusted any more since 2024-05-06T07:08:09Z"), "{ran}");

    place.write("config/root.json", "{}");
    let ran = place.run(&["trust", "show"]);
    assert_eq!(ran.status, 2, "{ran}");
    assert!(ran.stderr.contains("policy.trusted_root"), "{ran}");
}
