//! The strict reader for JSON from outside (threats.md, rule P).
//!
//! Clients written in Go read JSON more loosely than anyone else: keys match whatever their case, also `ſ` for `s` and
//! the Kelvin sign for `k`, and of two equal keys the last one wins. Bytes that two readers could understand differently
//! are refused here, before anyone looks for meaning in them.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::limits::{JSON_DEPTH_MAX, JSON_TOKENS_MAX};

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, not UTF-8, trailing data, a key twice, too deep or too many values; the text says which and where.
    #[error("{0}")]
    Syntax(String),
    /// A key that a lenient reader would take for another.
    #[error("the key {found:?} could be read as {known:?}")]
    AmbiguousKey {
        /// As it stands in the document.
        found: String,
        /// What it could be taken for.
        known: &'static str,
    },
    /// Well-formed, but not of the expected shape.
    #[error("{0}")]
    Shape(String),
}

/// Parses a document: UTF-8 without byte order mark, no key twice in any object, bounded depth and number of values,
/// nothing after its end.
///
/// # Errors
/// [`JsonError::Syntax`] for anything else.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Syntax("not UTF-8".to_owned()))?;
    let tokens = Cell::new(0);
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { tokens: &tokens, depth: 0 }.deserialize(&mut reader).map_err(syntax)?;
    reader.end().map_err(syntax)?;
    Ok(value)
}

/// Parses a document and turns it into `T`.
///
/// # Errors
/// As [`parse`], and [`JsonError::Shape`] when `T` does not accept the document.
pub fn parse_as<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    shaped(parse(bytes)?)
}

/// Turns a parsed document into `T`.
///
/// # Errors
/// [`JsonError::Shape`] when `T` does not accept it.
pub fn shaped<T: DeserializeOwned>(value: Value) -> Result<T, JsonError> {
    T::deserialize(value).map_err(|error| JsonError::Shape(error.to_string()))
}

/// Checks that no key of `object` could be taken for one of `known` by a reader that folds case as Go's does.
///
/// # Errors
/// [`JsonError::AmbiguousKey`] for the first that could.
pub fn check_keys(object: &Map<String, Value>, known: &[&'static str]) -> Result<(), JsonError> {
    for found in object.keys() {
        if let Some(known) = known.iter().find(|known| **known != found && folded(known).eq(folded(found))) {
            return Err(JsonError::AmbiguousKey { found: found.clone(), known });
        }
    }
    Ok(())
}

/// Folded as Go's `encoding/json` does for ASCII names: only two characters beyond ASCII fold to a letter.
fn folded(key: &str) -> impl Iterator<Item = char> {
    key.chars().map(|char| match char {
        '\u{017f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn syntax(error: serde_json::Error) -> JsonError {
    JsonError::Syntax(error.to_string())
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    tokens: &'a Cell<usize>,
    depth: usize,
}

impl Strict<'_> {
    fn count<E: serde::de::Error>(self) -> Result<(), E> {
        let tokens = self.tokens.get() + 1;
        self.tokens.set(tokens);
        if tokens > JSON_TOKENS_MAX {
            return Err(E::custom(format_args!("more than {JSON_TOKENS_MAX} values")));
        }
        Ok(())
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(E::custom(format_args!("nested more than {JSON_DEPTH_MAX} deep")));
        }
        Ok(Self { tokens: self.tokens, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        let mut seen = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            self.count()?;
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("Duplicate key {key:?}")));
            }
            object.insert(key, members.next_value_seed(inner)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_json_is_read_in_order() {
        let value = parse(br#"{"b":[1,-2,1.5,true,null,"x\u00e9"],"a":{}}"#).unwrap();
        assert_eq!(value.to_string(), r#"{"b":[1,-2,1.5,true,null,"xé"],"a":{}}"#);
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let bad: [&[u8]; 12] = [
            b"",
            b"\xef\xbb\xbf{}",
            b"{} x",
            b"{}{}",
            br#"{"a":1,"a":2}"#,
            br#"{"x":{"a":1,"\u0061":2}}"#,
            br#"[{"a":1,"a":1}]"#,
            b"\"\xff\"",
            br#""\ud800""#,
            b"{'a':1}",
            b"[1,]",
            b"1e999",
        ];
        for bytes in bad {
            assert!(matches!(parse(bytes), Err(JsonError::Syntax(_))), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn depth_is_bounded_on_both_sides() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert!(parse(nested(JSON_DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn the_number_of_values_is_bounded_on_both_sides() {
        let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert!(parse(list(JSON_TOKENS_MAX - 1).as_bytes()).is_ok());
        assert!(parse(list(JSON_TOKENS_MAX).as_bytes()).is_err());
    }

    #[test]
    fn keys_that_go_would_fold_are_found() {
        for key in ["Manifests", "MANIFESTS", "manifest\u{017f}"] {
            let object: Map<String, Value> = [(key.to_owned(), Value::Null)].into_iter().collect();
            assert!(check_keys(&object, &["layers", "manifests"]).is_err(), "{key}");
        }
        let object: Map<String, Value> =
            [("manifests".to_owned(), Value::Null), ("manifestß".to_owned(), Value::Null)].into_iter().collect();
        assert_eq!(check_keys(&object, &["manifests"]), Ok(()));
    }
}
