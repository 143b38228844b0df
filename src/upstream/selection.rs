//! Which referrers of a list that may be long are worth a look. Pure.
//!
//! Signers append, and so do spammers, and no registry promises an order: of too many some are taken from both ends and some
//! from anywhere between, other ones at each look, so that nobody can fill all the places that are looked at.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;

use serde_json::Value;

use super::{Interest, SelectedReferrers};
use crate::limits::{CANDIDATES_MAX, REFERRERS_MAX};
use crate::oci::Descriptor;

/// What was selected so far. All entries of all pages pass here, and few are held.
pub(super) struct Selection<'a> {
    interest: &'a (dyn Fn(&Descriptor) -> Interest + Send + Sync),
    known: Vec<Descriptor>,
    first: Sample,
    perhaps: Sample,
    skipped: usize,
    chance: RandomState,
}

impl<'a> Selection<'a> {
    pub(super) fn new(interest: &'a (dyn Fn(&Descriptor) -> Interest + Send + Sync)) -> Self {
        Self {
            interest,
            known: Vec::new(),
            first: Sample::default(),
            perhaps: Sample::default(),
            skipped: 0,
            chance: RandomState::new(),
        }
    }

    pub(super) fn take(&mut self, entry: &Value) {
        let Ok(descriptor) = Descriptor::from_value(entry) else {
            self.skipped = self.skipped.saturating_add(1);
            return;
        };
        let interest = (self.interest)(&descriptor);
        // Annotations are as long as whoever pushed them likes, and nobody asks for them.
        let descriptor = Descriptor { annotations: BTreeMap::new(), ..descriptor };
        match interest {
            Interest::Known if self.known.iter().any(|known| known.digest == descriptor.digest) => {}
            Interest::Known if self.known.len() < KNOWN_MAX => self.known.push(descriptor),
            // No list of good ones is longer; should one be, nothing of it is lost in silence.
            Interest::Known | Interest::First => self.first.push(self.chance.hash_one(descriptor.digest), descriptor),
            Interest::Perhaps => self.perhaps.push(self.chance.hash_one(descriptor.digest), descriptor),
            Interest::None => {}
        }
    }

    pub(super) fn finish(self) -> SelectedReferrers {
        let (first, perhaps) = (self.first, self.perhaps);
        SelectedReferrers {
            more: first.dropped || perhaps.dropped,
            known: self.known,
            first: first.into_list(),
            perhaps: perhaps.into_list(),
            skipped: self.skipped,
            missing: None,
        }
    }
}

/// At most [`PART_MAX`] from the beginning, as many from the end, and twice as many of the lowest ranks from between.
#[derive(Debug, Default)]
struct Sample {
    seen: usize,
    head: Vec<Descriptor>,
    middle: BTreeMap<u64, (usize, Descriptor)>,
    tail: VecDeque<(u64, usize, Descriptor)>,
    dropped: bool,
}

impl Sample {
    fn push(&mut self, rank: u64, descriptor: Descriptor) {
        let place = self.seen;
        self.seen = self.seen.saturating_add(1);
        if self.head.len() < PART_MAX {
            self.head.push(descriptor);
            return;
        }
        self.tail.push_back((rank, place, descriptor));
        if self.tail.len() > PART_MAX
            && let Some((rank, place, descriptor)) = self.tail.pop_front()
        {
            self.middle.insert(rank, (place, descriptor));
            if self.middle.len() > PART_MAX.saturating_mul(2) {
                self.middle.pop_last();
                self.dropped = true;
            }
        }
    }

    /// In upstream's order.
    fn into_list(self) -> Vec<Descriptor> {
        let mut middle: Vec<(usize, Descriptor)> = self.middle.into_values().collect();
        middle.sort_unstable_by_key(|(place, _)| *place);
        let middle = middle.into_iter().map(|(_, descriptor)| descriptor);
        let tail = self.tail.into_iter().map(|(_, _, descriptor)| descriptor);
        self.head.into_iter().chain(middle).chain(tail).collect()
    }
}

/// Two samples of four parts each make up what is kept of one subject.
const PART_MAX: usize = REFERRERS_MAX / 8;
/// As many as one answer can rest on.
const KNOWN_MAX: usize = CANDIDATES_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn entry(number: usize) -> Value {
        let digest = Digest::sha256(number.to_string().as_bytes()).to_string();
        serde_json::json!({ "mediaType": "a/b", "digest": digest, "size": number })
    }

    fn selected(count: usize, interest: fn(&Descriptor) -> Interest) -> SelectedReferrers {
        let mut selection = Selection::new(&interest);
        (0..count).for_each(|number| selection.take(&entry(number)));
        selection.finish()
    }

    fn places(list: &[Descriptor]) -> Vec<usize> {
        list.iter().map(|descriptor| usize::try_from(descriptor.size).unwrap()).collect()
    }

    #[test]
    fn as_many_as_are_kept_are_all_there_in_their_order_and_of_more_it_is_told() {
        let most = REFERRERS_MAX / 2;
        let all = selected(most, |_| Interest::First);
        assert_eq!(places(&all.first), (0..most).collect::<Vec<_>>());
        assert!(!all.more);
        let some = selected(most + 1, |_| Interest::Perhaps);
        assert_eq!(some.perhaps.len(), most);
        assert!(some.more && some.first.is_empty());
    }

    #[test]
    fn both_ends_are_there_and_every_place_between_has_its_chance() {
        let count = 1000;
        let mut times = vec![0_u32; count];
        for _look in 0..400 {
            let list = places(&selected(count, |_| Interest::First).first);
            assert!(list.is_sorted() && list.len() == REFERRERS_MAX / 2);
            for place in list {
                times[place] += 1;
            }
        }
        assert!(times[..PART_MAX].iter().chain(&times[count - PART_MAX..]).all(|times| *times == 400));
        // 64 of 936 at each look: that a place is passed over 400 times happens once in 10^12 runs.
        assert!(times.iter().all(|times| *times > 0), "{times:?}");
    }

    #[test]
    fn what_is_known_comes_through_wherever_it_stands() {
        let known = |descriptor: &Descriptor| match descriptor.size {
            500 => Interest::Known,
            _ => Interest::First,
        };
        assert_eq!(places(&selected(1000, known).known), [500]);
        let most = selected(KNOWN_MAX, |_| Interest::Known);
        assert!(most.known.len() == KNOWN_MAX && most.first.is_empty() && !most.more);
        let more = selected(KNOWN_MAX + 1, |_| Interest::Known);
        assert_eq!((more.known.len(), places(&more.first)), (KNOWN_MAX, vec![KNOWN_MAX]));
    }
}
