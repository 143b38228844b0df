//! Who signed, as far as a policy can name them.

use serde_json::Value;

use crate::oci::{DockerReference, ImageReference, Reference};

/// The holder of a certificate, in one form of signature.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct Signed {
    pub(super) issuer: String,
    pub(super) subject: String,
    /// None: a plain signature.
    pub(super) predicate_type: Option<String>,
    pub(super) bundle: bool,
    /// Whether the log says when it was made. Where a timestamp authority does, policy.json cannot name it.
    pub(super) timed_by_log: bool,
}

impl Signed {
    /// Out of the evidence.
    pub(in crate::cli) fn of(signer: &Value) -> Option<Self> {
        let by = signer.get("signer")?;
        Some(Self {
            issuer: text(by, "issuer")?,
            subject: by.get("subjects")?.as_array()?.first()?.as_str()?.to_owned(),
            predicate_type: text(signer, "predicate_type"),
            bundle: text(signer, "format")? == "sigstore bundle",
            timed_by_log: signer.get("log").is_some_and(|log| log.get("integrated").is_some_and(Value::is_string)),
        })
    }

    /// Whether policy.json can ask for it.
    pub(super) fn fits_policy_json(&self) -> bool {
        let is_email = self.subject.contains('@') && !self.subject.contains("://");
        self.predicate_type.is_none() && is_email && self.timed_by_log
    }

    /// For people.
    pub(in crate::cli) fn words(&self) -> String {
        let what = match &self.predicate_type {
            None => "signature".to_owned(),
            Some(predicate_type) => format!("attestation {predicate_type}"),
        };
        let form = if self.bundle { "bundle" } else { "legacy format" };
        format!("{what} by {} (issuer {}), {form}", self.subject, self.issuer)
    }
}

/// An OpenPGP signature that says whose it is; nobody has verified that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct OpenPgpClaim {
    /// The key's fingerprint, or its id where the signature has no more.
    pub(super) key: String,
    pub(super) fits: Fits,
}

/// How the reference that was signed is the one that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fits {
    /// The very same.
    Exactly,
    /// Another tag of the repository, or the image was named by digest.
    Repository,
    /// It is for that other repository.
    OtherRepository(String),
    /// It cannot be read.
    Unreadable,
}

impl OpenPgpClaim {
    /// Out of the evidence about `image`.
    pub(in crate::cli) fn of(signature: &Value, image: &ImageReference) -> Option<Self> {
        let reference = text(signature, "docker_reference").and_then(|text| text.parse::<DockerReference>().ok());
        let fits = match reference {
            None => Fits::Unreadable,
            Some(signed) if signed.repository != image.repository => {
                Fits::OtherRepository(signed.repository.to_string())
            }
            Some(signed) => match (&image.reference, signed.tag) {
                (Reference::Tag(asked), Some(signed)) if *asked == signed => Fits::Exactly,
                (Reference::Tag(_) | Reference::Digest(_), _) => Fits::Repository,
            },
        };
        Some(Self { key: text(signature, "openpgp")?, fits })
    }

    /// For people.
    pub(in crate::cli) fn words(&self) -> String {
        let reference = match &self.fits {
            Fits::Exactly => "this very reference".to_owned(),
            Fits::Repository => "this repository".to_owned(),
            Fits::OtherRepository(name) => name.clone(),
            Fits::Unreadable => "a reference that cannot be read".to_owned(),
        };
        format!(
            "OpenPGP signature that says it is by the key {} and for {reference}; it is verified with the key alone",
            self.key
        )
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}
