//! JSON as Go's `encoding/json` reads it, with its error texts, keeping the order of members and every double.
//!
//! containers/image's strict reader sits on top of Go's, so that a duplicate key is reported where it stands and a syntax
//! error is reported before anything else. `oci::json` refuses the same documents, but in other words and in another
//! order; here the words are part of the format. Two things are stricter than Go: text must be UTF-8 without lone
//! surrogates, where Go silently puts U+FFFD, and nesting and number of values are bounded.

use super::document::DocumentError;
use crate::limits::{JSON_DEPTH_MAX, JSON_TOKENS_MAX};
use crate::verify::quote::go_quote;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    String(String),
    Array(Vec<Node>),
    /// In the order of the document; a key may come twice.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// As Go's type errors name it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// As Go's `%#v` writes the first token of it.
    pub(super) fn first_token(&self) -> String {
        match self {
            Self::Null => "<nil>".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text) => text.parse::<f64>().map_or_else(|_| text.clone(), |number| number.to_string()),
            Self::String(text) => go_quote(text),
            // Go prints the delimiter's code point.
            Self::Array(_) => u32::from('[').to_string(),
            Self::Object(_) => u32::from('{').to_string(),
        }
    }
}

/// Reads a document.
pub(super) fn read(bytes: &[u8]) -> Result<Node, DocumentError> {
    let mut reader = Reader { bytes, at: 0, tokens: 0 };
    let node = reader.value(0)?;
    match reader.next_token_byte() {
        None => Ok(node),
        Some(found) => Err(reader.unexpected(found, "after top-level value")),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    tokens: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Node, DocumentError> {
        self.count()?;
        match self.next_token_byte() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Node::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Node::Bool(true)),
            Some(b'f') => self.literal("false", Node::Bool(false)),
            Some(b'n') => self.literal("null", Node::Null),
            Some(found) => Err(self.unexpected(found, "looking for beginning of value")),
            None => Err(self.end()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node, DocumentError> {
        self.deeper(depth)?;
        self.at += 1;
        let mut members = Vec::new();
        if self.next_token_byte() == Some(b'}') {
            self.at += 1;
            return Ok(Node::Object(members));
        }
        loop {
            self.count()?;
            match self.next_token_byte() {
                Some(b'"') => {}
                Some(found) => return Err(self.unexpected(found, "looking for beginning of object key string")),
                None => return Err(self.end()),
            }
            let key = self.string()?;
            match self.next_token_byte() {
                Some(b':') => self.at += 1,
                Some(found) => return Err(self.unexpected(found, "after object key")),
                None => return Err(self.end()),
            }
            members.push((key, self.value(depth + 1)?));
            match self.next_token_byte() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Node::Object(members));
                }
                Some(found) => return Err(self.unexpected(found, "after object key:value pair")),
                None => return Err(self.end()),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node, DocumentError> {
        self.deeper(depth)?;
        self.at += 1;
        let mut elements = Vec::new();
        if self.next_token_byte() == Some(b']') {
            self.at += 1;
            return Ok(Node::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            match self.next_token_byte() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Node::Array(elements));
                }
                Some(found) => return Err(self.unexpected(found, "after array element")),
                None => return Err(self.end()),
            }
        }
    }

    /// A string, from its opening quote on.
    fn string(&mut self) -> Result<String, DocumentError> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            match self.byte()? {
                b'"' => break,
                b'\\' => self.escape(&mut text)?,
                found @ ..0x20 => return Err(self.unexpected_last(found, "in string literal")),
                other => text.push(other),
            }
        }
        String::from_utf8(text).map_err(|_| self.error("a string is not UTF-8"))
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), DocumentError> {
        let plain = match self.byte_of_token() {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            same @ (b'\\' | b'/' | b'"') => same,
            b'u' => return self.unicode_escape(text),
            found => return Err(self.unexpected_last(found, "in string escape code")),
        };
        text.push(plain);
        Ok(())
    }

    fn unicode_escape(&mut self, text: &mut Vec<u8>) -> Result<(), DocumentError> {
        let first = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&first) && self.rest().starts_with(b"\\u") {
            self.at += 2;
            let second = self.hex4()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.error("a string has half a surrogate pair"));
            }
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        let char = char::from_u32(code).ok_or_else(|| self.error("a string has half a surrogate pair"))?;
        text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, DocumentError> {
        let mut code = 0;
        for _ in 0..4 {
            let found = self.byte_of_token();
            let digit = char::from(found)
                .to_digit(16)
                .ok_or_else(|| self.unexpected_last(found, "in \\u hexadecimal character escape"))?;
            code = code * 16 + digit;
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<Node, DocumentError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        let written = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Node::Number(String::from_utf8_lossy(written).into_owned()))
    }

    /// One digit at least.
    fn digits(&mut self, place: &str) -> Result<(), DocumentError> {
        match self.byte_of_token() {
            b'0'..=b'9' => {}
            found => return Err(self.unexpected_last(found, place)),
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static str, node: Node) -> Result<Node, DocumentError> {
        for expected in word.bytes() {
            let found = self.byte_of_token();
            if found != expected {
                let place = format!("in literal {word} (expecting {})", go_byte(expected));
                return Err(self.unexpected_last(found, &place));
            }
        }
        Ok(node)
    }

    fn deeper(&self, depth: usize) -> Result<(), DocumentError> {
        if depth == JSON_DEPTH_MAX { Err(self.error("exceeded max depth")) } else { Ok(()) }
    }

    fn count(&mut self) -> Result<(), DocumentError> {
        self.tokens += 1;
        if self.tokens > JSON_TOKENS_MAX {
            return Err(self.error(&format!("more than {JSON_TOKENS_MAX} values")));
        }
        Ok(())
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is no white space, not consumed.
    fn next_token_byte(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.peek()
    }

    fn byte(&mut self) -> Result<u8, DocumentError> {
        let byte = self.peek().ok_or_else(|| self.end())?;
        self.at += 1;
        Ok(byte)
    }

    /// The next byte, where a token is not complete. At the end of the input it is a space, which belongs to no token: Go
    /// ends its scan with one, and complains about that.
    fn byte_of_token(&mut self) -> u8 {
        let byte = self.peek().unwrap_or(b' ');
        self.at += 1;
        byte
    }

    fn end(&self) -> DocumentError {
        self.error("unexpected end of JSON input")
    }

    fn unexpected(&self, found: u8, place: &str) -> DocumentError {
        self.error(&format!("invalid character {} {place}", go_byte(found)))
    }

    /// As [`Self::unexpected`], for a byte that was consumed.
    fn unexpected_last(&mut self, found: u8, place: &str) -> DocumentError {
        self.at = self.at.saturating_sub(1);
        self.unexpected(found, place)
    }

    fn error(&self, text: &str) -> DocumentError {
        let before = self.bytes.get(..self.at).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        DocumentError::at_position(text, line, column)
    }
}

/// A byte as Go's scanner writes it: as the character with that code point, in single quotes.
fn go_byte(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        other => {
            let quoted = go_quote(&char::from(other).to_string());
            format!("'{}'", quoted.trim_matches('"'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        read(text.as_bytes()).unwrap_err().text().to_owned()
    }

    #[test]
    fn a_document_keeps_order_and_doubles() {
        let node = read(br#" {"b":[1,-2.5e+3,true,false,null],"a":"x\u00e9\ud83d\ude00\n\/","b":{}} "#).unwrap();
        let Node::Object(members) = node else { panic!("an object") };
        let keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["b", "a", "b"]);
        assert_eq!(members[1].1, Node::String("xé\u{1f600}\n/".to_owned()));
        let Node::Array(elements) = &members[0].1 else { panic!("an array") };
        assert_eq!(elements[1], Node::Number("-2.5e+3".to_owned()));
        assert_eq!(elements[2..], [Node::Bool(true), Node::Bool(false), Node::Null]);
    }

    #[test]
    fn syntax_errors_are_in_go_s_words() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("&", "invalid character '&' looking for beginning of value"),
            ("\u{feff}{}", "invalid character 'ï' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{,}", "invalid character ',' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 /* */}"#, "invalid character '/' after object key:value pair"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
            ("\"a\nb\"", r"invalid character '\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u00g0""#, r"invalid character 'g' in \u hexadecimal character escape"),
            ("trve", "invalid character 'v' in literal true (expecting 'u')"),
            ("nul", "invalid character ' ' in literal null (expecting 'l')"),
            ("-", "invalid character ' ' in numeric literal"),
            ("-a", "invalid character 'a' in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("1.", "invalid character ' ' after decimal point in numeric literal"),
            (r#""\u00"#, r"invalid character ' ' in \u hexadecimal character escape"),
            ("1.a", "invalid character 'a' after decimal point in numeric literal"),
            ("1ea", "invalid character 'a' in exponent of numeric literal"),
            ("\"", "unexpected end of JSON input"),
        ] {
            assert_eq!(error(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_error_says_where() {
        let error = read(b"{\n  \"a\": ?\n}").unwrap_err();
        assert_eq!(error.to_string(), "invalid character '?' looking for beginning of value (line 2, column 8)");
    }

    #[test]
    fn text_that_two_readers_could_read_differently_is_refused() {
        for text in [&b"\"\xff\""[..], br#""\ud800""#, br#""\ud800\u0041""#, br#""\udc00""#, br#""\ud800x""#] {
            assert!(read(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn depth_and_number_of_values_are_bounded_on_both_sides() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(error(&nested(JSON_DEPTH_MAX + 1)), "exceeded max depth");
        let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert!(read(list(JSON_TOKENS_MAX - 1).as_bytes()).is_ok());
        assert!(read(list(JSON_TOKENS_MAX).as_bytes()).is_err());
    }

    #[test]
    fn the_first_token_is_written_as_go_writes_it() {
        for (text, expected) in
            [("null", "<nil>"), ("1", "1"), ("1.50", "1.5"), ("true", "true"), (r#""a""#, r#""a""#), ("[1]", "91")]
        {
            assert_eq!(read(text.as_bytes()).unwrap().first_token(), expected);
        }
    }
}
