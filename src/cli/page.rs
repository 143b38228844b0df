//! Text that fits a terminal of 80 columns: what is too long goes on under itself.

use std::fmt::{self, Display, Formatter};

use super::output::Shown;

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Hexadecimal digits of a digest that are shown.
const DIGEST_SHOWN: usize = 12;

/// Lines of at most [`WIDTH`] columns.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Display for Page {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Page {
    /// Names and what they are, below each other, after `indent`.
    pub(super) fn rows(&mut self, rows: &[(&'static str, String)], indent: &str) {
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, text) in rows {
            self.line(
                &format!("{indent}{name:width$}  "),
                &format!("{indent}{:width$}  ", ""),
                &with_short_digests(&Shown(text).to_string()),
            );
        }
    }

    /// A text after `first`, going on after `next` where it does not fit.
    pub(super) fn line(&mut self, first: &str, next: &str, text: &str) {
        let mut line = first.to_owned();
        let mut is_fresh = true;
        for word in text.split_whitespace() {
            let gap = usize::from(!is_fresh);
            if !is_fresh && columns(&line) + gap + columns(word) > WIDTH {
                self.end(&line);
                next.clone_into(&mut line);
                is_fresh = true;
            }
            if !is_fresh {
                line.push(' ');
            }
            let mut from = line.len();
            for char in word.chars() {
                if columns(&line) >= WIDTH.max(columns(next) + 1) {
                    let rest = after_slash(&mut line, from);
                    self.end(&line);
                    next.clone_into(&mut line);
                    from = line.len();
                    line.push_str(&rest);
                }
                line.push(char);
            }
            is_fresh = false;
        }
        self.end(&line);
    }

    fn end(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

/// What stands in `line` after the last slash of the word that begins at `from`, taken out of it: addresses break there.
fn after_slash(line: &mut String, from: usize) -> String {
    let slash = line.get(from..).and_then(|word| word.rfind('/')).map(|at| from.saturating_add(at).saturating_add(1));
    slash.map(|slash| line.split_off(slash)).unwrap_or_default()
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

/// One foreign text as lines after `first` and `next`.
pub(super) fn wrapped(first: &str, next: &str, text: &str) -> String {
    let mut page = Page::default();
    page.line(first, next, &Shown(text).to_string());
    page.0
}

/// Names and what they are, below each other.
#[derive(Debug)]
pub(super) struct Rows<'a>(pub(super) &'a [(&'static str, String)]);

impl Display for Rows<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let mut page = Page::default();
        page.rows(self.0, "  ");
        page.fmt(formatter)
    }
}

/// Long runs of hexadecimal digits after an algorithm's name, as their first few.
pub(super) fn with_short_digests(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut left = text;
    while let Some(at) = ["sha256:", "sha256-", "sha256="].iter().filter_map(|name| left.find(name)).min() {
        let (before, from) = left.split_at_checked(at.saturating_add("sha256:".len())).unwrap_or((left, ""));
        let digits = from.find(|char: char| !char.is_ascii_hexdigit()).unwrap_or(from.len());
        shown.push_str(before);
        let (digest, after) = from.split_at_checked(digits).unwrap_or((from, ""));
        match digest.get(..DIGEST_SHOWN) {
            Some(start) if digits == 64 => {
                shown.push_str(start);
                shown.push('…');
            }
            _ => shown.push_str(digest),
        }
        left = after;
    }
    shown + left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_digests_are_cut() {
        let hex = "0".repeat(64);
        assert_eq!(with_short_digests(&format!("sha256-{hex}.sig layer 1")), "sha256-000000000000….sig layer 1");
        let lookaside = format!("https://host/app@sha256={hex}/signature-1");
        assert_eq!(with_short_digests(&lookaside), "https://host/app@sha256=000000000000…/signature-1");
        assert_eq!(
            with_short_digests(&format!("a sha256:{hex} b sha256:{hex}")),
            "a sha256:000000000000… b sha256:000000000000…"
        );
        for whole in ["sha256:", "sha256:00ff", "none", ""] {
            assert_eq!(with_short_digests(whole), whole);
        }
    }

    #[test]
    fn an_address_breaks_after_a_slash_and_what_has_none_where_it_must() {
        let path = "a".repeat(60);
        let shown = wrapped("  ", "    ", &format!("at https://host.example/{path}/signature-1"));
        assert_eq!(
            shown,
            format!("  at\n  https://host.example/\n    {path}/signature-1\n").replace("  at\n  h", "  at\n    h")
        );
        let long = "b".repeat(90);
        assert_eq!(wrapped("  ", "    ", &long), format!("  {}\n    {}\n", "b".repeat(78), "b".repeat(12)));
        let slashed = format!("{}/{long}", "c".repeat(10));
        assert!(wrapped("", "", &slashed).lines().all(|line| columns(line) <= WIDTH));
    }

    proptest! {
        #[test]
        fn no_row_is_wider_than_a_terminal(text in "[ -~äß\u{1b}\n\r]{0,300}") {
            let rows = Rows(&[("reason", text.clone())]).to_string();
            prop_assert!(rows.lines().all(|line| line.chars().count() <= WIDTH && line.starts_with("  ")));
            let lines = wrapped("# ", "# ", &text);
            prop_assert!(lines.lines().all(|line| line.chars().count() <= WIDTH && line.starts_with('#')));
        }
    }
}
