//! What a scalar means: the rules of go-yaml 2, through which Kubernetes and containers/image read YAML.

use saphyr_parser::{Span, Tag};

use super::{Value, YamlError};

/// The value of a scalar. A quoted or block scalar is always text.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&Tag>, span: Span) -> Result<Value, YamlError> {
    let untagged = || if plain { plain_value(text) } else { Value::String(text.to_owned()) };
    let Some(tag) = tag else { return Ok(untagged()) };
    let forced = match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
        (true, "str") => return Ok(Value::String(text.to_owned())),
        (false, "!") if tag.handle.is_empty() => return Ok(Value::String(text.to_owned())),
        (true, "bool" | "int" | "float" | "null") => plain_value(text),
        (true | false, _) => return Err(YamlError::at(span, format!("the tag {tag} is not supported"))),
    };
    let agrees = match &forced {
        Value::Bool(_) => tag.suffix == "bool",
        Value::Null => tag.suffix == "null",
        Value::Number(_) => matches!(tag.suffix.as_str(), "int" | "float"),
        Value::String(_) | Value::Sequence(_) | Value::Mapping(_) => false,
    };
    if agrees { Ok(forced) } else { Err(YamlError::at(span, format!("{text:?} is no value of the tag {tag}"))) }
}

fn plain_value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::String(text.to_owned()),
    }
}

/// Whether go-yaml reads it as an integer or a float.
fn is_number(text: &str) -> bool {
    let plain: String = text.chars().filter(|char| *char != '_').collect();
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    if text.starts_with('_') || matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return !text.starts_with('_');
    }
    let digits = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|char| char.is_digit(radix));
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
        if let Some(rest) = unsigned.strip_prefix(prefix) {
            return digits(rest, radix);
        }
    }
    is_decimal(unsigned)
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_decimal(text: &str) -> bool {
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && all_digits(exponent))
}
