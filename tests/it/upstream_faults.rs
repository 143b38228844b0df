//! What clients see when an upstream breaks one thing, through the whole server (threats.md, U-09 to U-27).

use std::time::Duration;

use sealgate::clock::{Clock, ManualClock};
use sealgate::limits::MANIFEST_BYTES_MAX;
use sealgate::testing::sigstore::FakeSigstore;
use sealgate::testing::{
    ACCEPT_ANYTHING, Answer, Auth, BuiltImage, FakeRegistry, Fault, ImageBuilder, TestSealgate, TokenAuth,
};

use crate::reliability::{sign, signed_by};
use crate::upstream::advance;

const MANIFEST: &str = "/v2/team/app/manifests/1.0";

async fn registry(auth: Auth) -> (FakeRegistry, BuiltImage) {
    let registry = FakeRegistry::builder().auth(auth).start().await;
    let image = ImageBuilder::new(1).layer(100_000).build();
    registry.put("team/app", "1.0", &image);
    (registry, image)
}

async fn mirror(registry: &FakeRegistry) -> TestSealgate {
    TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url()).start().await
}

/// Status and `detail.reason` of HEAD and GET of the manifest, which must agree and show nothing of upstream's headers.
async fn refusal(registry: &FakeRegistry) -> (u16, String) {
    let mirror = mirror(registry).await;
    let (head, get) = (mirror.head(MANIFEST).await, mirror.get(MANIFEST).await);
    mirror.stop().await;
    assert_eq!(head.status, get.status);
    for answer in [&head, &get] {
        for header in ["www-authenticate", "location", "docker-content-digest", "set-cookie"] {
            assert_eq!(answer.header(header), None, "{header}");
        }
    }
    (get.status, reason(&get))
}

fn reason(answer: &Answer) -> String {
    answer.json()["errors"][0]["detail"]["reason"].as_str().unwrap_or_default().to_owned()
}

async fn refused_for(fault: Fault) -> (u16, String) {
    let (registry, _) = registry(Auth::Open).await;
    registry.fault(fault);
    refusal(&registry).await
}

fn bad(reason: &str) -> (u16, String) {
    (502, reason.to_owned())
}

#[tokio::test]
async fn u09_a_limited_client_is_told_when_to_come_back_and_upstream_is_asked_once_a_window() {
    let (registry, image) = registry(Auth::Open).await;
    let mirror = mirror(&registry).await;
    registry.fault(Fault::on("*").status(429).header("retry-after", "3600"));
    let by_digest = format!("/v2/team/app/manifests/{}", image.digest());
    for window in 1..=3 {
        for path in [MANIFEST, &by_digest, "/v2/team/app/tags/list", "/v2/team/app/manifests/other"] {
            let answer = mirror.get(path).await;
            assert_eq!((answer.status, answer.error_code()), (429, "TOOMANYREQUESTS".to_owned()), "{path}");
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((295..=300).contains(&wait) || wait == 1, "{wait}");
        }
        assert_eq!(registry.count("*", "*"), window);
        advance(Duration::from_secs(300)).await;
    }
    registry.heal();
    assert_eq!(mirror.get(MANIFEST).await.status, 200);
    mirror.stop().await;
}

#[tokio::test]
async fn u10_no_trouble_with_tokens_is_a_401_for_the_client() {
    let realm = |answer: serde_json::Value| Auth::Token(TokenAuth { answer: Some(answer), ..TokenAuth::default() });
    for answer in [serde_json::json!({}), serde_json::json!([]), serde_json::json!({"token": ""})] {
        let (registry, _) = registry(realm(answer.clone())).await;
        assert_eq!(refusal(&registry).await, bad("upstream_auth"), "{answer}");
    }
    for life in [serde_json::json!(-1), serde_json::json!(0), serde_json::json!(1e18)] {
        let auth = Auth::Token(TokenAuth { expires_in: Some(life), ..TokenAuth::default() });
        let (registry, image) = registry(auth).await;
        let mirror = mirror(&registry).await;
        assert_eq!(mirror.get(MANIFEST).await.body, image.manifest.bytes);
        assert_eq!(registry.count("*", "/token"), 1);
        mirror.stop().await;
    }
    // A registry that is never content: two requests for a token at most, and the client hears that access is refused.
    let (registry, _) = registry(Auth::Token(TokenAuth::for_user("robot", "secret"))).await;
    let mirror = mirror(&registry).await;
    let answer = mirror.get(MANIFEST).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (403, None));
    assert!(registry.count("*", "/token") <= 2);
    mirror.stop().await;
}

#[tokio::test]
async fn u11_u12_a_redirect_to_nowhere_or_to_a_forbidden_place_is_upstreams_failure() {
    assert_eq!(refused_for(Fault::on("*").redirect("/v2/team/app/manifests/1.0")).await, bad("redirect"));
    assert_eq!(refused_for(Fault::on("*").status(302)).await, bad("redirect"));
    let places = [
        "http://169.254.169.254/latest",
        "http://10.0.0.1/",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "http://0xa9.0xfe.0xa9.0xfe/",
        "file:///etc/passwd",
        "http://127.0.0.1:22/",
        "http://user@127.0.0.1/",
    ];
    for place in places {
        assert_eq!(refused_for(Fault::on("*").redirect(place)).await, bad("redirect_blocked"), "{place}");
    }
}

#[tokio::test]
async fn u13_a_cdn_behind_the_registry_sees_no_secret_of_a_pull() {
    let (cdn, image) = registry(Auth::Open).await;
    let (registry, _) = registry(Auth::Token(TokenAuth::default())).await;
    let layer = image.blobs[1].digest;
    let place = format!("{}/v2/team/app/blobs/{layer}", cdn.url());
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
        .upstream_with("registry.test", registry.url(), &format!("redirect_hosts = [\"{}\"]", cdn.host()))
        .start()
        .await;
    assert_eq!(mirror.get(MANIFEST).await.status, 200);
    registry.fault(Fault::on("*/blobs/*").redirect(&place));
    let headers = [("Cookie", "a=b"), ("Authorization", "Basic Zm9v"), ("X-Registry-Auth", "c")];
    let answer = mirror.request("GET", &format!("/v2/team/app/blobs/{layer}"), &headers).await;
    assert_eq!((answer.status, &answer.body), (200, &image.blobs[1].bytes));
    let seen = cdn.requests();
    assert_eq!(seen.len(), 1);
    for header in ["authorization", "cookie", "referer", "x-registry-auth"] {
        assert_eq!(seen[0].header(header), None, "{header}");
    }
    mirror.stop().await;
}

#[tokio::test]
async fn u15_a_realm_elsewhere_gets_nothing_and_is_counted() {
    let (elsewhere, _) = registry(Auth::Open).await;
    let realms = [
        format!("Bearer realm=\"{}/token\"", elsewhere.url()),
        "Bearer realm=\"http://169.254.169.254/token\"".to_owned(),
        "Bearer realm=\"http://user:pw@127.0.0.1/token\"".to_owned(),
        "Bearer realm=\"/token\"".to_owned(),
        format!("Bearer realm=\"http://127.0.0.1/{}\"", "a".repeat(10_240)),
    ];
    for challenge in realms {
        let (registry, _) = registry(Auth::Token(TokenAuth::default().challenge(&challenge))).await;
        let mirror = mirror(&registry).await;
        let answer = mirror.get(MANIFEST).await;
        assert!(matches!(answer.status, 403 | 502), "{challenge}: {}", answer.text());
        if answer.status == 502 {
            assert_eq!(reason(&answer), "realm_blocked", "{challenge}");
            let blocked = mirror.metric("sealgate_upstream_credentials_blocked_total{upstream=\"registry.test\"}");
            assert!(blocked >= Some(1.0), "{challenge}");
        }
        mirror.stop().await;
    }
    assert_eq!((elsewhere.count("*", "*"), elsewhere.connections()), (0, 0));
}

#[tokio::test]
async fn u16_what_is_no_manifest_is_bad_bytes_and_the_largest_one_is_served() {
    let max = usize::try_from(MANIFEST_BYTES_MAX).unwrap();
    let (registry, image) = registry(Auth::Open).await;
    let padded = |length: usize| {
        let mut bytes = image.manifest.bytes.to_vec();
        bytes.resize(length, b' ');
        bytes
    };
    let manifest = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("a page", b"<!doctype html><title>Sign in</title>".to_vec()),
        ("nothing", Vec::new()),
        ("null", b"null".to_vec()),
        ("a list", b"[]".to_vec()),
        ("very deep", "[".repeat(100_000).into_bytes()),
        (
            "no UTF-8",
            manifest
                .replacen("config", "c\u{fffd}nfig", 1)
                .into_bytes()
                .iter()
                .map(|b| if *b == 0xef { 0xff } else { *b })
                .collect(),
        ),
        ("a mark of byte order", format!("\u{feff}{manifest}").into_bytes()),
        ("something behind it", format!("{manifest}{{}}").into_bytes()),
        ("one byte too many", padded(max + 1)),
    ];
    for (what, body) in bodies {
        registry.heal();
        registry.fault(Fault::on("*/manifests/*").head().without_header("docker-content-digest"));
        registry.fault(Fault::on("*/manifests/*").get().without_header("docker-content-digest").body(body));
        let mirror = mirror(&registry).await;
        let answer = mirror.get(MANIFEST).await;
        assert_eq!((answer.status, answer.error_code()), (502, "MANIFEST_INVALID".to_owned()), "{what}");
        mirror.stop().await;
    }
    registry.heal();
    registry.fault(Fault::on("*/manifests/*").head().without_header("docker-content-digest"));
    registry.fault(Fault::on("*/manifests/*").get().without_header("docker-content-digest").body(padded(max)));
    let mirror = mirror(&registry).await;
    let answer = mirror.get(MANIFEST).await;
    assert_eq!((answer.status, answer.body.len()), (200, max));
    mirror.stop().await;
}

#[tokio::test]
async fn u17_u18_u19_encoding_type_and_stated_digest_must_be_right() {
    for encoding in ["gzip", "br", "zstd"] {
        assert_eq!(refused_for(Fault::on("*").header("content-encoding", encoding)).await, bad("content_encoding"));
    }
    assert_eq!(refused_for(Fault::on("*").without_header("content-type")).await, bad("media_type"));
    assert_eq!(refused_for(Fault::on("*").content_type("text/html")).await, bad("media_type"));
    let twice = Fault::on("*").header("content-type", "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(refused_for(twice).await, bad("media_type"));
    let wrong = sealgate::oci::Digest::sha256(b"other").to_string();
    let claimed = Fault::on("*").get().set_header("docker-content-digest", &wrong);
    assert_eq!(refused_for(claimed).await, bad("digest_mismatch"));
    let (registry, image) = registry(Auth::Open).await;
    let typed = format!("{}; charset=utf-8", image.manifest.media_type);
    registry.fault(Fault::on("*").without_header("docker-content-digest").content_type(&typed));
    let mirror = mirror(&registry).await;
    let answer = mirror.get(MANIFEST).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(image.manifest.media_type.as_str())));
    assert_eq!(answer.header("docker-content-digest"), Some(image.digest().to_string().as_str()), "ours is sent");
    mirror.stop().await;
}

#[tokio::test]
async fn u25_a_failing_search_for_signatures_is_undecided_and_a_404_is_not() {
    let sigstore = FakeSigstore::from_seed(1, Clock::System.now());
    for (status, expected) in [(500, 503), (503, 503), (429, 503), (401, 503), (404, 403)] {
        let (registry, image) = registry(Auth::Open).await;
        sign(&registry, &sigstore, "1.0", &image);
        registry.fault(Fault::on("*.sig").status(status));
        registry.fault(Fault::on("*/referrers/*").status(status));
        let mirror =
            TestSealgate::with_policy(&signed_by(&sigstore)).upstream("registry.test", registry.url()).start().await;
        let answer = mirror.get(MANIFEST).await;
        let expected_reason = if expected == 503 { "verification_unavailable" } else { "no_signature" };
        assert_eq!((answer.status, reason(&answer).as_str()), (expected, expected_reason), "{status}");
        mirror.stop().await;
    }
}

#[tokio::test]
async fn u26_tls_that_cannot_be_trusted_is_upstreams_failure_and_nothing_goes_in_the_clear() {
    let registry = FakeRegistry::builder().tls().start().await;
    registry.put("team/app", "1.0", &ImageBuilder::new(1).build());
    assert_eq!(refusal(&registry).await, bad("tls"));
    assert_eq!(registry.count("*", "*"), 0);
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING)
        .file("ca.pem", registry.ca_pem().unwrap())
        .upstream_with("registry.test", registry.url(), "ca_file = \"ca.pem\"")
        .start()
        .await;
    assert_eq!(mirror.get(MANIFEST).await.status, 200);
    mirror.stop().await;
}

#[tokio::test]
async fn u27_what_is_cached_is_served_while_upstream_is_away_and_the_mirror_is_ready() {
    let sigstore = FakeSigstore::from_seed(1, Clock::System.now());
    let (registry, image) = registry(Auth::Open).await;
    sign(&registry, &sigstore, "1.0", &image);
    let clock = ManualClock::at(Clock::System.now());
    let mut mirror = TestSealgate::with_policy(&signed_by(&sigstore))
        .upstream("registry.test", registry.url())
        .clock(&clock)
        .start()
        .await;
    let manifest = format!("/v2/team/app/manifests/{}", image.digest());
    let blobs: Vec<String> = image.blobs.iter().map(|blob| format!("/v2/team/app/blobs/{}", blob.digest)).collect();
    for path in [MANIFEST, &manifest].into_iter().chain(blobs.iter().map(String::as_str)) {
        assert_eq!(mirror.get(path).await.status, 200, "{path}");
    }
    registry.go_down();
    for _ in 0..2 {
        assert_eq!(mirror.get(&manifest).await.body, image.manifest.bytes);
        for (path, blob) in blobs.iter().zip(&image.blobs) {
            assert_eq!(mirror.get(path).await.body, blob.bytes);
            assert_eq!(mirror.head(path).await.status, 200);
        }
        assert_eq!(mirror.admin_get("/readyz").await.status, 200);
        mirror.restart().await;
    }
    mirror.stop().await;
}
