//! Whether a glob can match any name of a certain shape at all: the product of two small automata, walked whole.

use std::collections::HashSet;

use super::glob::{Glob, Part, reach};

/// The shapes of names that images are matched under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `[host[:port]/]path@sha256:<64 digits>`
    Digest,
    /// `[host[:port]/]path[:tag]`
    Tag,
}

/// How far a name has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// In what is a host or the first part of a path.
    First,
    /// In a port.
    Port,
    /// Before the first character of a component of a path.
    Component,
    /// In a component of a path.
    Path,
    /// In a tag.
    Tag,
    /// That many characters of `sha256:` and digits have been read.
    Digest(usize),
}

impl At {
    /// Where one more character can lead; nowhere: no name of that shape goes on so.
    fn after(self, byte: u8, shape: Shape) -> [Option<Self>; 2] {
        let lower = byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let in_a_name = lower || matches!(byte, b'.' | b'-' | b'_');
        let next = match self {
            // What follows may be a port, or a tag when this was a short name all along.
            Self::First if byte == b':' => {
                return [Some(Self::Port), (shape == Shape::Tag).then_some(Self::Tag)];
            }
            Self::First | Self::Path | Self::Port if byte == b'/' => Some(Self::Component),
            Self::First | Self::Path if byte == b'@' => (shape == Shape::Digest).then_some(Self::Digest(0)),
            Self::Path if byte == b':' => (shape == Shape::Tag).then_some(Self::Tag),
            Self::First | Self::Path => in_a_name.then_some(self),
            Self::Port => byte.is_ascii_digit().then_some(self),
            Self::Component => lower.then_some(Self::Path),
            Self::Tag => (in_a_name || byte.is_ascii_uppercase()).then_some(self),
            Self::Digest(read) => {
                let fits = match ALGORITHM.as_bytes().get(read) {
                    Some(expected) => byte == *expected,
                    None => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
                };
                (fits && read < ALGORITHM.len() + DIGEST_DIGITS).then_some(Self::Digest(read + 1))
            }
        };
        [next, None]
    }

    fn is_end(self, shape: Shape) -> bool {
        match self {
            Self::First | Self::Path | Self::Tag => shape == Shape::Tag,
            Self::Port | Self::Component => false,
            Self::Digest(read) => read == ALGORITHM.len() + DIGEST_DIGITS,
        }
    }
}

const ALGORITHM: &str = "sha256:";
const DIGEST_DIGITS: usize = 64;
/// Every character that a glob or a name may have, but for letters that behave like others.
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:/.@";

impl Glob {
    /// Whether there is a name of that shape that it matches.
    pub(super) fn can_match(&self, shape: Shape) -> bool {
        let parts = self.parts();
        let mut seen: HashSet<(At, usize)> = HashSet::new();
        let mut open: Vec<(At, usize)> = places(parts, 0).into_iter().map(|place| (At::First, place)).collect();
        while let Some((at, place)) = open.pop() {
            if !seen.insert((at, place)) {
                continue;
            }
            if place == parts.len() && at.is_end(shape) {
                return true;
            }
            let Some(part) = parts.get(place) else { continue };
            for byte in ALPHABET {
                let then = match part {
                    Part::Char(expected) if expected == byte => place + 1,
                    Part::Segment | Part::Anything if part.repeats(*byte) => place,
                    Part::Char(_) | Part::Segment | Part::Anything => continue,
                };
                for at in at.after(*byte, shape).into_iter().flatten() {
                    open.extend(places(parts, then).into_iter().map(|place| (at, place)));
                }
            }
        }
        false
    }
}

/// A place, and those that are reached from it without a character.
fn places(parts: &[Part], from: usize) -> Vec<usize> {
    let mut marks = vec![false; parts.len() + 1];
    reach(parts, &mut marks, from);
    marks.iter().enumerate().filter(|(_, marked)| **marked).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::document::Origin;
    use super::*;

    fn can_match(text: &str) -> (bool, bool) {
        let glob = Glob::new(text, Origin { file: "f".to_owned(), line: 1 }).unwrap();
        (glob.can_match(Shape::Tag), glob.can_match(Shape::Digest))
    }

    #[test]
    fn what_a_glob_can_match_is_known_without_any_image() {
        for (text, expected) in [
            ("**", (true, true)),
            ("ghcr.io/a/b", (true, false)),
            ("ghcr.io/a/b:*", (true, false)),
            ("ghcr.io/a/b*", (true, true)),
            ("ghcr.io/a/**", (true, true)),
            ("ghcr.io:5000/a/*", (true, true)),
            ("ghcr.io/a/*:*", (true, true)),
            ("ghcr.io/a/b@sha256:*", (false, true)),
            ("ghcr.io/a/b@*", (false, true)),
            ("ghcr.io/a/b@sha512:*", (false, false)),
            ("ghcr.io/A/*", (false, false)),
            ("https://ghcr.io/a", (false, false)),
            ("ghcr.io/a:1:2", (false, false)),
            ("ghcr.io/a:1@sha256:*", (false, false)),
            ("alpine", (true, false)),
            ("*", (true, true)),
        ] {
            assert_eq!(can_match(text), expected, "{text}");
        }
        let digest = "5504f2a95018e3d8a52d80d9e1a128c6ea337581808ff9fe96f5628ce2336350";
        assert_eq!(can_match(&format!("ghcr.io/a@sha256:{digest}")), (false, true));
        assert_eq!(
            can_match(&format!("ghcr.io/a@sha256:{}", digest.trim_start_matches('5'))),
            (false, false),
            "a digit is missing"
        );
    }
}
