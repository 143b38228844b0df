//! What a remembered tag is good for, by its age and by the rules of its upstream. Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::limits::{GLOB_BYTES_MAX, TIME_STEP_BACK};
use crate::oci::{RepositoryName, Tag};

/// How long what an upstream said about its tags counts (design §3, `[[upstream]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRules {
    /// Of tags that no pattern fits.
    pub life: TagLife,
    /// The first that fits counts.
    pub patterns: Arc<[(TagPattern, TagLife)]>,
    /// How long after its life a tag may stand in for an upstream that is down.
    pub stale_if_error: Duration,
    /// What becomes of a tag that upstream no longer has.
    pub on_upstream_404: Withdrawn,
}

/// The life of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagLife {
    /// Until then it is the answer, and upstream is not asked.
    pub ttl: TagTtl,
    /// How long after that it is the answer still, while upstream is asked in the background.
    pub stale_while_revalidate: Duration,
}

/// How long upstream is not asked about a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagTtl {
    /// So long.
    For(Duration),
    /// As long as the tag is remembered.
    Immutable,
}

/// What becomes of a tag that upstream no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// It is no longer there for our clients either.
    Deny,
    /// It is served as if upstream were down.
    ServeStale,
}

/// Which tags: `REPOSITORY:TAG` without the host, in which `*` is any run of characters and `?` any one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPattern(String);

/// A text is no such pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not REPOSITORY:TAG of a-z A-Z 0-9 . _ - / * ? with one colon, at most {GLOB_BYTES_MAX} bytes, such as \"team/*:v*.*.*\""
)]
pub struct TagPatternError;

impl FromStr for TagPattern {
    type Err = TagPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/*?".contains(&byte);
        let (repository, tag) = text.split_once(':').ok_or(TagPatternError)?;
        let parts_are_good = [repository, tag].iter().all(|part| !part.is_empty() && part.bytes().all(known));
        if parts_are_good && text.len() <= GLOB_BYTES_MAX { Ok(Self(text.to_owned())) } else { Err(TagPatternError) }
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TagPattern {
    fn fits(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        match self.0.split_once(':') {
            Some((name, tag_pattern)) => {
                matches(name.as_bytes(), repository.as_str().as_bytes())
                    && matches(tag_pattern.as_bytes(), tag.as_str().as_bytes())
            }
            None => false,
        }
    }
}

/// Whether the whole text fits. After a mismatch the last star takes in one byte more, so that the time is bounded by the
/// product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut last_star = None;
    while let Some(byte) = text.get(read) {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                last_star = Some((at, read));
                continue;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                (at, read) = (at + 1, read + 1);
                continue;
            }
            Some(_) | None => {}
        }
        let Some((after_star, taken)) = last_star else { return false };
        last_star = Some((after_star, taken + 1));
        (at, read) = (after_star, taken + 1);
    }
    pattern.get(at..).is_none_or(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// What a remembered tag is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It is the answer.
    Fresh,
    /// It is the answer, and upstream is asked in the background.
    Meanwhile,
    /// Upstream is asked; while it is down or slow the pointer is the answer.
    Stale,
    /// Upstream is asked, and only its answer counts.
    Useless,
}

impl TagRules {
    /// The same life for all tags, and nothing of a tag that upstream no longer has.
    pub fn of(tag_ttl: Duration, stale_if_error: Duration) -> Self {
        let life = TagLife { ttl: TagTtl::For(tag_ttl), stale_while_revalidate: Duration::ZERO };
        Self { life, patterns: Arc::default(), stale_if_error, on_upstream_404: Withdrawn::Deny }
    }

    pub(super) fn freshness(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        checked: Timestamp,
        now: Timestamp,
    ) -> Freshness {
        let fitting = self.patterns.iter().find(|(pattern, _)| pattern.fits(repository, tag));
        let life = fitting.map_or(self.life, |(_, life)| *life);
        self.by_age(life, checked, now)
    }

    /// Decides by age. A pointer from the future (the clock stepped back) is checked again, and good enough meanwhile; from
    /// further ahead than a clock that is corrected, it says nothing about its age.
    fn by_age(&self, life: TagLife, checked: Timestamp, now: Timestamp) -> Freshness {
        if checked == WITHDRAWN || checked.since(now) > TIME_STEP_BACK {
            return Freshness::Useless;
        }
        let TagTtl::For(ttl) = life.ttl else { return Freshness::Fresh };
        let age = now.since(checked);
        let meanwhile = ttl.saturating_add(life.stale_while_revalidate);
        if checked <= now && age < ttl {
            Freshness::Fresh
        } else if checked <= now && age < meanwhile {
            Freshness::Meanwhile
        } else if age < ttl.saturating_add(self.stale_if_error) {
            Freshness::Stale
        } else {
            Freshness::Useless
        }
    }
}

/// When a tag was checked that upstream said "no" to since: nothing older may stand in for it.
pub(super) const WITHDRAWN: Timestamp = Timestamp::MIN;

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_mins(1);
    const STALE: Duration = Duration::from_hours(1);

    fn rules(ttl: TagTtl, while_revalidate: Duration, if_error: Duration) -> TagRules {
        TagRules {
            life: TagLife { ttl, stale_while_revalidate: while_revalidate },
            patterns: Arc::default(),
            stale_if_error: if_error,
            on_upstream_404: Withdrawn::Deny,
        }
    }

    fn of(rules: &TagRules, checked: Timestamp, now: Timestamp) -> Freshness {
        rules.freshness(&"team/app".parse().unwrap(), &"1".parse().unwrap(), checked, now)
    }

    fn at(rules: &TagRules, seconds: i64) -> Freshness {
        of(rules, Timestamp::from_unix_seconds(0), Timestamp::from_unix_seconds(seconds))
    }

    #[test]
    fn a_pointer_ages_from_fresh_over_stale_to_useless() {
        let rules = rules(TagTtl::For(TTL), Duration::ZERO, STALE);
        assert_eq!([0, 59].map(|age| at(&rules, age)), [Freshness::Fresh; 2]);
        assert_eq!([60, 3659].map(|age| at(&rules, age)), [Freshness::Stale; 2]);
        assert_eq!(at(&rules, 3660), Freshness::Useless);
    }

    #[test]
    fn in_between_it_may_be_the_answer_while_upstream_is_asked() {
        let rules = rules(TagTtl::For(TTL), Duration::from_secs(30), STALE);
        assert_eq!([59, 60, 89, 90].map(|age| at(&rules, age)), {
            [Freshness::Fresh, Freshness::Meanwhile, Freshness::Meanwhile, Freshness::Stale]
        });
        // The longer of both bounds holds.
        let rules = self::rules(TagTtl::For(TTL), Duration::from_secs(30), Duration::ZERO);
        assert_eq!([89, 90].map(|age| at(&rules, age)), [Freshness::Meanwhile, Freshness::Useless]);
    }

    #[test]
    fn a_pointer_from_the_future_is_checked_again_and_from_far_ahead_says_nothing() {
        let step = i64::try_from(TIME_STEP_BACK.as_secs()).unwrap();
        let far = rules(TagTtl::For(TTL), STALE, STALE);
        assert_eq!([-1, -step].map(|age| at(&far, age)), [Freshness::Stale; 2]);
        assert_eq!(at(&far, -step - 1), Freshness::Useless);
        let now = Timestamp::from_unix_seconds(1_000);
        assert_eq!(of(&rules(TagTtl::For(Duration::ZERO), Duration::ZERO, STALE), now, now), Freshness::Stale);
        let strict = rules(TagTtl::For(Duration::ZERO), Duration::ZERO, Duration::ZERO);
        assert_eq!(of(&strict, now, now), Freshness::Useless);
    }

    #[test]
    fn an_immutable_tag_never_ages_and_a_withdrawn_one_is_good_for_nothing() {
        let rules = rules(TagTtl::Immutable, Duration::ZERO, Duration::ZERO);
        assert_eq!([0, i64::MAX / 1000].map(|age| at(&rules, age)), [Freshness::Fresh; 2]);
        assert_eq!(of(&rules, WITHDRAWN, Timestamp::from_unix_seconds(1)), Freshness::Useless);
    }

    #[test]
    fn the_first_pattern_that_fits_counts() {
        let life = |seconds| TagLife {
            ttl: TagTtl::For(Duration::from_secs(seconds)),
            stale_while_revalidate: Duration::ZERO,
        };
        let patterns = [("team/*:v*.*.*", 1000), ("*:v*", 200), ("team/app:?", 300)];
        let rules = TagRules {
            life: life(60),
            patterns: patterns.map(|(text, seconds)| (text.parse().unwrap(), life(seconds))).into(),
            ..rules(TagTtl::Immutable, Duration::ZERO, Duration::ZERO)
        };
        let lives = |repository: &str, tag: &str| {
            let (repository, tag) = (repository.parse().unwrap(), tag.parse().unwrap());
            let fresh = |age| {
                let (checked, now) = (Timestamp::from_unix_seconds(0), Timestamp::from_unix_seconds(age));
                rules.freshness(&repository, &tag, checked, now) == Freshness::Fresh
            };
            (1..2000).find(|age| !fresh(*age)).unwrap()
        };
        assert_eq!(lives("team/app", "v1.2.3"), 1000);
        assert_eq!(lives("team/a/b", "v1.2.3-rc.1"), 1000);
        assert_eq!(lives("other/app", "v1.2.3"), 200);
        assert_eq!(lives("team/app", "v1"), 200);
        assert_eq!(lives("team/app", "7"), 300);
        assert_eq!(lives("team/app", "77"), 60);
        assert_eq!(lives("team/app", "latest"), 60);
    }

    #[test]
    fn a_pattern_is_repository_and_tag_and_bounded() {
        for bad in ["", ":", "a", "a:", ":b", "a:b:c", "a b:c", "a:[0-9]", "a:b@c", "docker.io:5000/a:b", "ä:b"] {
            assert!(bad.parse::<TagPattern>().is_err(), "{bad:?}");
        }
        let long = |length: usize| format!("{}:b", "a".repeat(length - 2)).parse::<TagPattern>();
        assert!(long(GLOB_BYTES_MAX).is_ok() && long(GLOB_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn stars_are_matched_in_bounded_time() {
        let rows = [
            ("*", "", true),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("**", "x", true),
            ("?", "", false),
            ("a", "ab", false),
            ("ab", "a", false),
            ("*aab", "aaaab", true),
        ];
        for (pattern, text, expected) in rows {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        let (hostile, text) = ("*a".repeat(GLOB_BYTES_MAX / 2), "a".repeat(10_000));
        assert!(!matches(format!("{hostile}b").as_bytes(), text.as_bytes()));
    }
}
