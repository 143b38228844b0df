//! Passes the bytes of a blob on while hashing them, and keeps the end until the digest matches.
//!
//! A reader that is cut before the last 64 KiB cannot take wrong bytes for the blob, whatever came before.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits::HOLD_BACK_BYTES;
use crate::oci::{Digest, Hasher};

/// What arrived is not the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    /// More bytes than the blob has.
    #[error("more bytes than the blob has")]
    TooLong,
    /// Fewer bytes than the blob has.
    #[error("fewer bytes than the blob has")]
    Truncated,
    /// Other bytes than the digest says.
    #[error("other bytes than the digest says")]
    Digest,
}

/// Takes in a blob from its first byte to its last and gives out the part `start..=end`, the end of the blob last.
#[derive(Debug)]
pub(super) struct HeldBack {
    digest: Digest,
    size: u64,
    start: u64,
    /// One past the last byte to give out.
    stop: u64,
    hasher: Option<Hasher>,
    seen: u64,
    ready: VecDeque<Bytes>,
    held: VecDeque<Bytes>,
}

impl HeldBack {
    /// For the blob `digest` of `size` bytes, of which `start..=end` shall come out.
    pub(super) fn new(digest: Digest, size: u64, start: u64, end: u64) -> Self {
        Self {
            digest,
            size,
            start,
            stop: end.saturating_add(1).min(size),
            hasher: Some(Hasher::new(digest.algorithm())),
            seen: 0,
            ready: VecDeque::new(),
            held: VecDeque::new(),
        }
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// [`Mismatch::TooLong`] when there are more than the blob has.
    pub(super) fn push(&mut self, bytes: &Bytes) -> Result<(), Mismatch> {
        let from = self.seen;
        let to = from.saturating_add(length(bytes));
        if to > self.size {
            return Err(Mismatch::TooLong);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.seen = to;
        let free = self.size.saturating_sub(HOLD_BACK_BYTES);
        if let Some(part) = part(bytes, from, self.start, self.stop.min(free)) {
            self.ready.push_back(part);
        }
        if let Some(part) = part(bytes, from, self.start.max(free), self.stop) {
            self.held.push_back(part);
        }
        Ok(())
    }

    /// Judges the blob when all was taken in; if it is the right one, the rest may go out.
    ///
    /// # Errors
    /// [`Mismatch::Truncated`] or [`Mismatch::Digest`]; then nothing more comes out.
    pub(super) fn finish(&mut self) -> Result<(), Mismatch> {
        if self.seen < self.size {
            self.held.clear();
            return Err(Mismatch::Truncated);
        }
        if self.hasher.take().map(Hasher::finish) == Some(self.digest) {
            self.ready.append(&mut self.held);
            Ok(())
        } else {
            self.held.clear();
            Err(Mismatch::Digest)
        }
    }

    /// The next bytes that may go out.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Bytes taken in so far.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether every byte was taken in.
    pub(super) const fn is_full(&self) -> bool {
        self.seen == self.size
    }
}

/// The part of `bytes`, which begin at `from`, that lies in `start..stop`.
fn part(bytes: &Bytes, from: u64, start: u64, stop: u64) -> Option<Bytes> {
    let first = usize::try_from(start.saturating_sub(from)).ok()?;
    let last = usize::try_from(stop.saturating_sub(from)).ok()?.min(bytes.len());
    if first < last { Some(bytes.slice(first..last)) } else { None }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blob(size: usize) -> Vec<u8> {
        (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect()
    }

    fn drain(held_back: &mut HeldBack) -> Vec<u8> {
        std::iter::from_fn(|| held_back.pop()).flat_map(|bytes| bytes.to_vec()).collect()
    }

    #[test]
    fn the_last_64_kib_wait_for_the_digest() {
        let content = blob(200_000);
        let mut held_back = HeldBack::new(Digest::sha256(&content), 200_000, 0, 199_999);
        held_back.push(&Bytes::from(content.clone())).unwrap();
        assert_eq!(drain(&mut held_back).len(), 200_000 - 65_536);
        held_back.finish().unwrap();
        assert_eq!(drain(&mut held_back), content[200_000 - 65_536..]);
    }

    #[test]
    fn wrong_short_and_long_bodies_never_give_out_their_end() {
        let content = blob(100_000);
        let start = |digest| HeldBack::new(digest, 100_000, 0, 99_999);
        let mut wrong = start(Digest::sha256(b"other"));
        wrong.push(&Bytes::from(content.clone())).unwrap();
        assert_eq!(wrong.finish(), Err(Mismatch::Digest));
        assert_eq!(drain(&mut wrong).len(), 100_000 - 65_536);
        let mut short = start(Digest::sha256(&content));
        short.push(&Bytes::copy_from_slice(&content[..99_999])).unwrap();
        assert_eq!(short.finish(), Err(Mismatch::Truncated));
        let mut long = start(Digest::sha256(&content));
        long.push(&Bytes::from(content)).unwrap();
        assert_eq!(long.push(&Bytes::from_static(b"x")), Err(Mismatch::TooLong));
    }

    proptest! {
        #[test]
        fn any_range_in_any_pieces_comes_out_whole(
            size in 1_usize..150_000, a in 0_usize..150_000, b in 0_usize..150_000, piece in 1_usize..70_000,
        ) {
            let content = blob(size);
            let (start, end) = (a.min(b).min(size - 1), a.max(b).min(size - 1));
            let as_u64 = |number: usize| u64::try_from(number).unwrap();
            let mut held_back =
                HeldBack::new(Digest::sha256(&content), as_u64(size), as_u64(start), as_u64(end));
            for bytes in content.chunks(piece) {
                held_back.push(&Bytes::copy_from_slice(bytes)).unwrap();
            }
            prop_assert!(held_back.is_full());
            held_back.finish().unwrap();
            prop_assert_eq!(drain(&mut held_back), &content[start..=end]);
        }
    }
}
