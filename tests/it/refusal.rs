//! Refusals by client (design §5): whoever can be stopped is stopped, and everybody reads why.

use sealgate::clock::Timestamp;
use sealgate::http::HardStop;
use sealgate::testing::sigstore::{FakeSigstore, key_requirement};
use sealgate::testing::{Fault, ImageBuilder};

use crate::parts::{ACCEPT_ANYTHING, Mirror, REJECT};
use crate::wire::{Answer, get, head};

const DOCKER: &str =
    "User-Agent: docker/20.10.24+dfsg1 go/go1.19.8 UpstreamClient(Docker-Client/28.2.2 \\(linux\\))\r\n";
const DOCKER_ON_CONTAINERD: &str = "User-Agent: docker/29.0.0 go/go1.25 containerd-client/2.2.0\r\n";
const CONTAINERD: &str = "User-Agent: containerd/1.6.20~ds1\r\n";
const BUILDKIT: &str = "User-Agent: buildkit/v0.32\r\n";
const PODMAN: &str = "User-Agent: containers/5.23.1 (github.com/containers/image)\r\n";
const NOBODY: &str = "";

const UNSIGNED: &str =
    "SignatureValidationFailed: Source image rejected: A signature was required, but no signature exists";

/// Wants a signature by a key, in every repository.
fn signed() -> String {
    let sigstore = FakeSigstore::from_seed(1, Timestamp::from_unix_seconds(1_750_000_000));
    serde_json::json!({ "default": [key_requirement(&sigstore.key("release"))] }).to_string()
}

async fn unsigned() -> (Mirror, String, String) {
    let mirror = Mirror::start(&signed()).await;
    let image = ImageBuilder::new(1).layer(100).build();
    mirror.upstream.put("library/app", "1", &image);
    let by_digest = format!("/v2/app/manifests/{}", image.digest());
    (mirror, "/v2/app/manifests/1".to_owned(), by_digest)
}

/// What no refusal may have.
fn leads_nowhere(answer: &Answer) {
    for forbidden in ["location", "www-authenticate", "docker-content-digest", "etag"] {
        assert_eq!(answer.header(forbidden), None, "{answer:?}");
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.reason.len() <= 250 && answer.reason.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
}

#[tokio::test]
async fn an_unsigned_image_is_refused_alike_by_head_and_get_and_each_client_is_told_why() {
    let (mirror, by_tag, by_digest) = unsigned().await;
    for path in [&by_tag, &by_digest] {
        for (client, head_status, get_status) in [
            (DOCKER, 503, 503),
            (DOCKER_ON_CONTAINERD, 300, 403),
            (CONTAINERD, 300, 403),
            (BUILDKIT, 300, 403),
            (PODMAN, 403, 403),
            (NOBODY, 403, 403),
        ] {
            let (head, get) = (head(mirror.address, path, client).await, get(mirror.address, path, client).await);
            assert_eq!((head.status, get.status), (head_status, get_status), "{path} {client}");
            for answer in [&head, &get] {
                leads_nowhere(answer);
                assert!(answer.reason.starts_with(UNSIGNED), "{}", answer.reason);
                assert_eq!(answer.reason.ends_with("[no such process]"), client == DOCKER, "{}", answer.reason);
                let verdict = answer.header("sealgate-verdict").unwrap().strip_prefix("deny; id=").unwrap();
                assert!(answer.reason.contains(&format!("(verdict {verdict})")), "{}", answer.reason);
            }
            assert_eq!(get.code(), "DENIED");
            let error = &get.json()["errors"][0];
            assert_eq!(error["message"], get.reason);
            assert_eq!(error["detail"]["reasons"][0], "A signature was required, but no signature exists");
            assert_eq!(get.detail("reason"), "no_signature");
            assert!(get.detail("policy").starts_with("sha256:") && get.detail("digest").starts_with("sha256:"));
            assert!(get.detail("reference").starts_with("docker.io/library/app"));
        }
    }
    mirror.stop().await;
}

#[tokio::test]
async fn a_client_with_odd_bytes_in_its_name_is_stopped_all_the_same() {
    let (mirror, by_tag, _) = unsigned().await;
    let odd = "User-Agent: docker/20.10.24 UpstreamClient(\u{fc}ber)\r\n";
    let answer = head(mirror.address, &by_tag, odd).await;
    assert!(answer.status == 503 && answer.reason.ends_with("[no such process]"), "{answer:?}");
    mirror.stop().await;
}

#[tokio::test]
async fn without_the_hard_stop_every_client_gets_the_status_that_fits() {
    let mirror = Mirror::start_with(REJECT, |settings| settings.hard_stop = HardStop::Off).await;
    mirror.upstream.put("library/app", "1", &ImageBuilder::new(1).build());
    for client in [DOCKER, CONTAINERD, BUILDKIT, PODMAN] {
        let answer = head(mirror.address, "/v2/app/manifests/1", client).await;
        assert_eq!(answer.status, 403, "{client}");
        assert!(!answer.reason.contains("no such process"));
    }
    mirror.stop().await;
}

/// One way in which something but policy keeps an image from being served.
struct Failing {
    name: &'static str,
    policy: String,
    fault: Fault,
    status: u16,
    code: &'static str,
}

fn failing() -> Vec<Failing> {
    let row =
        |name, policy: &str, fault, status, code| Failing { name, policy: policy.to_owned(), fault, status, code };
    let manifests = || Fault::on("*/manifests/*");
    let anything = ACCEPT_ANYTHING;
    vec![
        row("signatures unavailable", &signed(), Fault::on("*/manifests/sha256-*").status(500), 503, "DENIED"),
        row("limited", anything, manifests().status(429).set_header("retry-after", "7"), 429, "TOOMANYREQUESTS"),
        row("failed", anything, manifests().status(500), 502, "DENIED"),
        row("upstream's own time-out", anything, manifests().status(504), 502, "DENIED"),
        row("refused", anything, manifests().status(403), 403, "DENIED"),
        row("wrong bytes", anything, manifests().get().wrong_bytes(), 502, "MANIFEST_INVALID"),
        row("no manifest", anything, manifests().get().body("<html>"), 502, "MANIFEST_INVALID"),
        row("cut", anything, manifests().get().truncate(10), 502, "MANIFEST_INVALID"),
    ]
}

#[tokio::test]
async fn whatever_else_fails_stops_clients_too_and_is_called_undecided() {
    for Failing { name, policy, fault, status, code } in failing() {
        for (client, head_status, get_status) in [(DOCKER, 503, 503), (CONTAINERD, 300, 403), (PODMAN, status, status)]
        {
            let mirror = Mirror::start(&policy).await;
            mirror.upstream.put("library/app", "1", &ImageBuilder::new(1).layer(100).build());
            mirror.upstream.fault(fault.clone());
            let get = get(mirror.address, "/v2/app/manifests/1", client).await;
            let head = head(mirror.address, "/v2/app/manifests/1", client).await;
            assert_eq!((head.status, get.status), (head_status, get_status), "{name} {client}: {get:?}");
            for answer in [&head, &get] {
                leads_nowhere(answer);
                assert!(answer.reason.starts_with("sealgate cannot decide: "), "{name}: {}", answer.reason);
                assert_eq!(answer.reason.ends_with("[no such process]"), client == DOCKER, "{name}");
            }
            assert_eq!(get.code(), code, "{name}: {get:?}");
            let waits = matches!(get.status, 429 | 503) && client == PODMAN;
            assert!(!waits || get.header("retry-after").is_some(), "{name}: {get:?}");
            mirror.stop().await;
        }
    }
}

#[tokio::test]
async fn a_true_404_stays_one_for_every_client() {
    let mirror = Mirror::start(&signed()).await;
    mirror.upstream.put("library/app", "1", &ImageBuilder::new(1).build());
    for client in [DOCKER, CONTAINERD, PODMAN] {
        let get = get(mirror.address, "/v2/app/manifests/nowhere", client).await;
        assert_eq!((get.status, get.code().as_str()), (404, "MANIFEST_UNKNOWN"), "{client}");
        assert_eq!(head(mirror.address, "/v2/app/manifests/nowhere", client).await.status, 404);
        assert!(!get.reason.contains("no such process"));
    }
    mirror.stop().await;
}

#[tokio::test]
async fn an_upstream_with_credentials_is_refused_to_unknown_clients() {
    let mirror = Mirror::start(ACCEPT_ANYTHING).await;
    let answer = get(mirror.address, "/v2/private.example/a/manifests/1", PODMAN).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"));
    assert!(answer.reason.contains("client_ca"), "{}", answer.reason);
    let docker = get(mirror.address, "/v2/private.example/a/manifests/1", DOCKER).await;
    assert!(docker.status == 503 && docker.reason.ends_with("[no such process]"), "{docker:?}");
    let blob = format!("/v2/private.example/a/blobs/sha256:{}", "0".repeat(64));
    assert_eq!(get(mirror.address, &blob, DOCKER).await.status, 403);
    assert_eq!(mirror.stop().await.upstream.count("*", "*"), 0);
}
