//! Sees whether a request states its body's length more than one way (RFC 9112, section 6.3).
//!
//! hyper resolves such requests before we are asked and drops the losing header, so the bytes are looked at as they come in. This
//! can only refuse: what it takes for a head may be part of a body, and then a write, which is refused anyway, gets another status.

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// Counts the length headers between two empty lines.
#[derive(Debug, Default)]
pub(super) struct LengthScan {
    /// The beginning of the current line, in lower case, no longer than the longest name.
    line: Vec<u8>,
    content_length: bool,
    transfer_encoding: bool,
    ambiguous: bool,
}

impl LengthScan {
    /// Takes in the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = lines.next() {
            let room = TRANSFER_ENCODING.len().saturating_sub(self.line.len());
            self.line.extend(part.iter().take(room).map(u8::to_ascii_lowercase));
            if lines.peek().is_some() {
                self.end_line();
            }
        }
    }

    /// Whether any head so far had two lengths.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    fn end_line(&mut self) {
        if self.line.starts_with(CONTENT_LENGTH) {
            self.ambiguous |= self.content_length || self.transfer_encoding;
            self.content_length = true;
        } else if self.line.starts_with(TRANSFER_ENCODING) {
            self.ambiguous |= self.content_length || self.transfer_encoding;
            self.transfer_encoding = true;
        } else if matches!(self.line.as_slice(), b"" | b"\r") {
            (self.content_length, self.transfer_encoding) = (false, false);
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one piece and byte by byte it must be the same.
    fn ambiguous(text: &str) -> bool {
        let mut whole = LengthScan::default();
        whole.feed(text.as_bytes());
        let mut pieces = LengthScan::default();
        text.as_bytes().chunks(1).for_each(|byte| pieces.feed(byte));
        assert_eq!(whole.is_ambiguous(), pieces.is_ambiguous(), "{text:?}");
        whole.is_ambiguous()
    }

    #[test]
    fn p07_two_lengths_in_one_head_are_seen_in_any_order_and_case() {
        for two in [
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\nx: y\r\ncontent-length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\nTransfer-Encoding: a\nTransfer-Encoding: chunked\n\n",
        ] {
            assert!(ambiguous(two), "{two:?}");
        }
    }

    #[test]
    fn one_length_in_each_of_two_heads_is_fine() {
        let requests =
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(!ambiguous(requests));
        assert!(!ambiguous(
            "GET / HTTP/1.1\r\nX-Content-Length: 1\r\nContent-Length-X: 2\r\nContent-Length: 0\r\n\r\n"
        ));
    }
}
