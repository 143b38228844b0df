//! Who may sign: issuer and subject, exactly or by pattern, and what Fulcio recorded about a workflow.

use std::collections::BTreeMap;
use std::fmt;

use regex::{Regex, RegexBuilder};

use super::Signer;
use super::trust_root::Fingerprint;
use crate::limits::{IDENTITY_BYTES_MAX, PATTERN_BYTES_MAX, PATTERN_COMPILED_BYTES_MAX};
use crate::oci::Digest;

/// One identity of a keyless authority: issuer and subject. Conditions on the workflow are for a policy in Rego to state,
/// which sees [`WorkflowClaims`] in its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPattern {
    /// The OIDC issuer.
    pub issuer: TextPattern,
    /// The subject alternative name.
    pub subject: TextPattern,
}

/// Exactly a text, or a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPattern {
    /// This text.
    Exactly(String),
    /// A regular expression, matched against the whole text (`^(?:…)$`) in linear time.
    Matches(Pattern),
}

/// A regular expression that parsed. Two are equal when their texts are.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    /// Matches the whole text or nothing.
    whole: Regex,
}

impl Pattern {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// The text is no regular expression, or too large a one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct PatternError {
    why: String,
}

impl TextPattern {
    /// A pattern from a regular expression in Go's (RE2's) syntax, as far as Rust's is the same; what is written in
    /// another way here (`\Q…\E`, `\C`), or means another thing (`[a[b]]`, `{,3}`), is an error. Classes such as `\w` mean ASCII in Go, so a text with other
    /// characters is matched by no pattern.
    ///
    /// # Errors
    /// [`PatternError`] when it does not parse, is longer than `PATTERN_BYTES_MAX`, or compiles to more than
    /// `PATTERN_COMPILED_BYTES_MAX`.
    pub fn matches(pattern: &str) -> Result<Self, PatternError> {
        if pattern.len() > PATTERN_BYTES_MAX {
            let why = format!("the expression has {} bytes, more than {PATTERN_BYTES_MAX}", pattern.len());
            return Err(PatternError { why });
        }
        if let Some(other) = other_in_go(pattern) {
            return Err(PatternError { why: format!("`{other}` means another thing, or nothing, to Go") });
        }
        // First alone: `a)|(b` is an expression only between parentheses, and then one without anchors.
        compiled(pattern)?;
        let whole = compiled(&format!(r"\A(?:{pattern})\z"))?;
        Ok(Self::Matches(Pattern { text: pattern.to_owned(), whole }))
    }

    /// Whether the expression was written without anchors at both ends, so that other tools would match substrings.
    pub fn is_unanchored(&self) -> bool {
        match self {
            Self::Exactly(_) => false,
            Self::Matches(pattern) => !is_anchored(&pattern.text),
        }
    }

    /// Whether it accepts that text. More than `IDENTITY_BYTES_MAX` bytes match nothing.
    pub fn accepts(&self, text: &str) -> bool {
        if text.len() > IDENTITY_BYTES_MAX {
            return false;
        }
        match self {
            Self::Exactly(wanted) => wanted == text,
            Self::Matches(pattern) => text.is_ascii() && pattern.whole.is_match(text),
        }
    }
}

impl fmt::Display for TextPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(text) => formatter.write_str(text),
            Self::Matches(pattern) => write!(formatter, "/{}/", pattern.text),
        }
    }
}

fn compiled(pattern: &str) -> Result<Regex, PatternError> {
    let regex = RegexBuilder::new(pattern).size_limit(PATTERN_COMPILED_BYTES_MAX).nest_limit(NESTING_MAX).build();
    regex.map_err(|error| PatternError { why: error.to_string() })
}

/// What in an expression Go reads in another way, if anything is: here classes nest and have operators, there are other borders
/// of words and flags, and a repetition may lack its lower bound.
fn other_in_go(pattern: &str) -> Option<&'static str> {
    let mut rest = pattern;
    let mut in_class = false;
    loop {
        let mut chars = rest.chars();
        let first = chars.next()?;
        let after = chars.as_str();
        let starts = |with: &[&'static str]| with.iter().copied().find(|text| rest.starts_with(text));
        let other = if in_class { starts(&["&&", "--", "~~"]) } else { starts(&["\\<", "\\>", "\\b{", "{,"]) };
        if other.is_some() {
            return other;
        }
        rest = match first {
            '\\' => {
                chars.next();
                chars.as_str()
            }
            '[' if in_class => {
                after.strip_prefix(':').and_then(|class| class.split_once(":]")).map_or("[", |(_, rest)| rest)
            }
            '[' => {
                in_class = true;
                // The first may be a bracket that closes nothing.
                let content = after.strip_prefix('^').unwrap_or(after);
                content.strip_prefix(']').unwrap_or(content)
            }
            ']' => {
                in_class = false;
                after
            }
            '(' if !in_class && has_other_flags(after) => return Some("(?x)"),
            _ => after,
        };
        if in_class && rest == "[" {
            return Some("[...[");
        }
    }
}

/// Whether a group begins with flags that Go does not have.
fn has_other_flags(group: &str) -> bool {
    let Some(flags) = group.strip_prefix('?') else { return false };
    let end = flags.find(|char: char| !char.is_ascii_alphabetic() && char != '-').unwrap_or(flags.len());
    let (flags, rest) = flags.split_at_checked(end).unwrap_or((flags, ""));
    rest.starts_with([':', ')']) && flags.contains(['x', 'u', 'R'])
}

/// Whether the expression begins with `^` or `\A` and ends with `$` or `\z`, and both hold for every alternative.
fn is_anchored(pattern: &str) -> bool {
    let begins = pattern.starts_with('^') || pattern.starts_with(r"\A");
    let (mut depth, mut in_class, mut last) = (0_usize, false, Last::Other);
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        last = Last::Other;
        match char {
            '\\' => last = if chars.next() == Some('z') { Last::Anchor } else { Last::Other },
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth = depth.saturating_add(1),
            ')' if !in_class => depth = depth.saturating_sub(1),
            '|' if !in_class && depth == 0 => return false,
            '$' if !in_class => last = Last::Anchor,
            _ => (),
        }
    }
    begins && matches!(last, Last::Anchor)
}

#[derive(Clone, Copy)]
enum Last {
    Anchor,
    Other,
}

/// Nesting of one expression.
const NESTING_MAX: u32 = 64;

impl IdentityPattern {
    pub(super) fn fingerprint(&self) -> Digest {
        let print = |print: Fingerprint, pattern: &TextPattern| match pattern {
            TextPattern::Exactly(text) => print.field(b"exactly").field(text.as_bytes()),
            TextPattern::Matches(pattern) => print.field(b"matches").field(pattern.text.as_bytes()),
        };
        print(print(Fingerprint::new("identity"), &self.issuer), &self.subject).finish()
    }

    /// Whether it accepts that signer: its issuer, and one of its names. A key has no identity.
    pub fn accepts(&self, signer: &Signer) -> bool {
        match signer {
            Signer::Certificate { issuer: Some(issuer), subjects, .. } => {
                self.issuer.accepts(issuer) && subjects.iter().any(|subject| self.subject.accepts(subject))
            }
            Signer::Certificate { issuer: None, .. } | Signer::Key(_) | Signer::OpenPgp(_) => false,
        }
    }
}

/// What Fulcio recorded about the workflow that signed (OIDs 1.3.6.1.4.1.57264.1.2 to .1.24), by the names that
/// policy-controller gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkflowClaims {
    /// `githubWorkflowTrigger`
    pub trigger: Option<String>,
    /// `githubWorkflowSha`
    pub sha: Option<String>,
    /// `githubWorkflowName`
    pub name: Option<String>,
    /// `githubWorkflowRepo`
    pub repository: Option<String>,
    /// `githubWorkflowRef`
    pub reference: Option<String>,
    /// The newer extensions, by the name that Fulcio's documentation gives them (`buildSignerURI`, `sourceRepositoryURI` …).
    pub extensions: BTreeMap<&'static str, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TextPattern {
        TextPattern::matches(text).unwrap()
    }

    #[test]
    fn a_pattern_matches_the_whole_text_however_it_is_written() {
        for text in
            ["dev@corp\\.com", "^dev@corp\\.com$", "\\Adev@corp\\.com\\z", "(?i)DEV@corp\\.com", "(?m)^dev@corp\\.com$"]
        {
            let pattern = pattern(text);
            assert!(pattern.accepts("dev@corp.com"), "{text}");
            for other in
                ["dev@corp.com.evil.io", "xdev@corp.com", "dev@corp.com\n", "x\ndev@corp.com", "dev@corpXcom", ""]
            {
                assert!(!pattern.accepts(other), "{text} {other:?}");
            }
        }
        let either = pattern("a|b");
        assert!(either.accepts("a") && either.accepts("b") && !either.accepts("ab") && !either.accepts("xb"));
    }

    /// V-15: look-alikes.
    #[test]
    fn v_15_a_pattern_matches_ascii_alone() {
        for text in [".*", "\\w+@corp\\.com", "(?i)kim@corp\\.com", "[^/]+@corp\\.com"] {
            assert!(pattern(text).accepts("kim@corp.com"), "{text}");
            assert!(!pattern(text).accepts("\u{212a}im@corp.com"), "{text}");
            assert!(!pattern(text).accepts("k\u{ed}m@corp.com"), "{text}");
        }
        assert!(TextPattern::Exactly("k\u{ed}m@corp.com".to_owned()).accepts("k\u{ed}m@corp.com"));
    }

    #[test]
    fn what_is_no_expression_by_itself_is_none_between_anchors_either() {
        for text in ["a)|(b", "(", "[", "*", "\\Qa\\E", "(?=a)", "(a)\\1", "a{2,1}"] {
            assert!(TextPattern::matches(text).is_err(), "{text}");
        }
    }

    /// A policy means what it means to policy-controller, or it is refused.
    #[test]
    fn v_15_an_expression_that_go_reads_in_another_way_is_no_expression_here() {
        for text in [
            "[a[^b]]",
            "[[a]b]",
            "[a-z&&[^b]]",
            "[+--]",
            "[^a--b]",
            "[a~~b]",
            "a{,5}",
            "\\<a",
            "a\\>",
            "\\b{start}a",
            "[^/&&@]+@corp\\.com",
        ] {
            assert!(TextPattern::matches(text).is_err(), "{text}");
        }
        for text in [
            "[[:alpha:]]+",
            "[^[:space:]]",
            "[a&b]",
            "[a-]",
            "[-a]",
            "[a\\[b]",
            "a&&b",
            "a--b",
            "\\[\\[",
            "[]a]",
            "[^]a]",
            "a{1,5}",
            "\\{,5\\}",
            "[{,]",
            "[<>]",
            "\\bdev\\b",
            "[\\w.-]+@corp\\.com",
        ] {
            assert!(TextPattern::matches(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn patterns_and_texts_are_bounded_on_both_sides() {
        assert!(TextPattern::matches(&"a".repeat(PATTERN_BYTES_MAX)).is_ok());
        assert!(TextPattern::matches(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
        assert!(TextPattern::matches("(a{1000}){1000}").is_err());
        assert!(TextPattern::matches(&format!("{}a{}", "(".repeat(40), ")".repeat(40))).is_ok());
        assert!(TextPattern::matches(&format!("{}a{}", "(".repeat(80), ")".repeat(80))).is_err());
        for pattern in [pattern("a*"), TextPattern::Exactly("a".repeat(IDENTITY_BYTES_MAX + 1))] {
            assert!(!pattern.accepts(&"a".repeat(IDENTITY_BYTES_MAX + 1)));
        }
        assert!(pattern("a*").accepts(&"a".repeat(IDENTITY_BYTES_MAX)));
    }

    /// An engine that tries one way after the other would still be at it when the universe ends.
    #[test]
    fn r_07_no_pattern_makes_an_identity_costly_and_a_long_one_is_not_looked_at() {
        let (long, endless) = ("a".repeat(IDENTITY_BYTES_MAX), "a".repeat(1024 * 1024));
        for text in ["(a*)*b", "(a|aa)+b", "(.*)*(.*)*x", "(a?){50}a{50}b", "([a-z]+)*[0-9]"] {
            assert!(!pattern(text).accepts(&long), "{text}");
        }
        assert!(pattern("(a|aa)+").accepts(&long) && !pattern("(a|aa)+").accepts(&endless));
    }

    #[test]
    fn an_expression_is_anchored_when_every_alternative_is() {
        for anchored in ["^a$", "^(a|b)$", "\\Aa\\z", "^[|]$", "^a\\|b$"] {
            assert!(!pattern(anchored).is_unanchored(), "{anchored}");
        }
        for open in ["a", "^a", "a$", "^a\\$", "^a|b$", ".*", "^a$|b"] {
            assert!(pattern(open).is_unanchored(), "{open}");
        }
        assert!(!TextPattern::Exactly("a".to_owned()).is_unanchored());
    }

    #[test]
    fn an_identity_is_an_issuer_and_one_of_the_names() {
        let identity = IdentityPattern {
            issuer: TextPattern::Exactly("https://issuer.test".to_owned()),
            subject: pattern("https://github\\.com/org/.*"),
        };
        let signer = |issuer: Option<&str>, subjects: &[&str]| Signer::Certificate {
            issuer: issuer.map(str::to_owned),
            subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            workflow: Box::default(),
        };
        let subject = "https://github.com/org/app";
        assert!(identity.accepts(&signer(Some("https://issuer.test"), &["other", subject])));
        assert!(!identity.accepts(&signer(Some("https://issuer.test/"), &[subject])));
        assert!(!identity.accepts(&signer(None, &[subject])));
        assert!(!identity.accepts(&signer(Some("https://issuer.test"), &["https://github.com/org2/app"])));
        assert!(!identity.accepts(&signer(Some("https://issuer.test"), &[])));
        assert!(!identity.accepts(&Signer::Key(Digest::sha256(b"key"))));
        assert!(!identity.accepts(&Signer::OpenPgp(subject.to_owned())));
    }
}
