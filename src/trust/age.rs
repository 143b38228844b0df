//! What should worry whoever relies on a trust root: windows that end, and its age.

use std::time::Duration;

use super::{Role, TrustRoot, TrustSource, Window};
use crate::clock::Timestamp;
use crate::limits::{TRUST_ROOT_AGE_WARNED, TRUST_WINDOW_WARNED};

impl TrustRoot {
    /// What is wrong with it, or soon will be, one sentence each. Signatures from a time inside a window still count after
    /// the window has ended, so an ended one alone is no fault; a role for which nobody is left is one.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut warnings: Vec<String> =
            Role::ALL.into_iter().filter_map(|role| self.window_warning(role, now)).collect();
        warnings.extend(self.expiry_warning(now));
        warnings.extend(self.age_warning(now));
        warnings
    }

    /// When the last of that role ends; `None`: there is one without end, or none at all.
    pub fn ends(&self, role: Role) -> Option<Timestamp> {
        let mut ends = self.trusted.iter().filter(|trusted| trusted.role == role).map(|trusted| trusted.until);
        let first = ends.next()??;
        ends.try_fold(first, |last, end| end.map(|end| last.max(end)))
    }

    fn window_warning(&self, role: Role, now: Timestamp) -> Option<String> {
        let (one, what) = (word(role), "new signatures that need one cannot be verified");
        let mut of_role = self.trusted.iter().filter(|trusted| trusted.role == role).peekable();
        of_role.peek()?;
        if of_role.clone().all(|trusted| trusted.window(now) == Window::NotYet) {
            return Some(format!("no {one} is trusted yet: {what}"));
        }
        if self.current(role, now).next().is_none() {
            let end = of_role.filter_map(|trusted| trusted.until).filter(|until| *until < now).max();
            let end = end.map(|end| format!(" since {end}")).unwrap_or_default();
            return Some(format!("no {one} is trusted any more{end}: {what}"));
        }
        let ends = self.ends(role)?;
        let left = ends.since(now);
        (left < TRUST_WINDOW_WARNED).then(|| {
            format!(
                "the last {one} is trusted until {ends} ({} days): a newer trust root is needed by then",
                days(left)
            )
        })
    }

    fn expiry_warning(&self, now: Timestamp) -> Option<String> {
        let expires = self.expires.filter(|expires| *expires < now)?;
        Some(format!(
            "the TUF metadata that vouches for it expired at {expires}: keys that were taken back since are still trusted; \
             run `sealgate trust update`"
        ))
    }

    fn age_warning(&self, now: Timestamp) -> Option<String> {
        let age = now.since(self.as_of?);
        if age < TRUST_ROOT_AGE_WARNED {
            return None;
        }
        let next = match &self.source {
            TrustSource::BuiltIn => {
                "a newer release of sealgate has a newer one; or set trust.tuf.enabled and run `sealgate trust update`"
            }
            TrustSource::File(_) => "look for a newer one where it came from",
            TrustSource::Tuf { .. } => "run `sealgate trust update`",
        };
        Some(format!("it is {} days old, and does not know keys that were added since: {next}", days(age)))
    }
}

/// Whole days.
pub(super) fn days(span: Duration) -> u64 {
    span.as_secs() / (24 * 60 * 60)
}

fn word(role: Role) -> &'static str {
    match role {
        Role::CertificateAuthority => "certificate authority",
        Role::TransparencyLog => "transparency log",
        Role::CertificateLog => "certificate log",
        Role::TimestampAuthority => "timestamp authority",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;
    use crate::trust::Trusted;

    const DAY: i64 = 24 * 60 * 60;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_unix_seconds(day * DAY)
    }

    /// A root of day 0 whose authorities have these windows, in days.
    fn root(windows: &[(i64, Option<i64>)]) -> TrustRoot {
        let trusted = windows.iter().map(|(from, until)| Trusted {
            role: Role::CertificateAuthority,
            name: "https://fulcio.test".to_owned(),
            fingerprint: Digest::sha256(b""),
            from: Some(at(*from)),
            until: until.map(at),
        });
        TrustRoot { as_of: Some(at(0)), trusted: trusted.collect(), ..TrustRoot::built_in().unwrap() }
    }

    #[test]
    fn an_ended_window_is_no_fault_while_somebody_is_left() {
        assert_eq!(root(&[(0, Some(5)), (4, None)]).warnings(at(10)), Vec::<String>::new());
        assert_eq!(root(&[]).warnings(at(10)), Vec::<String>::new(), "a role that is not there is not missed");
    }

    #[test]
    fn a_role_for_which_nobody_is_left_is_warned_of_and_so_is_one_that_ends_soon() {
        let root = root(&[(0, Some(50)), (0, Some(100))]);
        assert_eq!(root.ends(Role::CertificateAuthority), Some(at(100)));
        for (day, warned) in [(1, None), (70, None), (71, Some("until")), (100, Some("until")), (101, Some("any more"))]
        {
            let warnings = root.window_warning(Role::CertificateAuthority, at(day));
            assert_eq!(warnings.is_some(), warned.is_some(), "{day}: {warnings:?}");
            assert!(warnings.unwrap_or_default().contains(warned.unwrap_or_default()), "{day}");
        }
        assert!(self::root(&[(200, None)]).warnings(at(1))[0].contains("yet"));
    }

    #[test]
    fn an_old_root_is_warned_of_from_its_day_on() {
        let root = root(&[(0, None)]);
        let limit = i64::try_from(days(TRUST_ROOT_AGE_WARNED)).unwrap();
        assert_eq!(root.warnings(at(limit - 1)), Vec::<String>::new());
        assert!(root.warnings(at(limit))[0].contains("days old"));
        let unknown = TrustRoot { as_of: None, ..root };
        assert_eq!(unknown.warnings(at(limit)), Vec::<String>::new());
    }
}
