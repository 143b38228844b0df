//! What an upstream says about its limit of requests: `ratelimit-limit` and `ratelimit-remaining`, as Docker Hub sends them.
//!
//! They are shown to operators and change nothing: what is done about a limit is decided by its 429.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

use super::checks;

/// How many requests are allowed in which time, and how many of them are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateLimit {
    pub(super) requests: u64,
    pub(super) remaining: u64,
    /// Where it is said.
    pub(super) window: Option<Duration>,
}

impl RateLimit {
    /// Reads `100;w=21600` out of both headers. `None` when one is missing, there twice, or says something else.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let quota = |name: &HeaderName| quota(checks::single(headers, name).ok().flatten()?);
        let (requests, window) = quota(&LIMIT)?;
        let (remaining, other) = quota(&REMAINING)?;
        Some(Self { requests, remaining, window: window.or(other) })
    }
}

/// The first quota of a list, and its window.
fn quota(text: &str) -> Option<(u64, Option<Duration>)> {
    let mut parts = text.split(',').next()?.split(';').map(str::trim);
    let number = number(parts.next()?)?;
    let window = parts.find_map(|part| self::number(part.strip_prefix("w=")?));
    Some((number, window.map(Duration::from_secs)))
}

/// Digits alone; more than anybody means is what nobody can say.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= NUMBER_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const NUMBER_BYTES_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(limit: &[&'static str], remaining: &[&'static str]) -> Option<(u64, u64, Option<u64>)> {
        let mut headers = HeaderMap::new();
        for value in limit {
            headers.append(LIMIT, http::HeaderValue::from_static(value));
        }
        for value in remaining {
            headers.append(REMAINING, http::HeaderValue::from_static(value));
        }
        RateLimit::read(&headers).map(|limit| (limit.requests, limit.remaining, limit.window.map(|w| w.as_secs())))
    }

    #[test]
    fn both_headers_are_read_with_their_window() {
        assert_eq!(read(&["100;w=21600"], &["76;w=21600"]), Some((100, 76, Some(21_600))));
        assert_eq!(read(&["100"], &["0"]), Some((100, 0, None)));
        assert_eq!(read(&["100, 100;w=10"], &[" 7 ; w=10"]), Some((100, 7, Some(10))));
        assert_eq!(read(&["999999999999"], &["1"]), Some((999_999_999_999, 1, None)));
    }

    #[test]
    fn anything_else_is_nothing() {
        for bad in ["", "-1", "1.5", "many", "1000000000000", "100 per hour", "+1"] {
            assert_eq!(read(&[bad], &["1"]), None, "{bad}");
            assert_eq!(read(&["1"], &[bad]), None, "{bad}");
        }
        assert_eq!(read(&["1"], &[]), None);
        assert_eq!(read(&["1", "2"], &["1"]), None);
        assert_eq!(read(&["1;w=x"], &["1;w="]), Some((1, 1, None)));
    }
}
