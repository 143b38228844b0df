//! Whom a trust root trusts, for what, and from when until when.

use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::TimeRange;

use crate::clock::Timestamp;
use crate::oci::Digest;

/// One authority or log that a trust root names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// What it is trusted for.
    pub role: Role,
    /// Its address, for display; it is never contacted.
    pub name: String,
    /// SHA-256 of its public key, as logs are named; of its root certificate, for an authority.
    pub fingerprint: Digest,
    /// From when it is trusted; `None`: always.
    pub from: Option<Timestamp>,
    /// Until when it is trusted; `None`: without end.
    pub until: Option<Timestamp>,
}

/// Where a time lies in the window of a [`Trusted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// It is not trusted yet.
    NotYet,
    /// It is trusted.
    Current,
    /// It was trusted: what happened until then still counts.
    Ended,
}

impl Window {
    /// The word for it, in output for people and programs.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::NotYet => "not_yet",
            Self::Current => "current",
            Self::Ended => "ended",
        }
    }
}

impl Trusted {
    /// Where `at` lies in its window; both ends belong to it.
    pub fn window(&self, at: Timestamp) -> Window {
        if self.from.is_some_and(|from| at < from) {
            Window::NotYet
        } else if self.until.is_some_and(|until| until < at) {
            Window::Ended
        } else {
            Window::Current
        }
    }

    /// Whether it is trusted for what happens at that time.
    pub fn is_current(&self, at: Timestamp) -> bool {
        self.window(at) == Window::Current
    }
}

/// What somebody is trusted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Issues signing certificates (Fulcio).
    CertificateAuthority,
    /// Logs signatures (Rekor).
    TransparencyLog,
    /// Logs certificates.
    CertificateLog,
    /// Signs timestamps (RFC 3161).
    TimestampAuthority,
}

impl Role {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] =
        [Self::CertificateAuthority, Self::TransparencyLog, Self::CertificateLog, Self::TimestampAuthority];

    /// The word for it, in log lines and on the command line.
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::CertificateAuthority => "certificate_authority",
            Self::TransparencyLog => "transparency_log",
            Self::CertificateLog => "certificate_log",
            Self::TimestampAuthority => "timestamp_authority",
        }
    }
}

/// Everybody that the document trusts, by role, in the order of the document.
pub(super) fn of(root: &TrustedRoot) -> Vec<Trusted> {
    let entry = |role, name: &str, material: &[u8], window: Option<TimeRange>| Trusted {
        role,
        name: name.to_owned(),
        fingerprint: Digest::sha256(material),
        from: window.map(|window| millis(window.start)),
        until: window.and_then(|window| window.end).map(millis),
    };
    let authorities = root.certificate_authorities.iter().map(|ca| {
        let root = ca.cert_chain.certificates.last().map_or(&[][..], |certificate| certificate.raw_bytes.as_bytes());
        entry(Role::CertificateAuthority, &ca.uri, root, ca.valid_for)
    });
    let logs = root.tlogs.iter().map(|log| {
        entry(Role::TransparencyLog, &log.base_url, log.public_key.raw_bytes.as_bytes(), log.public_key.valid_for)
    });
    let ct_logs = root.ctlogs.iter().map(|log| {
        entry(Role::CertificateLog, &log.base_url, log.public_key.raw_bytes.as_bytes(), log.public_key.valid_for)
    });
    let timestamps = root.timestamp_authorities.iter().map(|tsa| {
        let root = tsa.cert_chain.certificates.last().map_or(&[][..], |certificate| certificate.raw_bytes.as_bytes());
        entry(Role::TimestampAuthority, tsa.uri.as_deref().unwrap_or("(no address)"), root, tsa.valid_for)
    });
    authorities.chain(logs).chain(ct_logs).chain(timestamps).collect()
}

fn millis(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from_unix_millis(time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_belong_to_a_window_and_an_open_one_has_none() {
        let at = Timestamp::from_unix_seconds;
        let trusted = |from: Option<i64>, until: Option<i64>| Trusted {
            role: Role::TransparencyLog,
            name: String::new(),
            fingerprint: Digest::sha256(b""),
            from: from.map(at),
            until: until.map(at),
        };
        let closed = trusted(Some(10), Some(20));
        let windows = [9, 10, 20, 21].map(|second| closed.window(at(second)));
        assert_eq!(windows, [Window::NotYet, Window::Current, Window::Current, Window::Ended]);
        for open in [Timestamp::MIN, Timestamp::MAX] {
            assert!(trusted(None, None).is_current(open));
        }
        assert!(trusted(Some(10), None).is_current(Timestamp::MAX));
        assert!(trusted(None, Some(20)).is_current(Timestamp::MIN));
    }
}
