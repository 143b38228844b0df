//! The trust roots that policies name, and where in a document something stands.

use std::collections::BTreeMap;

use super::{CipError, Origin, TrustRootDocument};
use crate::verify::SigstoreRoot;

/// The trust roots by their names.
pub(super) struct Roots<'a> {
    pub(super) default: &'a SigstoreRoot,
    named: BTreeMap<String, SigstoreRoot>,
}

impl<'a> Roots<'a> {
    pub(super) fn resolve(documents: Vec<TrustRootDocument>, default: &'a SigstoreRoot) -> Result<Self, CipError> {
        let (mut named, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for TrustRootDocument { name, origin, trusted_root_json } in documents {
            unique(&mut seen, &name, &origin)?;
            let root = SigstoreRoot::from_json(&trusted_root_json).map_err(|error| CipError {
                origin,
                field: "spec".to_owned(),
                problem: format!("the trust root cannot be used: {error}"),
            })?;
            named.insert(name, root);
        }
        Ok(Self { default, named })
    }

    /// The root of that name.
    pub(super) fn named(&self, at: &At<'_>, field: &str, name: &str) -> Result<SigstoreRoot, CipError> {
        self.named.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.named.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
            at.error(
                field,
                format!("no TrustRoot document has the name {name} ({known}); add it to policy.cluster_image_policies"),
            )
        })
    }

    /// The root of that name, else `otherwise`.
    pub(super) fn named_or(
        &self,
        at: &At<'_>,
        field: &str,
        name: Option<&str>,
        otherwise: &SigstoreRoot,
    ) -> Result<SigstoreRoot, CipError> {
        name.map_or_else(|| Ok(otherwise.clone()), |name| self.named(at, field, name))
    }
}

/// An authority in its document, for errors.
pub(super) struct At<'a> {
    pub(super) origin: &'a Origin,
    pub(super) index: usize,
}

impl At<'_> {
    pub(super) fn error(&self, field: &str, problem: impl Into<String>) -> CipError {
        let field = format!("spec.authorities[{}].{field}", self.index);
        CipError { origin: self.origin.clone(), field, problem: problem.into() }
    }
}

/// Takes a name in that no other document may have.
pub(super) fn unique(names: &mut BTreeMap<String, Origin>, name: &str, origin: &Origin) -> Result<(), CipError> {
    match names.insert(name.to_owned(), origin.clone()) {
        None => Ok(()),
        Some(first) => Err(CipError {
            origin: origin.clone(),
            field: "metadata.name".to_owned(),
            problem: format!("{name} is the name of another document, at {first}; give it a name of its own"),
        }),
    }
}
