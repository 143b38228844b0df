//! Text from outside as a log field: one line, printable, bounded.

use std::fmt;

use crate::limits::LOG_FIELD_BYTES_MAX;

/// Writes a text from outside with everything but printable ASCII escaped, cut at [`LOG_FIELD_BYTES_MAX`] bytes of output.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogText<'a>(pub(super) &'a str);

impl fmt::Display for LogText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = LOG_FIELD_BYTES_MAX;
        for char in self.0.chars() {
            let escaped = char.escape_default();
            let (verbatim, length) = if matches!(char, ' '..='~') { (true, 1) } else { (false, escaped.len()) };
            let Some(left) = room.checked_sub(length) else { return formatter.write_str("...") };
            room = left;
            if verbatim {
                fmt::Write::write_char(formatter, char)?;
            } else {
                fmt::Display::fmt(&escaped, formatter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p23_control_bytes_cannot_start_a_line_or_colour_a_terminal() {
        assert_eq!(LogText("a\r\nlevel=error \u{1b}[31m é").to_string(), r"a\r\nlevel=error \u{1b}[31m \u{e9}");
        assert_eq!(LogText(r#"say "hi" \o/"#).to_string(), r#"say "hi" \o/"#);
    }

    #[test]
    fn p23_long_text_is_cut() {
        let fits = "x".repeat(LOG_FIELD_BYTES_MAX);
        assert_eq!(LogText(&fits).to_string(), fits);
        assert_eq!(LogText(&format!("{fits}x")).to_string(), format!("{fits}..."));
        assert!(LogText(&"\n".repeat(10_000)).to_string().len() <= LOG_FIELD_BYTES_MAX + 3);
    }
}
