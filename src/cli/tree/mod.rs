//! What a verdict rests on, as text that fits a terminal of 80 columns. `--output json` has it whole.
//!
//! The tree goes from what was asked (a requirement, a ClusterImagePolicy) over who may answer (its authorities) to what
//! was found (candidates: who signed, when, why it does or does not count). It is made from the evidence as it is stored, so it
//! looks the same for a verdict reached here and for one of a running mirror. What a newer mirror tells beyond that is shown as it
//! stands, never left out.

mod keys;

use std::fmt::{self, Display, Formatter};

use serde_json::{Map, Value};

use keys::{ASKED_KEYS, CANDIDATE_KEYS, CHILD_KEYS, DOCUMENT_KEYS, SIGNER_KEYS};

use super::output::Shown;
use super::page::{Page, with_short_digests};
use crate::limits::{GIB, KIB, MIB};

/// Units that make large numbers readable, the largest first.
const UNITS: [(u64, &str); 3] = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];

/// The size of an image, for people.
pub(super) fn size(bytes: u64, layers: usize) -> String {
    let noun = if layers == 1 { "layer" } else { "layers" };
    format!("{} in its config and {layers} {noun}", self::bytes(bytes))
}

/// A number of bytes, exactly and readably.
pub(super) fn bytes(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit);
    let rounded = unit.map(|(unit, name)| {
        let tenths = u128::from(bytes).saturating_mul(10).checked_div(u128::from(*unit)).unwrap_or_default();
        format!(" ({}.{} {name})", tenths / 10, tenths % 10)
    });
    format!("{bytes} bytes{}", rounded.unwrap_or_default())
}

/// The evidence of a verdict.
#[derive(Debug)]
pub(super) struct Looked<'a>(pub(super) &'a Value);

impl Display for Looked<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let mut page = Page::default();
        for part in parts(self.0) {
            root(&mut page, &part);
        }
        page.fmt(formatter)
    }
}

/// One thing that was looked at.
#[derive(Debug, Default)]
struct Node {
    line: String,
    facts: Vec<(&'static str, String)>,
    below: Vec<Node>,
}

impl Node {
    fn of(line: impl Into<String>) -> Self {
        Self { line: line.into(), ..Self::default() }
    }

    fn fact(&mut self, name: &'static str, text: Option<String>) {
        self.facts.extend(text.filter(|text| !text.is_empty()).map(|text| (name, text)));
    }
}

/// The parts of a document: what each policy made of it, what was found beside, who signed.
fn parts(evidence: &Value) -> Vec<Node> {
    let mut parts = Vec::new();
    // An index that was judged by its children: first what was found about itself.
    if let Some(index) = evidence.get("index") {
        parts.extend(self::parts(index));
    }
    if let Some(children) = list(evidence, "children") {
        let below = children.iter().map(child).collect();
        parts.push(Node { below, ..Node::of("its platform images") });
    }
    if evidence.get("requirements").is_some() {
        let path = text(evidence, "json_path").unwrap_or_default();
        parts.push(Node { below: nodes(evidence, "requirements"), ..Node::of(format!("policy.json: {path}")) });
    }
    for (key, line) in [("cluster_image_policies", "ClusterImagePolicies"), ("policies", "policies")] {
        if evidence.get(key).is_some() {
            parts.push(Node { below: nodes(evidence, key), ..Node::of(line) });
        }
    }
    parts.extend(image_size(evidence));
    parts.extend(admitted_by(evidence));
    parts.extend(signers(evidence));
    parts.extend(beside(evidence));
    let rest = rest(evidence, DOCUMENT_KEYS);
    if !rest.is_empty() {
        parts.push(Node { below: rest, ..Node::of("also") });
    }
    parts
}

fn nodes(value: &Value, key: &str) -> Vec<Node> {
    list(value, key).into_iter().flatten().map(asked).collect()
}

/// A requirement, a policy, an authority, an attestation that is asked for: what it wants, what it came to, what it looked at.
fn asked(value: &Value) -> Node {
    let outcome = text(value, "outcome").unwrap_or_default();
    let name = ["type", "name", "authority"].iter().find_map(|key| text(value, key)).unwrap_or_default();
    let mut node = Node::of(headline(&outcome, &name));
    // The type stands in the headline already.
    let means = text(value, "means").map(|means| match means.strip_suffix(&format!(" ({name})")) {
        Some(means) => means.to_owned(),
        None => means,
    });
    node.fact("wants", means);
    node.fact("type", text(value, "predicate_type"));
    for key in ["policies", "requirements", "authorities", "attestations"] {
        node.below.extend(nodes(value, key));
    }
    let candidates = list(value, "candidates");
    node.below.extend(candidates.into_iter().flatten().map(candidate));
    // A single candidate says it itself.
    let why = text(value, "text").filter(|why| !matches!(&node.below[..], [only] if only.says(why)));
    node.fact("why", why);
    if candidates.is_some_and(Vec::is_empty) && node.facts.iter().all(|(name, _)| *name != "why") {
        node.fact("found", Some("nothing".to_owned()));
    }
    node.below.extend(rest(value, ASKED_KEYS));
    node
}

impl Node {
    fn says(&self, text: &str) -> bool {
        self.facts.iter().any(|(_, fact)| fact == text)
    }
}

/// Something found: who made it, when, and why it counts or does not.
fn candidate(value: &Value) -> Node {
    let outcome = text(value, "outcome").unwrap_or_default();
    let (format, place) = (text(value, "format").unwrap_or_default(), text(value, "place").unwrap_or_default());
    let mut node = Node::of(headline(&outcome, &format!("{format}, {place}")));
    who(&mut node, value);
    node.fact("why", text(value, "text"));
    node.fact("what", value.get("finding").and_then(|finding| text(finding, "text")));
    node.fact("note", list(value, "notes").map(|notes| joined(notes)));
    node.below.extend(rest(value, CANDIDATE_KEYS));
    node
}

/// Signer, what was signed, and when.
fn who(node: &mut Node, value: &Value) {
    if let Some(signer) = value.get("signer") {
        let names = list(signer, "subjects").map(|subjects| joined(subjects));
        let key = text(signer, "key").map(|key| format!("the key {key}"));
        let openpgp = text(signer, "openpgp").map(|key| format!("the OpenPGP key {key}"));
        node.fact("who", names.or(key).or(openpgp));
        node.fact("issuer", text(signer, "issuer"));
        for (claim, name) in CLAIMS_SHOWN {
            node.fact(name, text(signer, claim));
        }
    }
    node.fact("for", text(value, "docker_reference"));
    node.fact("says", text(value, "predicate_type"));
    let log = value.get("log").map(|log| {
        let index = text(log, "index").map(|index| format!("log index {index}"));
        [text(log, "integrated"), index].into_iter().flatten().collect::<Vec<_>>().join(", ")
    });
    let times = list(value, "timestamps").map(|times| format!("{} (timestamp)", joined(times)));
    let when: Vec<String> = [log, times].into_iter().flatten().collect();
    node.fact("when", Some(when.join("; ")));
    node.fact("until", text(value, "not_after"));
}

fn child(value: &Value) -> Node {
    let field = |key: &str| text(value, key).unwrap_or_default();
    let mut node = Node::of(headline(&field("decision"), &format!("{} {}", field("platform"), field("digest"))));
    node.fact("why", text(value, "text"));
    node.fact("verdict", text(value, "verdict"));
    node.below.extend(rest(value, CHILD_KEYS));
    node
}

fn image_size(evidence: &Value) -> Option<Node> {
    let size = evidence.get("image_size")?;
    let mut node = Node::of("the image's size");
    node.fact("bytes", text(size, "bytes"));
    node.fact("layers", text(size, "layers"));
    node.fact("bound", text(size, "max_image_bytes").map(|bytes| format!("{bytes} bytes (max_image_bytes)")));
    Some(node)
}

fn admitted_by(evidence: &Value) -> Option<Node> {
    let by = evidence.get("admitted_by")?;
    let mut node = Node::of("admitted otherwise by");
    node.fact("image", text(by, "image"));
    node.fact("digest", text(by, "digest"));
    node.fact("verdict", text(by, "verdict"));
    Some(node)
}

/// Everybody whose signature verifies, whether or not policy asks for it (audit mode).
fn signers(evidence: &Value) -> Option<Node> {
    let signers = list(evidence, "signers")?;
    let below = signers.iter().map(|signer| {
        let field = |key: &str| text(signer, key).unwrap_or_default();
        let mut node = Node::of(format!("{}, {}", field("kind"), field("place")));
        who(&mut node, signer);
        node.below.extend(rest(signer, SIGNER_KEYS));
        node
    });
    let others = list(evidence, "other_signatures").map(Vec::as_slice).unwrap_or_default();
    let others = others.iter().map(|other| {
        let field = |key: &str| text(other, key).unwrap_or_default();
        let mut node = Node::of(format!("unknown: {}, {}", field("format"), field("place")));
        node.fact("key", text(other, "key").or_else(|| text(other, "openpgp")));
        node.fact("for", text(other, "docker_reference"));
        node.fact("why", text(other, "why"));
        node
    });
    let gaps = list(evidence, "not_reported").map(Vec::as_slice).unwrap_or_default().iter().map(|gap| {
        let mut node = Node::of(format!("not looked at: {}", text(gap, "place").unwrap_or_default()));
        node.fact("why", text(gap, "why"));
        node
    });
    let below = below.chain(others).chain(gaps);
    let line = if signers.is_empty() { "who signed it: nobody that the trust root knows" } else { "who signed it" };
    Some(Node { below: below.collect(), ..Node::of(line) })
}

/// What discovery found that is no candidate.
fn beside(evidence: &Value) -> Option<Node> {
    let skipped = list(evidence, "skipped").map(Vec::as_slice).unwrap_or_default();
    let others = evidence.get("other_attachments").and_then(Value::as_u64).unwrap_or_default();
    let more = evidence.get("more_candidates").and_then(Value::as_bool).unwrap_or_default();
    if skipped.is_empty() && others == 0 && !more {
        return None;
    }
    let mut node = Node::of("found beside these");
    node.below = skipped
        .iter()
        .map(|skipped| {
            let field = |key: &str| text(skipped, key).unwrap_or_default();
            let mut node = Node::of(format!("could not be read: {}", field("place")));
            node.fact("why", text(skipped, "why"));
            node
        })
        .collect();
    node.fact("others", (others > 0).then(|| format!("{others} attachments that are no signatures")));
    node.fact("more", more.then(|| "there are more candidates than are looked at".to_owned()));
    Some(node)
}

/// What no branch above shows.
fn rest(value: &Value, known: &[&str]) -> Vec<Node> {
    let fields = value.as_object().into_iter().flatten();
    fields
        .filter(|(key, value)| !known.contains(&key.as_str()) && !is_empty(value))
        .map(|(key, value)| plain(key, value))
        .collect()
}

fn plain(key: &str, value: &Value) -> Node {
    match value {
        Value::Object(fields) => {
            Node { below: fields.iter().map(|(key, value)| plain(key, value)).collect(), ..Node::of(key) }
        }
        Value::Array(items) => Node { below: items.iter().map(|item| plain("-", item)).collect(), ..Node::of(key) },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Node::of(format!("{key}: {}", leaf(value).unwrap_or_default()))
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => Map::is_empty(fields),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn headline(outcome: &str, rest: &str) -> String {
    if outcome.is_empty() { rest.to_owned() } else { format!("{outcome}: {rest}") }
}

fn list<'a>(value: &'a Value, key: &str) -> Option<&'a Vec<Value>> {
    value.get(key)?.as_array()
}

fn joined(values: &[Value]) -> String {
    values.iter().filter_map(leaf).collect::<Vec<_>>().join(", ")
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(leaf)
}

/// A leaf as safe text, its digests cut.
fn leaf(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(with_short_digests(&Shown(text).to_string())),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn root(page: &mut Page, node: &Node) {
    page.line("  ", "    ", &node.line);
    inner(page, node, "  ");
}

fn branch(page: &mut Page, node: &Node, indent: &str, last: bool) {
    let (first, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
    let below = format!("{indent}{below}");
    page.line(&format!("{indent}{first}"), &format!("{below}  "), &node.line);
    inner(page, node, &below);
}

fn inner(page: &mut Page, node: &Node, indent: &str) {
    let bar = if node.below.is_empty() { "  " } else { "│ " };
    page.rows(&node.facts, &format!("{indent}{bar}"));
    for (index, child) in node.below.iter().enumerate() {
        branch(page, child, indent, index.saturating_add(1) == node.below.len());
    }
}

/// What Fulcio recorded about a workflow, with short names; the rest is in the JSON.
const CLAIMS_SHOWN: [(&str, &str); 3] =
    [("githubWorkflowRepo", "repo"), ("githubWorkflowRef", "ref"), ("githubWorkflowTrigger", "trigger")];
#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn evidence(identity: &str) -> Value {
        json!({
            "json_path": "default",
            "requirements": [{
                "type": "sigstoreSigned", "means": "a signature by somebody", "outcome": "denied", "text": "no",
                "candidates": [{
                    "outcome": "rejected", "format": "sigstore bundle", "place": format!("referrer sha256:{}", "a".repeat(64)),
                    "signer": {"issuer": "i", "subjects": [identity]}, "text": "no", "something_new": {"x": [1, {"y": identity}]},
                }],
            }],
            "skipped": [{"place": "p", "why": identity}],
        })
    }

    #[test]
    fn the_tree_goes_from_the_requirement_to_the_candidate() {
        assert_eq!(
            Looked(&evidence("somebody@example.com")).to_string(),
            "  policy.json: default\n\
             \x20 └─ denied: sigstoreSigned\n\
             \x20    │ wants  a signature by somebody\n\
             \x20    └─ rejected: sigstore bundle, referrer sha256:aaaaaaaaaaaa…\n\
             \x20       │ who     somebody@example.com\n\
             \x20       │ issuer  i\n\
             \x20       │ why     no\n\
             \x20       └─ something_new\n\
             \x20          └─ x\n\
             \x20             ├─ -: 1\n\
             \x20             └─ -\n\
             \x20                └─ y: somebody@example.com\n\
             \x20 found beside these\n\
             \x20 └─ could not be read: p\n\
             \x20      why  somebody@example.com\n"
        );
    }

    #[test]
    fn a_size_is_told_exactly_and_readably() {
        assert_eq!(size(1023, 1), "1023 bytes in its config and 1 layer");
        assert_eq!(size(1024, 0), "1024 bytes (1.0 KiB) in its config and 0 layers");
        assert_eq!(size(1_610_612_735, 12), "1610612735 bytes (1.4 GiB) in its config and 12 layers");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_a_terminal_and_nothing_begins_a_line_of_its_own(
            identity in "[ -~äß\u{1b}\n\r]{0,300}",
        ) {
            let shown = Looked(&evidence(&identity)).to_string();
            for line in shown.lines() {
                prop_assert!(line.chars().count() <= 80, "{line}");
                prop_assert!(line.starts_with("  "), "{line:?}");
            }
            prop_assert!(!shown.contains(|char: char| char.is_control() && char != '\n'));
        }
    }
}
