use std::collections::BTreeSet;

use http_body_util::BodyExt as _;

use super::*;
use crate::http::refusal::{Client, HardStop};
use crate::oci::{ImageReference, Repository};
use crate::policy::Reason;
use crate::pull::{Denial, Hindrance, PullError, UpstreamError};

const DOCS: &str = include_str!("../../../docs/errors.md");

fn image() -> ImageReference {
    "docker.io/library/alpine:3.20".parse().unwrap()
}

fn denial() -> PullError {
    PullError::Denied(Box::new(Denial {
        image: image(),
        digest: Digest::sha256(b"image"),
        verdict: VerdictId([0xab; 8]),
        policy: Digest::sha256(b"policy"),
        reason: Reason::NoSignature,
        text: "A signature was required, but no signature exists".to_owned(),
    }))
}

fn resting() -> UpstreamError {
    let last = UpstreamError::Connect { upstream: "docker.io".parse().unwrap(), reason: "connect" };
    let retry_after = Duration::from_secs(4);
    UpstreamError::Resting { upstream: "docker.io".parse().unwrap(), retry_after, last: Box::new(last) }
}

fn rate_limited() -> UpstreamError {
    UpstreamError::RateLimited { upstream: "docker.io".parse().unwrap(), retry_after: Duration::from_secs(7) }
}

fn asked(method: &Method, client: Client) -> Asked<'_> {
    Asked { method, manifest: true, stop: Stop::of(HardStop::Auto, client), close: false }
}

/// The answer as it would stand on the wire.
fn shown(error: &ApiError, asked: &Asked<'_>) -> String {
    let response = error.respond(asked);
    let reason = response.extensions().get::<ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
    let reason = reason.map_or_else(|| "-".to_owned(), |reason| String::from_utf8(reason).unwrap());
    let mut text = format!("{} {reason}\n", response.status().as_u16());
    for (name, value) in response.headers() {
        text.push_str(name.as_str());
        text.push_str(": ");
        text.push_str(value.to_str().unwrap());
        text.push('\n');
    }
    let Content::Whole(bytes) = response.into_body() else { panic!("an error has a body") };
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    text + "\n" + &serde_json::to_string_pretty(&json).unwrap()
}

#[test]
fn the_page_about_errors_lists_what_the_code_does() {
    let mut documented = Vec::new();
    for row in DOCS.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 8) {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        assert!(cells[5..8].iter().all(|cell| !cell.is_empty()), "{row}");
        documented.push((cells[1], cells[2].to_owned(), cells[3], cells[4]));
    }
    let coded: Vec<_> = Failure::ALL
        .iter()
        .map(|failure| {
            let stops = if failure.is_refusal() { "yes" } else { "no" };
            (failure.as_label(), failure.status().as_str().to_owned(), failure.code().as_str(), stops)
        })
        .collect();
    assert_eq!(documented, coded);
    let labels: BTreeSet<_> = coded.iter().map(|(label, ..)| label).collect();
    assert_eq!(labels.len(), coded.len(), "one label each");
}

#[test]
fn a_denial_is_refused_by_client() {
    let error = ApiError::from(denial()).about(&Want::Manifest(image()));
    insta::assert_snapshot!("denial_other_get", shown(&error, &asked(&Method::GET, Client::Other)));
    insta::assert_snapshot!("denial_docker_head", shown(&error, &asked(&Method::HEAD, Client::Docker)));
    insta::assert_snapshot!("denial_containerd_head", shown(&error, &asked(&Method::HEAD, Client::Containerd)));
    insta::assert_snapshot!("denial_containerd_get", shown(&error, &asked(&Method::GET, Client::Containerd)));
}

#[test]
fn what_could_not_be_decided_is_no_denial() {
    let reason = "docker.io limits our requests; try again in 7 s".to_owned();
    let error =
        ApiError::from(PullError::Undecided { reason, hindrance: Hindrance::Evidence, cause: Some(rate_limited()) });
    let error = error.about(&Want::Manifest(image()));
    insta::assert_snapshot!("undecided_other_get", shown(&error, &asked(&Method::GET, Client::Other)));
    insta::assert_snapshot!("undecided_docker_get", shown(&error, &asked(&Method::GET, Client::Docker)));
}

#[test]
fn every_failure_of_a_manifest_but_a_true_404_stops_the_client() {
    for failure in Failure::ALL {
        let error = ApiError::new(*failure, "x");
        let docker = error.respond(&asked(&Method::HEAD, Client::Docker));
        let containerd = error.respond(&asked(&Method::HEAD, Client::Containerd));
        if failure.is_refusal() {
            assert_eq!((docker.status().as_u16(), containerd.status().as_u16()), (503, 300), "{failure:?}");
            let reason = docker.extensions().get::<ReasonPhrase>().unwrap().as_bytes();
            assert!(reason.ends_with(b"[no such process]"), "{failure:?}");
        } else {
            assert!(docker.status().is_client_error() && containerd.status() == docker.status(), "{failure:?}");
        }
    }
}

#[test]
fn nothing_refused_names_another_place_or_asks_for_credentials() {
    for failure in Failure::ALL {
        for client in [Client::Docker, Client::Containerd, Client::Other] {
            for method in [Method::HEAD, Method::GET] {
                let response = ApiError::new(*failure, "x").respond(&asked(&method, client));
                for forbidden in ["location", "www-authenticate", "docker-content-digest", "etag"] {
                    assert!(!response.headers().contains_key(forbidden), "{failure:?} has {forbidden}");
                }
                assert_eq!(response.headers()["cache-control"], "no-store");
                assert_ne!(response.status(), 401);
            }
        }
    }
}

#[test]
fn head_and_get_refuse_alike_for_clients_that_cannot_be_stopped() {
    let error = ApiError::from(denial());
    let (head, get) = (asked(&Method::HEAD, Client::Other), asked(&Method::GET, Client::Other));
    assert_eq!(shown(&error, &head), shown(&error, &get));
}

#[test]
fn blobs_get_the_status_that_fits_for_every_client() {
    let error = ApiError::from(PullError::Upstream(rate_limited()));
    let asked = Asked { manifest: false, ..asked(&Method::GET, Client::Docker) };
    let response = error.respond(&asked);
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "7");
}

#[test]
fn an_unknown_blob_looks_the_same_whatever_the_cache_holds() {
    let repository = Repository::new("quay.io".parse().unwrap(), "a/b".parse().unwrap()).unwrap();
    let want = Want::Blob(repository, Digest::sha256(b"x"));
    let asked = Asked { manifest: false, ..asked(&Method::GET, Client::Other) };
    insta::assert_snapshot!("blob_unknown", shown(&ApiError::from(PullError::BlobUnknown).about(&want), &asked));
}

#[test]
fn upstream_errors_keep_their_kind() {
    let upstream: crate::oci::Host = "docker.io".parse().unwrap();
    let rows = [
        (UpstreamError::NotFound { upstream: upstream.clone() }, Failure::RepositoryUnknown),
        (UpstreamError::Refused { upstream: upstream.clone(), status: 401 }, Failure::UpstreamRefused),
        (rate_limited(), Failure::UpstreamLimit),
        (UpstreamError::Timeout { upstream: upstream.clone() }, Failure::UpstreamTimeout),
        (resting(), Failure::UpstreamFailed),
        (UpstreamError::Failed { upstream: upstream.clone(), status: 504, retry_after: None }, Failure::UpstreamFailed),
        (UpstreamError::Connect { upstream: upstream.clone(), reason: "tls" }, Failure::UpstreamFailed),
        (UpstreamError::Bad { upstream: upstream.clone(), reason: "digest_mismatch" }, Failure::BadBytes),
        (UpstreamError::Bad { upstream, reason: "redirect_blocked" }, Failure::UpstreamFailed),
    ];
    for (error, failure) in rows {
        assert_eq!(ApiError::from(PullError::Upstream(error.clone())).failure(), failure, "{error}");
    }
}

/// Collects what a subscriber writes.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn p23_a_refusal_is_one_log_line_whatever_the_client_calls_itself() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let user_agent = format!("evil\r\n{{\"level\":\"ERROR\"}}\u{1b}[31m{}", "x".repeat(10_000));
    tracing::subscriber::with_default(subscriber, || {
        let error = ApiError::from(denial()).about(&Want::Manifest(image()));
        error.log(&asked(&Method::GET, Client::Other), "192.0.2.1:4711".parse().unwrap(), &user_agent);
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    let field = |name: &str| line["fields"][name].as_str().unwrap().to_owned();
    assert!(field("user_agent").starts_with(r#"evil\r\n{"level":"ERROR"}\u{1b}[31mxxx"#), "{text}");
    assert!(field("user_agent").len() <= crate::limits::LOG_FIELD_BYTES_MAX + 3);
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["fields"]["status"], 403);
    assert_eq!(field("reference"), "docker.io/library/alpine:3.20");
    assert_eq!(field("digest"), Digest::sha256(b"image").to_string());
    assert_eq!((field("verdict").as_str(), field("client").as_str()), ("abababababababab", "192.0.2.1:4711"));
    assert_eq!(field("reason"), "no_signature");
}

#[tokio::test]
async fn a_body_that_breaks_is_an_error_and_never_a_clean_end() {
    use crate::http::body::{Body, Held};
    use crate::http::connection::Connection;
    use crate::telemetry::{MethodLabel, RouteLabel, Telemetry};

    let collect = async |items: Vec<Result<Bytes, PullError>>, length: u64| {
        let connection = std::sync::Arc::new(Connection::alone());
        let guard = Telemetry::new(&[]).request(RouteLabel::Blob, MethodLabel::Get);
        let held = Held { guard: Some(guard), _place: None, _busy: connection.request(), handover: None };
        let stream = Box::pin(futures_util::stream::iter(items));
        Body::new(Content::Stream(stream, length), held).collect().await.map(http_body_util::Collected::to_bytes)
    };
    let bytes = || Ok(Bytes::from_static(b"abc"));
    assert_eq!(collect(vec![bytes(), bytes()], 6).await.unwrap().as_ref(), b"abcabc");
    assert!(collect(vec![bytes(), Err(PullError::Lost)], 6).await.is_err());
    assert!(collect(vec![bytes()], 6).await.is_err(), "too short");
    assert!(collect(vec![bytes(), bytes()], 5).await.is_err(), "too long");
}
