//! Go's `%q`, for the texts that users know from `containers/image`.

use std::fmt::Write as _;

/// The text between double quotes, as Go's `strconv.Quote` writes it.
///
/// Letters and digits of any script stand as they are; of other characters beyond ASCII all are escaped, also the few
/// that Go would print.
pub(crate) fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for char in text.chars() {
        push_escaped(&mut quoted, char);
    }
    quoted.push('"');
    quoted
}

/// The texts in brackets, each quoted, as `%q` writes a slice.
pub(crate) fn go_quote_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| go_quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

fn push_escaped(quoted: &mut String, char: char) {
    match char {
        '"' | '\\' => quoted.extend(['\\', char]),
        '\u{7}' => quoted.push_str("\\a"),
        '\u{8}' => quoted.push_str("\\b"),
        '\u{c}' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\u{b}' => quoted.push_str("\\v"),
        ' '..='~' => quoted.push(char),
        _ if char.is_alphanumeric() => quoted.push(char),
        _ => push_code(quoted, u32::from(char)),
    }
}

fn push_code(quoted: &mut String, code: u32) {
    let written = match code {
        0..=0x7f => write!(quoted, "\\x{code:02x}"),
        0x80..=0xffff => write!(quoted, "\\u{code:04x}"),
        _ => write!(quoted, "\\U{code:08x}"),
    };
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_does() {
        let rows = [
            ("a@b.c", r#""a@b.c""#),
            ("", r#""""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}", r#""\a\b\f\n\r\t\v""#),
            ("\0\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            ("ü", "\"ü\""),
            ("\u{202e}\u{feff}", r#""\u202e\ufeff""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ];
        for (text, quoted) in rows {
            assert_eq!(go_quote(text), quoted);
        }
    }

    #[test]
    fn a_list_is_written_with_spaces() {
        assert_eq!(go_quote_list(&[]), "[]");
        assert_eq!(go_quote_list(&["a".to_owned(), "b".to_owned()]), r#"["a" "b"]"#);
    }
}
