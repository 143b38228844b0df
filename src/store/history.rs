//! The verdicts that can be listed: the newest ones, expired ones too. Pure.
//!
//! Allows and denials have a half of the room each, so that a busy mirror's allows do not push out what was refused.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{StoredVerdict, VerdictFilter, VerdictId};
use crate::clock::Timestamp;
use crate::limits::{VERDICT_HISTORY_MAX, VERDICTS_PAGE_MAX};
use crate::oci::{Digest, Repository};
use crate::policy::Decision;

/// The newest verdicts.
#[derive(Debug, Default)]
pub(super) struct History {
    by_id: HashMap<VerdictId, Arc<StoredVerdict>>,
    allows: BTreeSet<(Timestamp, VerdictId)>,
    denials: BTreeSet<(Timestamp, VerdictId)>,
    /// How many of them point at an evidence file.
    evidence: HashMap<Digest, usize>,
}

impl History {
    /// Enters a verdict unless a newer one of its key is there; the evidence that nobody points at any more.
    pub(super) fn insert(&mut self, verdict: Arc<StoredVerdict>) -> Vec<Digest> {
        let id = verdict.key.id();
        if self.by_id.get(&id).is_some_and(|known| known.issued > verdict.issued) {
            return Vec::new();
        }
        if let Some(digest) = verdict.evidence {
            *self.evidence.entry(digest).or_default() += 1;
        }
        let mut orphans: Vec<Digest> = self.remove(id).1.into_iter().collect();
        let times = self.times(verdict.decision);
        times.insert((verdict.issued, id));
        let oldest = if times.len() > VERDICT_HISTORY_MAX / 2 { times.first().map(|(_, id)| *id) } else { None };
        self.by_id.insert(id, verdict);
        if let Some(oldest) = oldest {
            orphans.extend(self.remove(oldest).1);
        }
        orphans
    }

    /// Strikes a verdict out; the verdict, and its evidence if nobody points at it any more.
    pub(super) fn remove(&mut self, id: VerdictId) -> (Option<Arc<StoredVerdict>>, Option<Digest>) {
        let Some(verdict) = self.by_id.remove(&id) else { return (None, None) };
        self.times(verdict.decision).remove(&(verdict.issued, id));
        let orphan = verdict.evidence.filter(|digest| {
            let pointers = self.evidence.get(digest).copied().unwrap_or(0).saturating_sub(1);
            match pointers {
                0 => self.evidence.remove(digest),
                _ => self.evidence.insert(*digest, pointers),
            };
            pointers == 0
        });
        (Some(verdict), orphan)
    }

    pub(super) fn find(&self, id: VerdictId) -> Option<Arc<StoredVerdict>> {
        self.by_id.get(&id).cloned()
    }

    /// The evidence that they point at.
    pub(super) fn evidence(&self) -> impl Iterator<Item = Digest> {
        self.evidence.keys().copied()
    }

    /// Those that the filter wants, newest first. After one that is not listed (any more) there is nothing.
    pub(super) fn list(&self, filter: &VerdictFilter) -> Vec<Arc<StoredVerdict>> {
        let before = match &filter.after {
            Some(id) => match self.by_id.get(id) {
                Some(verdict) => Some((verdict.issued, *id)),
                None => return Vec::new(),
            },
            None => None,
        };
        let limit = filter.limit.unwrap_or(VERDICTS_PAGE_MAX).min(VERDICTS_PAGE_MAX);
        let (allows, denials) = match filter.decision {
            Some(Decision::Allow) => (Some(&self.allows), None),
            Some(Decision::Deny) => (None, Some(&self.denials)),
            None => (Some(&self.allows), Some(&self.denials)),
        };
        newest_first(allows, denials)
            .filter(|place| before.is_none_or(|before| *place < before))
            .filter_map(|(_, id)| self.by_id.get(&id))
            .filter(|verdict| {
                filter.repository.as_deref().is_none_or(|wanted| is_named(&verdict.key.image.repository, wanted))
            })
            .take(limit)
            .cloned()
            .collect()
    }

    fn times(&mut self, decision: Decision) -> &mut BTreeSet<(Timestamp, VerdictId)> {
        match decision {
            Decision::Allow => &mut self.allows,
            Decision::Deny => &mut self.denials,
        }
    }
}

type Places<'a> = Option<&'a BTreeSet<(Timestamp, VerdictId)>>;

/// Merges two sorted sets, from their ends.
fn newest_first<'a>(one: Places<'a>, other: Places<'a>) -> impl Iterator<Item = (Timestamp, VerdictId)> + 'a {
    let mut one = one.into_iter().flat_map(|set| set.iter().rev().copied()).peekable();
    let mut other = other.into_iter().flat_map(|set| set.iter().rev().copied()).peekable();
    std::iter::from_fn(move || if one.peek() >= other.peek() { one.next() } else { other.next() })
}

fn is_named(repository: &Repository, name: &str) -> bool {
    name.strip_prefix(repository.host().as_str()).and_then(|rest| rest.strip_prefix('/'))
        == Some(repository.name().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::verdict;

    fn ids(verdicts: &[Arc<StoredVerdict>]) -> Vec<VerdictId> {
        verdicts.iter().map(|verdict| verdict.key.id()).collect()
    }

    fn history(verdicts: &[StoredVerdict]) -> History {
        let mut history = History::default();
        for verdict in verdicts {
            history.insert(Arc::new(verdict.clone()));
        }
        history
    }

    #[test]
    fn the_newest_comes_first_whatever_was_decided() {
        let [one, two, three] = [
            verdict("quay.io/a/b:1", Decision::Allow, 1),
            verdict("quay.io/a/b:2", Decision::Deny, 2),
            verdict("quay.io/c/d:1", Decision::Allow, 3),
        ];
        let [id_one, id_two, id_three] = [&one, &two, &three].map(|verdict| verdict.key.id());
        let history = history(&[two, three, one]);
        assert_eq!(ids(&history.list(&VerdictFilter::default())), [id_three, id_two, id_one]);
        let denied = VerdictFilter { decision: Some(Decision::Deny), ..VerdictFilter::default() };
        assert_eq!(ids(&history.list(&denied)), [id_two]);
        let repository = VerdictFilter { repository: Some("quay.io/a/b".to_owned()), ..VerdictFilter::default() };
        assert_eq!(ids(&history.list(&repository)), [id_two, id_one]);
        let page = VerdictFilter { limit: Some(1), after: Some(id_three), ..VerdictFilter::default() };
        assert_eq!(ids(&history.list(&page)), [id_two]);
        let unknown = VerdictFilter { after: Some(VerdictId([0; 8])), ..VerdictFilter::default() };
        assert!(history.list(&unknown).is_empty());
    }

    #[test]
    fn a_verdict_reached_again_is_listed_once() {
        let old = verdict("quay.io/a/b:1", Decision::Deny, 1);
        let new = verdict("quay.io/a/b:1", Decision::Allow, 2);
        for order in [[&old, &new], [&new, &old]] {
            let history = history(&order.map(StoredVerdict::clone));
            assert_eq!(*history.list(&VerdictFilter::default()), [Arc::new(new.clone())]);
        }
    }

    #[test]
    fn many_allows_do_not_push_out_a_denial() {
        let denial = verdict("quay.io/a/b:denied", Decision::Deny, 0);
        let mut history = history(std::slice::from_ref(&denial));
        let half = VERDICT_HISTORY_MAX / 2;
        for time in 0..=half {
            history.insert(Arc::new(verdict(
                &format!("quay.io/a/b:{time}"),
                Decision::Allow,
                i64::try_from(time).unwrap(),
            )));
        }
        assert_eq!((history.allows.len(), history.by_id.len()), (half, half + 1));
        assert!(history.find(denial.key.id()).is_some());
        assert!(history.find(verdict("quay.io/a/b:0", Decision::Allow, 0).key.id()).is_none());
    }

    #[test]
    fn evidence_is_orphaned_when_its_last_verdict_goes() {
        let evidence = Digest::sha256(b"evidence");
        let with = |image: &str| StoredVerdict { evidence: Some(evidence), ..verdict(image, Decision::Deny, 1) };
        let mut history = history(&[with("quay.io/a/b:1"), with("quay.io/a/b:2")]);
        assert!(history.insert(Arc::new(with("quay.io/a/b:1"))).is_empty());
        assert!(history.insert(Arc::new(verdict("quay.io/a/b:1", Decision::Deny, 2))).is_empty());
        assert_eq!(history.evidence().collect::<Vec<_>>(), [evidence]);
        assert_eq!(history.remove(with("quay.io/a/b:2").key.id()).1, Some(evidence));
        assert_eq!(history.evidence().count(), 0);
    }
}
