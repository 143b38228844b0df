//! Whatever changes an answer changes the fingerprint that verdicts are kept under, so that no old verdict counts under another
//! policy; and what changes none leaves it, so that no verdict is thrown away for nothing.
//!
//! The readers accept keys from tables, and these tests walk the same tables: a key that is added there without a row here
//! fails the build. A row changes that key alone in a policy that loads before and after.

mod cluster_image_policy;
mod containers_policy;
mod settings;

use std::collections::BTreeSet;

use sealgate::clock::{Clock, Timestamp};
use sealgate::oci::Digest;
use sealgate::policy::{FormatKey, PolicySet, Settings};
use serde_json::Value;

/// What a change of a key does to the fingerprint.
#[derive(Debug, Clone, Copy)]
enum Effect {
    Changes,
    /// It changes no answer, and why.
    Stays(&'static str),
    /// There is no other value of it; the one that is tried does not load.
    OnlyValue,
}

/// A key, where it stands in the document, another value, and what that does.
struct Row {
    key: &'static str,
    at: String,
    value: Value,
    effect: Effect,
}

fn row(key: &'static str, at: impl Into<String>, value: impl Into<Value>, effect: Effect) -> Row {
    Row { key, at: at.into(), value: value.into(), effect }
}

/// Every key has a row, every row a key, and each does what it says.
fn all_hold(
    keys: impl Iterator<Item = FormatKey>,
    base: &Value,
    rows: &[Row],
    fingerprint: impl Fn(&Value) -> Result<Digest, String>,
) {
    let enforced: BTreeSet<String> = keys.filter(|key| key.refused.is_none()).map(|key| key.to_string()).collect();
    let shown: BTreeSet<String> = rows.iter().map(|row| row.key.to_owned()).collect();
    let untested: Vec<_> = enforced.difference(&shown).collect();
    assert!(untested.is_empty(), "keys without a row that shows what they do to the fingerprint: {untested:#?}");
    let unknown: Vec<_> = shown.difference(&enforced).collect();
    assert!(unknown.is_empty(), "rows of keys that no table lists: {unknown:#?}");
    let before = fingerprint(base).unwrap();
    assert_eq!(fingerprint(base).unwrap(), before, "it depends on nothing else");
    for Row { key, at, value, effect } in rows {
        let mut changed = base.clone();
        let place = changed.pointer_mut(at).unwrap_or_else(|| panic!("{key}: nothing stands at {at}"));
        assert_ne!(place, value, "{key}: the same value");
        *place = value.clone();
        match (effect, fingerprint(&changed)) {
            (Effect::Changes, Ok(after)) => assert_ne!(after, before, "{key} at {at}: the fingerprint must change"),
            (Effect::Stays(why), Ok(after)) => assert_eq!(after, before, "{key} at {at} changes no answer: {why}"),
            (Effect::OnlyValue, Err(_)) => {}
            (effect, outcome) => panic!("{key} at {at}: expected {effect:?}, found {outcome:?}"),
        }
    }
    println!("{} keys of the format, {} changes", enforced.len(), rows.len());
}

fn of(settings: Settings) -> Digest {
    PolicySet::new(settings).unwrap().fingerprint()
}

fn now() -> Timestamp {
    Clock::System.now()
}
