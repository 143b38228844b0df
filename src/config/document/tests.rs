use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use super::*;
use crate::config::BUILT_IN_CONFIG;

/// The annotated file with every key set: `#key = value` and `#[table]` lines uncommented.
fn with_every_key() -> String {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|char: char| char.is_ascii_lowercase() || char == '[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    BUILT_IN_CONFIG.lines().map(uncommented).collect::<Vec<_>>().join("\n")
}

/// The keys that a table can have, as serde names them when it meets an unknown one.
fn keys_of<T: DeserializeOwned>() -> BTreeSet<String> {
    let error = toml::from_str::<T>("\"?\" = 1").err().unwrap().message().to_owned();
    let expected = error.split_once("expected").unwrap().1;
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn keys_in(tables: &toml::Value, path: &[&str]) -> BTreeSet<String> {
    match (tables, path) {
        (toml::Value::Array(items), path) => items.iter().flat_map(|item| keys_in(item, path)).collect(),
        (toml::Value::Table(table), [first, rest @ ..]) => {
            table.get(*first).map_or_else(BTreeSet::new, |inner| keys_in(inner, rest))
        }
        (toml::Value::Table(table), []) => table.keys().cloned().collect(),
        _ => BTreeSet::new(),
    }
}

#[test]
fn the_annotated_file_is_a_configuration_with_and_without_its_commented_keys() {
    toml::from_str::<Document>(BUILT_IN_CONFIG).unwrap();
    toml::from_str::<Document>(&with_every_key()).unwrap();
}

#[test]
fn the_annotated_file_names_every_key_there_is() {
    let file: toml::Value = toml::from_str(&with_every_key()).unwrap();
    assert_eq!(keys_in(&file, &[]), keys_of::<Document>());
    assert_eq!(keys_in(&file, &["server"]), keys_of::<Server>());
    assert_eq!(keys_in(&file, &["server", "tls"]), keys_of::<Tls>());
    assert_eq!(keys_in(&file, &["policy"]), keys_of::<Policy>());
    assert_eq!(keys_in(&file, &["policy", "override"]), keys_of::<Override>());
    assert_eq!(keys_in(&file, &["policy", "exemption"]), keys_of::<Exemption>());
    assert_eq!(keys_in(&file, &["trust"]), keys_of::<Trust>());
    assert_eq!(keys_in(&file, &["trust", "tuf"]), keys_of::<Tuf>());
    assert_eq!(keys_in(&file, &["upstream"]), keys_of::<Upstream>());
    assert_eq!(keys_in(&file, &["upstream", "tags"]), keys_of::<Tags>());
    assert_eq!(keys_in(&file, &["upstream", "fallback"]), keys_of::<Fallback>());
    assert_eq!(keys_in(&file, &["cache"]), keys_of::<Cache>());
    assert_eq!(keys_in(&file, &["verdicts"]), keys_of::<Verdicts>());
    assert_eq!(keys_in(&file, &["refusal"]), keys_of::<Refusal>());
    assert_eq!(keys_in(&file, &["log"]), keys_of::<Log>());
}

#[test]
fn values_in_the_annotated_file_are_the_defaults_but_for_the_mode_and_the_paths() {
    let file: Document = toml::from_str(BUILT_IN_CONFIG).unwrap();
    let default = Document::default();
    assert_eq!(text(&file.server), text(&default.server));
    assert_eq!(text(&file.trust), text(&default.trust));
    assert_eq!(text(&file.cache), text(&default.cache));
    assert_eq!(text(&file.verdicts), text(&default.verdicts));
    assert_eq!(text(&file.refusal), text(&default.refusal));
    assert_eq!(text(&file.log), text(&default.log));
    assert_eq!(file.policy.multi_arch, default.policy.multi_arch);
    assert_eq!((file.policy.mode, default.policy.mode), (Mode::Audit, Mode::Enforce));
    assert_eq!(
        (file.upstream[0].tag_ttl, file.upstream[0].stale_if_error),
        (upstream::tag_ttl(), upstream::stale_if_error())
    );
}

#[test]
fn an_unknown_key_is_an_error_in_every_table() {
    for table in ["", "[server]", "[policy]", "[trust]", "[trust.tuf]", "[cache]", "[verdicts]", "[refusal]", "[log]"] {
        assert!(toml::from_str::<Document>(&format!("{table}\nlisten_on = 1\n")).is_err(), "{table}");
    }
    for table in [
        "[server.tls]\ncert=\"a\"\nkey=\"b\"",
        "[[upstream]]\nhost=\"a.b\"",
        "[[upstream]]\nhost=\"a.b\"\n[[upstream.tags]]\npattern=\"a:b\"",
        "[[upstream]]\nhost=\"a.b\"\n[[upstream.fallback]]\nendpoint=\"https://b.b\"",
        "[[policy.override]]\nscope=\"\"",
    ] {
        assert!(toml::from_str::<Document>(table).is_ok(), "{table}");
        assert!(toml::from_str::<Document>(&format!("{table}\nlisten_on = 1\n")).is_err(), "{table}");
    }
}

#[test]
fn no_key_skips_the_verification_of_tls() {
    let keys: Vec<String> =
        [keys_of::<Upstream>(), keys_of::<Fallback>(), keys_of::<Tls>()].into_iter().flatten().collect();
    for word in ["insecure", "skip", "verify", "tls_"] {
        assert!(!keys.iter().any(|key| key.contains(word)), "{word}: {keys:?}");
    }
}

fn text(part: &impl Serialize) -> String {
    toml::to_string(part).unwrap()
}
