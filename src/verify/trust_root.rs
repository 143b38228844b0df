//! Fingerprints of what is trusted: a digest over everything in it that can change an answer.

use crate::oci::{Algorithm, Digest, Hasher};

/// Takes in fields, each with its length, so that no two different lists of fields look alike.
#[derive(Debug)]
pub(super) struct Fingerprint(Hasher);

impl Fingerprint {
    /// A fingerprint of a thing of that kind.
    pub(super) fn new(kind: &str) -> Self {
        Self(Hasher::new(Algorithm::Sha256)).field(kind.as_bytes())
    }

    #[must_use]
    pub(super) fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(bytes);
        self
    }

    #[must_use]
    pub(super) fn list<'a>(mut self, items: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        self = self.field(&u64::try_from(items.len()).unwrap_or(u64::MAX).to_be_bytes());
        for item in items {
            self = self.field(item);
        }
        self
    }

    /// An absent field differs from an empty one.
    #[must_use]
    pub(super) fn option(self, field: Option<&str>) -> Self {
        self.list(field.map(str::as_bytes).into_iter().collect::<Vec<_>>().into_iter())
    }

    pub(super) fn finish(self) -> Digest {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_flow_into_each_other() {
        let of = |fields: &[&str]| {
            fields.iter().fold(Fingerprint::new("x"), |print, field| print.field(field.as_bytes())).finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a", ""]), of(&["a"]));
        assert_eq!(of(&["a"]), of(&["a"]));
        let option = |field| Fingerprint::new("x").option(field).finish();
        assert_ne!(option(None), option(Some("")));
    }
}
