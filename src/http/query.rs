//! The query of a request, decoded strictly and once (RFC 3986, section 2.1).

use crate::limits::TAGS_PAGE_MAX;

/// Why a query cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// `%` without two hexadecimal digits, or what is decoded is not UTF-8, or a raw control or non-ASCII byte.
    #[error("the query is not percent-encoded UTF-8")]
    Encoding,
    /// A key that counts is there twice.
    #[error("{key} is given twice")]
    Twice {
        /// Which one.
        key: &'static str,
    },
    /// `n` is not a number.
    #[error("n is not a whole number of tags")]
    Number,
}

/// The pairs of a query, decoded. Keys that nobody asks for are ignored, as the distribution-spec's servers do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `raw`, the text after `?`. A `+` is a plus: media types have them, and nothing here has spaces.
    pub(super) fn parse(raw: &str) -> Result<Self, QueryError> {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        decoded.collect::<Result<_, _>>().map(Self)
    }

    /// The value of `key`, which may be there once.
    pub(super) fn one(&self, key: &'static str) -> Result<Option<&str>, QueryError> {
        let mut values = self.0.iter().filter(|(found, _)| found == key).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() { Err(QueryError::Twice { key }) } else { Ok(value) }
    }

    /// `n`, clamped to the largest page.
    pub(super) fn page_size(&self) -> Result<Option<usize>, QueryError> {
        let Some(text) = self.one("n")? else { return Ok(None) };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(QueryError::Number);
        }
        // Digits alone that do not fit are a number all the same, a large one.
        Ok(Some(text.parse::<usize>().unwrap_or(TAGS_PAGE_MAX).min(TAGS_PAGE_MAX)))
    }
}

/// Writes `text` so that [`decode`] gives it back.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => {
                encoded.push('%');
                encoded.push_str(&hex::encode_upper([byte]));
            }
        }
    }
    encoded
}

fn decode(text: &str) -> Result<String, QueryError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = bytes.next().and_then(hex_digit).ok_or(QueryError::Encoding)?;
                let low = bytes.next().and_then(hex_digit).ok_or(QueryError::Encoding)?;
                decoded.push((high << 4) | low);
            }
            b'!'..=b'~' => decoded.push(byte),
            _ => return Err(QueryError::Encoding),
        }
    }
    String::from_utf8(decoded).map_err(|_| QueryError::Encoding)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_once() {
        let query = Query::parse("ns=127.0.0.1%3A7005&artifactType=a/b+c%2Bd&x=%2525").unwrap();
        assert_eq!(query.one("ns"), Ok(Some("127.0.0.1:7005")));
        assert_eq!(query.one("artifactType"), Ok(Some("a/b+c+d")));
        assert_eq!(query.one("x"), Ok(Some("%25")));
        assert_eq!(query.one("n"), Ok(None));
    }

    #[test]
    fn broken_encoding_is_refused_under_any_key() {
        for bad in ["ns=%", "ns=%4", "ns=%zz", "other=%ff", "a%g0=1", "ns=é", "ns=a b", "ns=\u{7f}"] {
            assert_eq!(Query::parse(bad), Err(QueryError::Encoding), "{bad}");
        }
    }

    #[test]
    fn a_key_counts_once_however_it_is_written() {
        let query = Query::parse("ns=a&n%73=b&y=1&y=2").unwrap();
        assert_eq!(query.one("ns"), Err(QueryError::Twice { key: "ns" }));
        assert_eq!(query.one("last"), Ok(None));
    }

    #[test]
    fn n_is_a_number_and_clamped() {
        let page = |query: &str| Query::parse(query).unwrap().page_size();
        assert_eq!(page(""), Ok(None));
        assert_eq!(page("n=0"), Ok(Some(0)));
        assert_eq!(page("n=1000"), Ok(Some(1000)));
        assert_eq!(page("n=1001"), Ok(Some(1000)));
        assert_eq!(page("n=99999999999999999999999"), Ok(Some(1000)));
        for bad in ["n=", "n=-1", "n=+1", "n=1.0", "n=%31x", "n"] {
            assert_eq!(page(bad), Err(QueryError::Number), "{bad}");
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["[::1]:5000", "a+b/c;d=\"é\"", "", "%"] {
            assert_eq!(decode(&encode(text)).as_deref(), Ok(text));
        }
    }
}
