//! Foreign texts, as errors repeat them.

/// A foreign text as errors repeat it: cut, since its author chose its length.
pub(in crate::verify) fn shown(text: &str) -> String {
    let mut end = text.len().min(TEXT_SHOWN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    match text.get(..end) {
        Some(start) if end < text.len() => format!("{start}..."),
        _ => text.to_owned(),
    }
}

pub(super) fn names(found: &[String]) -> String {
    if found.is_empty() { "no names".to_owned() } else { found.join(", ") }
}

/// Bytes of a foreign text that an error repeats.
const TEXT_SHOWN_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_at_a_character() {
        let max = "a".repeat(TEXT_SHOWN_BYTES_MAX);
        assert_eq!(shown(&max), max);
        assert_eq!(shown(&format!("{max}b")), format!("{max}..."));
        let wide = "\u{e9}".repeat(TEXT_SHOWN_BYTES_MAX);
        assert_eq!(shown(&wide).len(), TEXT_SHOWN_BYTES_MAX + 3);
        let odd = format!("a{wide}");
        assert_eq!(shown(&odd).len(), TEXT_SHOWN_BYTES_MAX - 1 + 3);
    }
}
