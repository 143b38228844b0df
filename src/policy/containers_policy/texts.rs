//! How texts of containers/image are written, so that people find the strings that they know.
//!
//! The summary of several rejections, and the one line that a verdict keeps.

use std::fmt::Write as _;

use crate::limits::REFUSAL_LINE_BYTES_MAX;
use crate::oci::{ImageReference, Reference};
use crate::verify::quote::go_quote;

/// No signature at all.
pub(crate) const NO_SIGNATURE: &str = "A signature was required, but no signature exists";
/// An array of requirements has no element.
pub(super) const EMPTY_REQUIREMENTS: &str = "List of verification policy requirements must not be empty";
/// `signedBaseLayer` is in the format, and in no program.
pub(super) const BASE_LAYER: &str = "signedBaseLayer not implemented yet!";
/// A bundle meets a `signedIdentity`, which it cannot satisfy: its statement names digests.
pub(super) const BUNDLE_WITHOUT_IDENTITY: &str = "bundle signature carries no docker-reference; signedIdentity cannot be checked (bundles_without_identity = true in a [[policy.override]] accepts its digest alone)";
/// A signature requirement meets a digest that no signature names.
pub(super) const UNSUPPORTED_DIGEST: &str = "signatures bind sha256 digests; this sha512 digest cannot be verified: pull the image by tag or by its sha256 digest";

/// `text` as one line of printable ASCII: what is neither is written as Go's `%+q` does, without the quotes.
pub(crate) fn ascii_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        let code = u32::from(char);
        let written = match char {
            ' '..='~' => line.write_char(char),
            '\n' => line.write_str("\\n"),
            '\r' => line.write_str("\\r"),
            '\t' => line.write_str("\\t"),
            _ if code < 0x80 => write!(line, "\\x{code:02x}"),
            _ if code < 0x1_0000 => write!(line, "\\u{code:04x}"),
            _ => write!(line, "\\U{code:08x}"),
        };
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    line
}

/// What `reject` says. containers/image shortens names of Docker Hub here, and so do we.
pub(super) fn rejected_by_policy(image: &ImageReference) -> String {
    let name = image.repository.to_string();
    let familiar = match name.strip_prefix("docker.io/") {
        Some(path) => path.strip_prefix("library/").filter(|short| !short.contains('/')).unwrap_or(path),
        None => &name,
    };
    let separator = match image.reference {
        Reference::Tag(_) => ':',
        Reference::Digest(_) => '@',
    };
    format!("Running image docker://{familiar}{separator}{} is rejected by policy.", image.reference)
}

/// What a signature for another reference says.
pub(super) fn identity_not_accepted(signed: &str) -> String {
    format!("Signature for identity {} is not accepted", go_quote(signed))
}

/// What a signature says where the requirement's keys are of a kind that no program implements.
pub(super) fn unimplemented_key_type(key_type: &str) -> String {
    format!("Unimplemented \"keyType\" value {}", go_quote(key_type))
}

/// What several rejected signatures say together: one reason as it is, more of them as containers/image joins them,
/// cut between two reasons when the line of a verdict would overflow.
pub(super) fn rejections(reasons: &[String]) -> String {
    const START: &str = "None of the signatures were accepted, reasons: ";
    if let [only] = reasons {
        return verdict_line(only);
    }
    let whole = verdict_text(&format!("{START}{}", reasons.join("; ")));
    if whole.len() <= REFUSAL_LINE_BYTES_MAX {
        return whole;
    }
    let room = REFUSAL_LINE_BYTES_MAX - " and 999 more".len();
    let mut line = START.to_owned();
    for (index, reason) in reasons.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        let next = format!("{line}{separator}{}", verdict_text(reason));
        if next.len() > room {
            let left = reasons.len() - index;
            let line = if index == 0 { cut(&next, room) } else { line };
            let left = if index == 0 { left - 1 } else { left };
            return format!("{line} and {left} more");
        }
        line = next;
    }
    line
}

/// `text` as the one line that a verdict keeps.
pub(crate) fn verdict_line(text: &str) -> String {
    let line = verdict_text(text);
    if line.len() <= REFUSAL_LINE_BYTES_MAX { line } else { cut(&line, REFUSAL_LINE_BYTES_MAX) }
}

fn verdict_text(text: &str) -> String {
    ascii_line(text.trim())
}

/// The start of an ASCII line, ending in dots, at most `length` bytes.
fn cut(line: &str, length: usize) -> String {
    let kept: String = line.chars().take(length.saturating_sub(3)).collect();
    format!("{kept}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_printable_ascii_whatever_comes_in() {
        assert_eq!(ascii_line("a\r\nb\u{1b}[31m é \u{1f600}"), r"a\r\nb\x1b[31m \u00e9 \U0001f600");
        assert_eq!(ascii_line(r#"Required email "x" not found"#), r#"Required email "x" not found"#);
    }

    #[test]
    fn a_rejected_image_is_named_as_containers_image_names_it() {
        for (image, named) in [
            ("docker.io/library/alpine:3", "docker://alpine:3"),
            ("docker.io/grafana/grafana:1", "docker://grafana/grafana:1"),
            ("docker.io/library/a/b:1", "docker://library/a/b:1"),
            ("quay.io/a/b:1", "docker://quay.io/a/b:1"),
        ] {
            let text = rejected_by_policy(&image.parse().unwrap());
            assert_eq!(text, format!("Running image {named} is rejected by policy."));
        }
    }

    #[test]
    fn one_rejection_stands_alone_and_several_are_joined() {
        let reasons = ["first".to_owned(), "second".to_owned()];
        assert_eq!(rejections(&reasons[..1]), "first");
        assert_eq!(rejections(&reasons), "None of the signatures were accepted, reasons: first; second");
    }

    #[test]
    fn a_long_list_is_cut_between_reasons_and_says_how_many_are_left() {
        let reasons: Vec<String> = (0..64).map(|number| format!("reason number {number}")).collect();
        let text = rejections(&reasons);
        assert!(text.len() <= REFUSAL_LINE_BYTES_MAX, "{text}");
        let (list, left) = text.rsplit_once(" and ").unwrap();
        let shown = list.matches("reason number").count();
        assert_eq!(left, format!("{} more", 64 - shown));
        assert!(list.ends_with(&format!("reason number {}", shown - 1)), "{text}");
    }

    #[test]
    fn a_line_is_bounded_on_both_sides() {
        let fits = "x".repeat(REFUSAL_LINE_BYTES_MAX);
        assert_eq!(verdict_line(&fits), fits);
        let cut = verdict_line(&format!("{fits}x"));
        assert_eq!((cut.len(), cut.ends_with("x...")), (REFUSAL_LINE_BYTES_MAX, true));
        let two = [fits.clone(), fits];
        let text = rejections(&two);
        assert!(text.len() <= REFUSAL_LINE_BYTES_MAX && text.ends_with("... and 1 more"), "{text}");
    }
}
