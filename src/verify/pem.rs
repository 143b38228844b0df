//! PEM blocks (RFC 7468), read as Go's `encoding/pem` does: text around the blocks is ignored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// Such as `CERTIFICATE`.
    pub(super) label: String,
    /// The content.
    pub(super) der: Vec<u8>,
}

/// The text is not well-formed PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PemError {
    NotText,
    Unclosed,
    OtherEnd,
    Base64,
}

impl PemError {
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::NotText => "not text",
            Self::Unclosed => "a block does not end",
            Self::OtherEnd => "a block ends with another label than it begins with",
            Self::Base64 => "the content of a block is not base64",
        }
    }
}

/// All blocks in their order; none is not an error here.
pub(super) fn blocks(bytes: &[u8]) -> Result<Vec<Block>, PemError> {
    let text = std::str::from_utf8(bytes).map_err(|_| PemError::NotText)?;
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        if let Some(label) = boundary(line, "-----BEGIN ") {
            let der = content(label, &mut lines)?;
            blocks.push(Block { label: label.to_owned(), der });
        }
    }
    Ok(blocks)
}

fn content<'a>(label: &str, lines: &mut impl Iterator<Item = &'a str>) -> Result<Vec<u8>, PemError> {
    let mut base64 = String::new();
    for line in lines {
        if let Some(end) = boundary(line, "-----END ") {
            if end != label {
                return Err(PemError::OtherEnd);
            }
            return STANDARD.decode(base64).map_err(|_| PemError::Base64);
        }
        base64.push_str(line.trim_start());
    }
    Err(PemError::Unclosed)
}

fn boundary<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

/// A block of that label with 64 characters to the line.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn write(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (position, char) in base64.chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            text.push('\n');
        }
        text.push(char);
    }
    text + &format!("\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_other_text() {
        let text = format!("subject=x\r\n{}\n# and\n{}trailing", write("A", &[7; 100]), write("B C", b""));
        let found = blocks(text.as_bytes()).unwrap();
        assert_eq!(found[0], Block { label: "A".to_owned(), der: vec![7; 100] });
        assert_eq!(found[1], Block { label: "B C".to_owned(), der: Vec::new() });
        assert_eq!(found.len(), 2);
        assert_eq!(blocks(text.replace('\n', "\r\n").as_bytes()).unwrap(), found);
        assert_eq!(blocks(b"nothing"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_broken_is_refused() {
        assert_eq!(blocks(b"\xff"), Err(PemError::NotText));
        assert_eq!(blocks(b"-----BEGIN A-----\nAAAA"), Err(PemError::Unclosed));
        assert_eq!(blocks(b"-----BEGIN A-----\nAAAA\n-----END B-----"), Err(PemError::OtherEnd));
        assert_eq!(blocks(b"-----BEGIN A-----\nAA!A\n-----END A-----"), Err(PemError::Base64));
        assert_eq!(blocks(b"-----BEGIN A-----\nAAA\n-----END A-----"), Err(PemError::Base64));
    }
}
