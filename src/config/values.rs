//! Durations and sizes as people write them: `"90s"`, `"64GiB"`.
//!
//! One whole number and one unit. A bare number is refused, because nobody should have to guess its unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{CONFIG_DURATION_MAX, CONFIG_SIZE_MAX};

/// A length of time in the configuration, up to [`CONFIG_DURATION_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A size in bytes in the configuration, up to [`CONFIG_SIZE_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A text is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not `<number><unit>` of time.
    #[error("not a duration: write a whole number and one of ms, s, m, h, d, such as \"90s\" or \"24h\"")]
    Duration,
    /// Longer than a year.
    #[error("a duration of more than 365d")]
    DurationTooLong,
    /// Not `<number><unit>` of bytes.
    #[error("not a size: write a whole number and one of B, KiB, MiB, GiB, TiB, such as \"64GiB\"; or \"0\"")]
    Size,
    /// More than can be meant.
    #[error("a size of more than 1024TiB")]
    SizeTooBig,
}

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split(text).ok_or(ValueError::Duration)?;
        let unit_millis = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or(ValueError::Duration)?.1;
        let millis = number.checked_mul(unit_millis).ok_or(ValueError::DurationTooLong)?;
        let duration = Duration::from_millis(millis);
        if duration > CONFIG_DURATION_MAX { Err(ValueError::DurationTooLong) } else { Ok(Self(duration)) }
    }
}

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(0));
        }
        let (number, unit) = split(text).ok_or(ValueError::Size)?;
        let unit_bytes = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(ValueError::Size)?.1;
        let bytes = number.checked_mul(unit_bytes).ok_or(ValueError::SizeTooBig)?;
        if bytes > CONFIG_SIZE_MAX { Err(ValueError::SizeTooBig) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (number, unit) = in_largest_unit(millis, DURATION_UNITS);
        write!(formatter, "{number}{unit}")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return formatter.write_str("0");
        }
        let (number, unit) = in_largest_unit(self.0, SIZE_UNITS);
        write!(formatter, "{number}{unit}")
    }
}

/// The leading digits and what follows; neither may be empty.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits_end = text.find(|char: char| !char.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(digits_end)?;
    Some((digits.parse().ok()?, unit))
}

/// The value in the largest unit that divides it.
fn in_largest_unit(value: u64, units: &[(&'static str, u64)]) -> (u64, &'static str) {
    let fits = units.iter().rev().find(|(_, unit)| value != 0 && value.is_multiple_of(*unit));
    fits.map_or((value, units.first().map_or("", |(name, _)| *name)), |(name, unit)| (value / unit, name))
}

/// Units of time in milliseconds, ascending.
const DURATION_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60 * 1000), ("h", 60 * 60 * 1000), ("d", 24 * 60 * 60 * 1000)];
/// Units of size in bytes, ascending.
const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

macro_rules! as_text {
    ($($type:ident: $example:literal)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        formatter.write_str($example)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    )*};
}
as_text!(Span: "a duration such as \"90s\"" Size: "a size such as \"64GiB\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let rows = [("0s", 0), ("250ms", 250), ("90s", 90_000), ("5m", 300_000), ("24h", 86_400_000)];
        for (text, millis) in rows {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for bad in ["", "90", "s", "-1s", "1.5h", "1 s", " 1s", "1s ", "1S", "1h30m", "24hours", "１s"] {
            assert_eq!(bad.parse::<Span>(), Err(ValueError::Duration), "{bad:?}");
        }
        assert_eq!("365d".parse(), Ok(Span(CONFIG_DURATION_MAX)));
        for long in ["366d", "18446744073709551615d"] {
            assert_eq!(long.parse::<Span>(), Err(ValueError::DurationTooLong), "{long}");
        }
    }

    #[test]
    fn sizes_are_a_number_and_a_binary_unit() {
        let rows = [("0", 0), ("0B", 0), ("512B", 512), ("1KiB", 1024), ("64GiB", 64 << 30)];
        for (text, bytes) in rows {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "64", "GiB", "64GB", "64G", "-1GiB", "1.5GiB", "64 GiB", "64gib"] {
            assert_eq!(bad.parse::<Size>(), Err(ValueError::Size), "{bad:?}");
        }
        assert_eq!("1024TiB".parse(), Ok(Size(CONFIG_SIZE_MAX)));
        for big in ["1025TiB", "18446744073709551615TiB"] {
            assert_eq!(big.parse::<Size>(), Err(ValueError::SizeTooBig), "{big}");
        }
    }

    #[test]
    fn values_survive_their_text() {
        for (text, shown) in
            [("0s", "0ms"), ("1ms", "1ms"), ("90s", "90s"), ("24h", "1d"), ("7d", "7d"), ("61m", "61m")]
        {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), shown);
            assert_eq!(text.parse::<Span>(), shown.parse(), "{text}");
        }
        for (text, shown) in [("0", "0"), ("1B", "1B"), ("64GiB", "64GiB"), ("1024GiB", "1TiB"), ("1025KiB", "1025KiB")]
        {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), shown);
            assert_eq!(text.parse::<Size>(), shown.parse(), "{text}");
        }
    }
}
