//! How a refusal looks, so that a human sees why and the client does not go round us (design §5). Pure.
//!
//! Clients print the reason phrase of a HEAD and the JSON of a GET, and on nearly every status go on to the unverified upstream in
//! silence. Two answers stop them, each keyed on `User-Agent`; they are the second line of defence, client configuration is the first.

use http::{Method, StatusCode};

use crate::limits::REFUSAL_LINE_BYTES_MAX;
use crate::store::VerdictId;

/// Whether clients that can be stopped are stopped (design §3, `refusal.hard_stop`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HardStop {
    /// By `User-Agent`.
    #[default]
    Auto,
    /// Every client gets the status that fits.
    Off,
}

/// Which client asks, as far as refusing differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// dockerd with its own image store.
    Docker,
    /// containerd's resolver: containerd itself, `BuildKit`, and dockerd with containerd's image store.
    Containerd,
    /// Everybody else.
    Other,
}

impl Client {
    /// Reads a `User-Agent`.
    pub(super) fn of(user_agent: &str) -> Self {
        if user_agent.contains("containerd-client/") {
            Self::Containerd
        } else if user_agent.starts_with("docker/") {
            Self::Docker
        } else if user_agent.starts_with("containerd/") || user_agent.starts_with("buildkit/") {
            Self::Containerd
        } else {
            Self::Other
        }
    }
}

/// What stops a client from asking somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// dockerd reads the error's text for ESRCH, and then does not go on: 503, and the line ends in `[no such process]`.
    Esrch,
    /// containerd's resolver goes on after 4xx and 5xx, but not after a redirect that leads nowhere: 300 on HEAD, 403 on GET.
    Redirect,
    /// Nothing does; the status is the one that fits.
    None,
}

impl Stop {
    /// The stop for that client.
    pub(super) fn of(hard_stop: HardStop, client: Client) -> Self {
        match (hard_stop, client) {
            (HardStop::Auto, Client::Docker) => Self::Esrch,
            (HardStop::Auto, Client::Containerd) => Self::Redirect,
            (HardStop::Auto, Client::Other) | (HardStop::Off, _) => Self::None,
        }
    }

    /// The status of a failure on a manifest route, where `fitting` is the one that says it best.
    pub(super) fn status(self, method: &Method, fitting: StatusCode) -> StatusCode {
        match self {
            Self::Esrch => StatusCode::SERVICE_UNAVAILABLE,
            Self::Redirect if method == Method::HEAD => StatusCode::MULTIPLE_CHOICES,
            Self::Redirect => StatusCode::FORBIDDEN,
            Self::None => fitting,
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Self::Esrch => " [no such process]",
            Self::Redirect | Self::None => "",
        }
    }
}

/// How the line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Policy says no.
    Rejected,
    /// No answer could be reached.
    Undecided,
    /// The request itself, or something that no policy is about.
    Plain,
}

impl Opening {
    fn text(self) -> &'static str {
        match self {
            Self::Rejected => "SignatureValidationFailed: Source image rejected: ",
            Self::Undecided => "sealgate cannot decide: ",
            Self::Plain => "",
        }
    }
}

/// The one line of a refusal: printable ASCII, at most [`REFUSAL_LINE_BYTES_MAX`] bytes, the reason cut before anything else is.
pub(super) fn line(opening: Opening, reason: &str, verdict: Option<VerdictId>, stop: Stop) -> String {
    let (opening, ending) = (opening.text(), stop.ending());
    let reason = printable(reason);
    let room = REFUSAL_LINE_BYTES_MAX.saturating_sub(opening.len() + ending.len());
    let id = verdict.map(|verdict| format!(" (verdict {verdict})")).unwrap_or_default();
    if reason.len() + id.len() <= room {
        return format!("{opening}{reason}{id}{ending}");
    }
    let reason = if reason.len() <= room { reason } else { cut(&reason, room) };
    format!("{opening}{reason}{ending}")
}

/// Foreign text as printable ASCII on one line: identities and upstream names come from outside.
fn printable(text: &str) -> String {
    text.trim().chars().map(|char| if matches!(char, ' '..='~') { char } else { '?' }).collect()
}

fn cut(ascii: &str, room: usize) -> String {
    const MARK: &str = "...";
    let kept: String = ascii.chars().take(room.saturating_sub(MARK.len())).collect();
    kept + MARK
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: VerdictId = VerdictId([0xab; 8]);

    #[test]
    fn clients_are_told_apart_by_their_user_agent() {
        let rows = [
            ("docker/20.10.24+dfsg1 go/go1.19.8 UpstreamClient(Docker-Client/28.2.2 \\(linux\\))", Client::Docker),
            ("docker/29.0.0 go/go1.25 containerd-client/2.2.0 storage-driver/overlayfs", Client::Containerd),
            ("containerd/1.6.20~ds1", Client::Containerd),
            ("containerd/v2.1.4-k3s1", Client::Containerd),
            ("buildkit/v0.32", Client::Containerd),
            ("containers/5.23.1 (github.com/containers/image)", Client::Other),
            ("skopeo/1.9.3", Client::Other),
            ("cri-o/1.36.3 go/go1.25", Client::Other),
            ("Docker-Client/28.2.2 (linux)", Client::Other),
            ("x docker/1", Client::Other),
            ("", Client::Other),
        ];
        for (user_agent, client) in rows {
            assert_eq!(Client::of(user_agent), client, "{user_agent}");
        }
    }

    #[test]
    fn the_status_is_the_one_that_stops_the_client() {
        let status =
            |hard_stop, client, method| Stop::of(hard_stop, client).status(&method, StatusCode::BAD_GATEWAY).as_u16();
        assert_eq!(status(HardStop::Auto, Client::Docker, Method::HEAD), 503);
        assert_eq!(status(HardStop::Auto, Client::Docker, Method::GET), 503);
        assert_eq!(status(HardStop::Auto, Client::Containerd, Method::HEAD), 300);
        assert_eq!(status(HardStop::Auto, Client::Containerd, Method::GET), 403);
        assert_eq!(status(HardStop::Auto, Client::Other, Method::GET), 502);
        for client in [Client::Docker, Client::Containerd, Client::Other] {
            assert_eq!(status(HardStop::Off, client, Method::HEAD), 502);
        }
    }

    #[test]
    fn a_short_line_has_the_verdict_and_ends_in_the_stop() {
        let text = "A signature was required, but no signature exists";
        assert_eq!(
            line(Opening::Rejected, text, Some(ID), Stop::Esrch),
            "SignatureValidationFailed: Source image rejected: A signature was required, but no signature exists \
             (verdict abababababababab) [no such process]"
        );
        assert_eq!(line(Opening::Undecided, "x", None, Stop::None), "sealgate cannot decide: x");
    }

    #[test]
    fn the_verdict_gives_way_before_the_reason_and_the_reason_before_the_stop() {
        let room = REFUSAL_LINE_BYTES_MAX - Opening::Rejected.text().len() - Stop::Esrch.ending().len();
        let id = " (verdict abababababababab)".len();
        let of = |length: usize| line(Opening::Rejected, &"r".repeat(length), Some(ID), Stop::Esrch);
        assert!(of(room - id).contains("(verdict ") && of(room - id).len() == REFUSAL_LINE_BYTES_MAX);
        assert!(!of(room - id + 1).contains("verdict "));
        assert!(of(room).contains(&"r".repeat(room)));
        let long = of(room + 1);
        assert!(long.len() == REFUSAL_LINE_BYTES_MAX && long.ends_with("r... [no such process]"), "{long}");
    }

    proptest! {
        #[test]
        fn any_reason_gives_one_bounded_ascii_line(reason in "\\PC{0,400}|[\\x00-\\xff]{0,400}") {
            for opening in [Opening::Rejected, Opening::Undecided, Opening::Plain] {
                for stop in [Stop::Esrch, Stop::Redirect, Stop::None] {
                    let line = line(opening, &reason, Some(ID), stop);
                    prop_assert!(line.len() <= REFUSAL_LINE_BYTES_MAX);
                    prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                    prop_assert!(line.starts_with(opening.text()) && line.ends_with(stop.ending()));
                    prop_assert!(hyper::ext::ReasonPhrase::try_from(line).is_ok());
                }
            }
        }
    }
}
