//! Who may sign: issuer and subject, exactly or by pattern, and what Fulcio recorded about a workflow.

use super::Signer;

/// One identity of a keyless authority: issuer and subject, and conditions on the workflow.
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

/// A regular expression that parsed.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
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
    /// A pattern from a regular expression in Go's (RE2's) syntax.
    ///
    /// # Errors
    /// [`PatternError`] when it does not parse, or compiles to more than its bound.
    pub fn matches(pattern: &str) -> Result<Self, PatternError> {
        let _ = pattern;
        todo!()
    }

    /// Whether the expression was written without anchors at both ends, so that other tools would match substrings.
    pub fn is_unanchored(&self) -> bool {
        todo!()
    }

    /// Whether it accepts that text. More than `IDENTITY_BYTES_MAX` bytes match nothing.
    pub fn accepts(&self, text: &str) -> bool {
        let _ = text;
        todo!()
    }
}

impl IdentityPattern {
    /// Whether it accepts that signer; a key has no identity.
    pub fn accepts(&self, signer: &Signer) -> bool {
        let _ = signer;
        todo!()
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
    /// `githubWorkflowRepository`
    pub repository: Option<String>,
    /// `githubWorkflowRef`
    pub reference: Option<String>,
    /// The newer extensions, by the name that Fulcio's documentation gives them (`buildSignerURI`, `sourceRepositoryURI` …).
    pub extensions: std::collections::BTreeMap<&'static str, String>,
}
