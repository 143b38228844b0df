//! Tables of the keys that the readers of both policy formats accept.
//!
//! A reader opens an object by its table, and the table refuses what it does not list. [`objects!`] makes the tables and the
//! list of all of them in one go, so that none can be left out of the list; `tests/it/policy_keys.rs` wants a test of the
//! effect of every key in it.

use std::fmt;

/// The keys of one kind of object.
#[derive(Debug)]
pub(super) struct Object {
    /// Where it stands.
    pub(super) path: &'static str,
    /// The keys that are enforced.
    pub(super) keys: &'static [&'static str],
    /// Keys of the format that are refused, each with what to do instead.
    pub(super) refused: &'static [(&'static str, &'static str)],
}

impl Object {
    pub(super) fn accepts(&self, key: &str) -> bool {
        self.keys.contains(&key)
    }

    pub(super) fn format_keys(&self) -> impl Iterator<Item = FormatKey> + use<> {
        let (object, keys, refused) = (self.path, self.keys, self.refused);
        let enforced = keys.iter().map(move |name| FormatKey { object, name, refused: None });
        enforced.chain(refused.iter().map(move |(name, hint)| FormatKey { object, name, refused: Some(hint) }))
    }
}

/// A key of a format, with what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatKey {
    /// The object that it stands in, such as `spec.authorities[].key`; empty at the top.
    pub object: &'static str,
    /// Its name.
    pub name: &'static str,
    /// None: it is enforced. Otherwise it is refused, and this says what to do instead.
    pub refused: Option<&'static str>,
}

impl fmt::Display for FormatKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.object.is_empty() {
            write!(formatter, "{}.", self.object)?;
        }
        formatter.write_str(self.name)
    }
}

/// Tables by name, and the list of all of them.
macro_rules! objects {
    (
        $(#[$doc:meta])*
        $list:ident;
        $($name:ident = $path:literal [$($key:literal),* $(,)?] $(refuse [$($refused:literal: $instead:expr),* $(,)?])?;)*
    ) => {
        $(pub(super) const $name: $crate::policy::keys::Object = $crate::policy::keys::Object {
            path: $path,
            keys: &[$($key),*],
            refused: &[$($(($refused, $instead)),*)?],
        };)*
        $(#[$doc])*
        pub(super) const $list: &[&$crate::policy::keys::Object] = &[$(&$name),*];
    };
}
pub(super) use objects;
