//! What must have happened in many seeds.

use super::disk::{DISK_FAULTS, WRECKS};
use super::world::FAULTS;

const STEPS: [&str; 24] = [
    "clients at once",
    "a client that leaves",
    "a tag moves",
    "a tag is removed",
    "a withdrawal",
    "a signature",
    "a bundle",
    "the clock goes on",
    "the clock goes back",
    "a reload",
    "a bad reload",
    "audit",
    "an exemption",
    "a restart",
    "a kill",
    "a kill with staging left",
    "a calm",
    "a calm with a scrub first",
    "a change under way",
    "a reload under way",
    "disk trouble",
    "damage: a bit",
    "damage: the end",
    "damage: the file",
];

const ANSWERS: [&str; 20] = [
    "manifest 200",
    "manifest 200 stale",
    "manifest 200 to HEAD",
    "manifest 304",
    "manifest 403",
    "manifest 404",
    "manifest 429",
    "manifest 502",
    "manifest 503",
    "manifest 504",
    "blob 200 whole",
    "blob 200 cut",
    "blob 206 whole",
    "blob 200 to HEAD",
    "blob 304",
    "blob 404",
    "blob 502",
    "referrers 200",
    "tags 200",
    "signatures 200",
];

const ALLOWED_BY: [&str; 5] = ["Anything", "SignedBy(A)", "SignedBy(B)", "SignedBy(Keyless)", "audit or exemption"];

/// Everything that must have happened in many seeds.
pub(super) fn everything() -> Vec<String> {
    let names =
        |kind: &'static str, names: &[&str]| names.iter().map(|name| format!("{kind}: {name}")).collect::<Vec<_>>();
    let kinds: [(&'static str, &[&str]); 7] = [
        ("step", &STEPS),
        ("answer", &ANSWERS),
        ("fault", &FAULTS),
        ("disk operation failed", &DISK_FAULTS),
        ("the database", &WRECKS),
        ("allowed after a calm by", &ALLOWED_BY),
        ("endpoints", &["all of 1", "all of 2", "one of 2"]),
    ];
    kinds.iter().flat_map(|(kind, of)| names(kind, of)).collect()
}
