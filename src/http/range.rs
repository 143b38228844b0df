//! Which bytes of a blob a request wants (RFC 9110, section 14). Pure.

use std::fmt;

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// 200 and everything: no range, several ranges, another unit, or a header that cannot be read.
    Whole,
    /// 206 and this part.
    Part(Span),
    /// 416.
    Unsatisfiable,
}

/// A part of a blob: `start..=end`, both within its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte.
    pub(super) start: u64,
    /// Last byte.
    pub(super) end: u64,
    /// Bytes of the whole blob.
    pub(super) size: u64,
}

impl Span {
    /// Bytes of the part.
    pub(super) fn length(&self) -> u64 {
        (self.end - self.start).saturating_add(1)
    }
}

impl fmt::Display for Span {
    /// As in `Content-Range`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "bytes {}-{}/{}", self.start, self.end, self.size)
    }
}

/// Reads a `Range` header's value for a blob of `size` bytes.
///
/// A recipient must ignore what it cannot read (14.2), and may answer several ranges with everything. `bytes=500-0` is invalid by the
/// grammar's text (14.1.1), yet clients and the conformance suite expect 416 for it.
pub(super) fn select(header: Option<&str>, size: u64) -> Selection {
    let Some((unit, set)) = header.and_then(|header| header.split_once('=')) else { return Selection::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Selection::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Selection::Whole };
    match (position(first), position(last)) {
        (Position::At(start), Position::Absent) => part(start, size.saturating_sub(1), size),
        (Position::At(start), Position::At(end)) => part(start, end, size),
        (Position::Absent, Position::At(length)) => suffix(length, size),
        (Position::Absent, Position::Absent) | (Position::Unreadable, _) | (_, Position::Unreadable) => {
            Selection::Whole
        }
    }
}

/// Whether `If-Range` still holds: it names this very entity tag, strongly (13.1.5). A date never does: blobs have none.
pub(super) fn still_holds(if_range: Option<&str>, etag: &str) -> bool {
    if_range.is_none_or(|condition| condition.trim() == etag)
}

fn part(start: u64, end: u64, size: u64) -> Selection {
    if start >= size || end < start {
        return Selection::Unsatisfiable;
    }
    Selection::Part(Span { start, end: end.min(size - 1), size })
}

fn suffix(length: u64, size: u64) -> Selection {
    if length == 0 || size == 0 {
        return Selection::Unsatisfiable;
    }
    Selection::Part(Span { start: size.saturating_sub(length), end: size - 1, size })
}

enum Position {
    Absent,
    At(u64),
    Unreadable,
}

fn position(text: &str) -> Position {
    if text.is_empty() {
        return Position::Absent;
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Position::Unreadable;
    }
    // Digits that do not fit are a position beyond every blob.
    Position::At(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str, size: u64) -> Result<(u64, u64), Selection> {
        match select(Some(header), size) {
            Selection::Part(Span { start, end, size: whole }) => {
                assert!(start <= end && end < whole && whole == size, "{header}");
                Ok((start, end))
            }
            other @ (Selection::Whole | Selection::Unsatisfiable) => Err(other),
        }
    }

    #[test]
    fn single_ranges_are_served_and_clipped() {
        let rows = [
            ("bytes=500-1499", (500, 1499)),
            ("bytes=500-", (500, 1999)),
            ("bytes=-500", (1500, 1999)),
            ("bytes=0-0", (0, 0)),
            ("bytes=0-", (0, 1999)),
            ("bytes=1999-", (1999, 1999)),
            ("bytes=1500-5000", (1500, 1999)),
            ("bytes=-5000", (0, 1999)),
            ("BYTES= 1-2 ", (1, 2)),
            ("bytes=5-99999999999999999999999", (5, 1999)),
        ];
        for (header, wanted) in rows {
            assert_eq!(of(header, 2000), Ok(wanted), "{header}");
        }
    }

    #[test]
    fn ranges_outside_are_unsatisfiable() {
        for header in ["bytes=500-0", "bytes=2000-", "bytes=5000-10000", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(of(header, 2000), Err(Selection::Unsatisfiable), "{header}");
        }
        for header in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(of(header, 0), Err(Selection::Unsatisfiable), "{header}");
        }
    }

    #[test]
    fn several_ranges_other_units_and_nonsense_get_everything() {
        let many = format!("bytes={}", "0-1,".repeat(10_000));
        for header in [
            "bytes=0-1,5-6",
            "bytes=0-1,",
            &many,
            "lines=1-2",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-",
            "bytes=1-x",
            "",
        ] {
            assert_eq!(of(header, 2000), Err(Selection::Whole), "{header}");
        }
        assert_eq!(select(None, 2000), Selection::Whole);
    }

    #[test]
    fn a_part_knows_its_length_and_its_header() {
        let span = Span { start: 500, end: 1499, size: 2000 };
        assert_eq!((span.length(), span.to_string()), (1000, "bytes 500-1499/2000".to_owned()));
        assert_eq!(Span { start: 0, end: u64::MAX, size: u64::MAX }.length(), u64::MAX);
    }

    #[test]
    fn a_condition_holds_for_the_same_strong_tag_only() {
        let etag = "\"sha256:aa\"";
        assert!(still_holds(None, etag) && still_holds(Some(" \"sha256:aa\" "), etag));
        for other in ["\"sha256:bb\"", "W/\"sha256:aa\"", "sha256:aa", "Wed, 21 Oct 2015 07:28:00 GMT", "*", ""] {
            assert!(!still_holds(Some(other), etag), "{other}");
        }
    }
}
