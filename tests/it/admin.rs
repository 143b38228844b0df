//! The operators' listener, over TCP.

use sealgate::clock::Clock;
use sealgate::testing::sigstore::{FakeSigstore, Flaw, key_requirement};
use sealgate::testing::{
    ACCEPT_ANYTHING, Answer, FakeRegistry, ImageBuilder, REJECT, Setup, TestSealgate, attach_signatures,
};
use serde_json::{Value, json};

const CHANGE: (&str, &str) = ("Sealgate-Admin", "1");

#[tokio::test]
async fn health_and_facts_are_json_and_name_no_upstream_as_a_condition() {
    // Nothing listens at that endpoint: the mirror is ready all the same.
    let mirror = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1").start().await;
    let live = mirror.admin_get("/livez").await;
    assert_eq!((live.status, live.json()["live"].as_bool()), (200, Some(true)));
    let ready = mirror.admin_get("/readyz").await;
    assert_eq!(ready.status, 200);
    for part in ["store", "policy", "trust_root"] {
        assert_eq!(ready.json()[part]["ready"], true, "{part}");
    }
    let policy = mirror.admin_get("/api/v1/policy").await.json();
    assert_eq!(policy["fingerprint"], ready.json()["policy"]["fingerprint"]);
    let cache = mirror.admin_get("/api/v1/cache").await.json();
    assert_eq!((cache["bytes"].as_u64(), cache["limit_bytes"].as_u64()), (Some(0), Some(64 << 30)));
    let upstreams = mirror.admin_get("/api/v1/upstreams").await.json();
    assert_eq!(upstreams["upstreams"][0]["host"], "docker.io");
    assert_eq!(upstreams["upstreams"][0]["endpoint"], "http://127.0.0.1:1/");
    mirror.stop().await;
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_text() {
    let mirror = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1").start().await;
    let metrics = mirror.admin_get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.text().contains("sealgate_upstream_bytes_total{upstream=\"docker.io\"} 0\n"));
    assert!(metrics.text().contains("sealgate_build_info{"));
    mirror.stop().await;
}

#[tokio::test]
async fn p_24_admin_paths_do_not_exist_on_the_registry_listener() {
    let mirror = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1").start().await;
    for path in ["/metrics", "/livez", "/readyz", "/api/v1/verdicts", "/api/v1/reload", "/ui/"] {
        assert_eq!(mirror.get(path).await.status, 404, "{path}");
        let change = mirror.request("POST", path, &[CHANGE]).await;
        assert!([404, 405].contains(&change.status), "{path}: {}", change.status);
    }
    let registry = mirror.admin_get("/v2/").await;
    assert_eq!(registry.status, 404);
    assert!(registry.json()["hint"].as_str().unwrap().contains("server.listen"));
    mirror.stop().await;
}

#[tokio::test]
async fn p_24_a_foreign_host_or_origin_is_refused() {
    let mirror = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1").start().await;
    for path in ["/metrics", "/livez", "/api/v1/verdicts", "/nothing"] {
        let rebound = mirror.admin_request("GET", path, &[("Host", "attacker.example")]).await;
        assert_eq!(rebound.status, 403, "{path}");
        let scripted = mirror.admin_request("GET", path, &[("Origin", "https://attacker.example")]).await;
        assert_eq!(scripted.status, 403, "{path}");
        assert!(scripted.header("access-control-allow-origin").is_none(), "{path}");
    }
    let doubled = mirror.admin_request("GET", "/livez", &[("Host", "localhost"), ("Host", "localhost")]).await;
    assert_eq!(doubled.status, 400);
    let preflight = mirror.admin_request("OPTIONS", "/api/v1/reload", &[("Origin", "https://attacker.example")]).await;
    assert_eq!(preflight.status, 403);
    mirror.stop().await;
}

#[tokio::test]
async fn a_change_needs_its_header_and_a_reload_swaps_the_policy() {
    let mirror = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1").start().await;
    let before = mirror.admin_get("/api/v1/policy").await.json()["fingerprint"].clone();
    mirror.write_policy(ACCEPT_ANYTHING);
    assert_eq!(mirror.admin_request("POST", "/api/v1/reload", &[]).await.status, 403);
    assert_eq!(mirror.admin_get("/api/v1/policy").await.json()["fingerprint"], before);
    let reloaded = mirror.admin_request("POST", "/api/v1/reload", &[CHANGE]).await;
    assert_eq!((reloaded.status, reloaded.json()["policy_changed"].as_bool()), (200, Some(true)));
    assert_ne!(mirror.admin_get("/api/v1/policy").await.json()["fingerprint"], before);
    assert_eq!(mirror.metric("sealgate_policy_reloads_total{outcome=\"ok\"}"), Some(1.0));
    mirror.stop().await;
}

#[tokio::test]
async fn a_bad_new_policy_leaves_the_old_one_in_force_and_says_what_is_wrong() {
    let mirror = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1").start().await;
    let before = mirror.admin_get("/api/v1/policy").await.json()["fingerprint"].clone();
    mirror.write_policy(r#"{"default": [{"type": "rejekt"}]}"#);
    let refused = mirror.admin_request("POST", "/api/v1/reload", &[CHANGE]).await;
    assert_eq!(refused.status, 409);
    assert!(refused.json()["error"].as_str().unwrap().contains("policy.json"), "{}", refused.text());
    assert_eq!(mirror.admin_get("/api/v1/policy").await.json()["fingerprint"], before);
    assert_eq!(mirror.metric("sealgate_policy_stale"), Some(1.0));
    mirror.write_policy(REJECT);
    assert_eq!(mirror.admin_request("POST", "/api/v1/reload", &[CHANGE]).await.status, 200);
    assert_eq!(mirror.metric("sealgate_policy_stale"), Some(0.0));
    mirror.stop().await;
}

#[tokio::test]
async fn c_09_an_open_listener_without_a_token_changes_nothing() {
    let setup = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1");
    let mirror = setup.set("server.admin_listen", "0.0.0.0:0").start().await;
    let headers = [CHANGE, ("Authorization", "Bearer "), ("Host", "127.0.0.1")];
    let refused = mirror.admin_request("POST", "/api/v1/reload", &headers).await;
    assert_eq!(refused.status, 403);
    assert!(refused.json()["hint"].as_str().unwrap().contains("server.admin_token_file"));
    assert_eq!(mirror.admin_request("GET", "/readyz", &[("Host", "127.0.0.1")]).await.status, 200);
    mirror.stop().await;
}

#[tokio::test]
async fn an_open_listener_with_a_token_changes_things_for_its_holder() {
    let setup = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1").file("token", "0123456789abcdef\n");
    let setup = setup.set("server.admin_listen", "0.0.0.0:0").set("server.admin_token_file", "token");
    let mirror = setup.start().await;
    let reload = async |authorization: &str| {
        let headers = [CHANGE, ("Authorization", authorization), ("Host", "127.0.0.1")];
        mirror.admin_request("POST", "/api/v1/reload", &headers).await
    };
    assert_eq!(reload("Bearer 0123456789abcdef").await.status, 200);
    let refused = reload("Bearer 0123456789abcdee").await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    mirror.stop().await;
}

#[tokio::test]
async fn wrong_questions_are_answered_with_what_to_do() {
    let mirror = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1").start().await;
    for (target, status) in [
        ("/api/v1/verdicts?decision=maybe", 400),
        ("/api/v1/verdicts?limit=0", 400),
        ("/api/v1/verdicts?limit=1001", 400),
        ("/api/v1/verdicts?colour=red", 400),
        ("/api/v1/verdicts/xyz", 400),
        ("/api/v1/verdicts/%ff", 400),
        ("/api/v1/verdicts/0123456789abcdef", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/reload", 405),
    ] {
        let answer = mirror.admin_get(target).await;
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.json()["error"].is_string() && answer.json()["hint"].is_string(), "{target}");
    }
    let empty = mirror.admin_get("/api/v1/verdicts?limit=1000").await.json();
    assert_eq!((empty["verdicts"].as_array().map(Vec::len), &empty["next"]), (Some(0), &Value::Null));
    mirror.stop().await;
}

#[tokio::test]
async fn names_of_the_listener_can_be_configured() {
    let setup = Setup::new(REJECT).upstream("docker.io", "http://127.0.0.1:1");
    let mirror = setup.toml("[server]\nadmin_hosts = [\"mirror.example\"]").start().await;
    let named = async |host: &str| mirror.admin_request("GET", "/livez", &[("Host", host)]).await.status;
    assert_eq!(named("mirror.example:5001").await, 200);
    assert_eq!(named("other.example:5001").await, 403);
    mirror.stop().await;
}

/// A mirror that has decided about `docker.io/team/signed:1` and `docker.io/team/unsigned:1`.
async fn mirror_with_two_verdicts(registry: &FakeRegistry) -> TestSealgate {
    let sigstore = FakeSigstore::from_seed(11, Clock::System.now());
    let key = sigstore.key("release");
    for (seed, name) in [(1, "team/signed"), (2, "team/unsigned")] {
        registry.put(name, "1", &ImageBuilder::new(seed).layer(1000).build());
    }
    let digest = ImageBuilder::new(1).layer(1000).build().digest();
    let signature = sigstore.sign_keyed(&key, "docker.io/team/signed", &digest, Flaw::None);
    attach_signatures(registry, "team/signed", &digest, &[signature]);
    let policy = json!({ "default": [{ "type": "reject" }], "transports": { "docker": {
        "docker.io/team": [key_requirement(&key)],
    } } });
    let mirror = Setup::new(&policy.to_string()).upstream("docker.io", registry.url()).start().await;
    assert_eq!(mirror.get("/v2/team/signed/manifests/1").await.status, 200);
    assert_eq!(mirror.get("/v2/team/unsigned/manifests/1").await.status, 403);
    mirror
}

fn images(listing: &Answer) -> Vec<String> {
    assert_eq!(listing.status, 200, "{}", listing.text());
    let listing = listing.json();
    let verdicts = listing["verdicts"].as_array().unwrap();
    verdicts.iter().map(|verdict| verdict["image"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn verdicts_are_listed_newest_first_filtered_and_page_by_page() {
    let registry = FakeRegistry::start().await;
    let mirror = mirror_with_two_verdicts(&registry).await;
    let list = async |query: &str| mirror.admin_get(&format!("/api/v1/verdicts{query}")).await;
    let (signed, unsigned) = ("docker.io/team/signed:1", "docker.io/team/unsigned:1");
    assert_eq!(images(&list("").await), [unsigned, signed]);
    assert_eq!(images(&list("?decision=allow").await), [signed]);
    assert_eq!(images(&list("?decision=deny").await), [unsigned]);
    assert_eq!(images(&list("?repository=docker.io/team/signed").await), [signed]);
    assert_eq!(images(&list("?repository=docker.io/team").await), [""; 0]);
    let first = list("?limit=1").await;
    assert_eq!(images(&first), [unsigned]);
    let second = list(&format!("?limit=1&after={}", first.json()["next"].as_str().unwrap())).await;
    assert_eq!(images(&second), [signed]);
    assert_eq!(list("?limit=3").await.json()["next"], Value::Null);
    mirror.stop().await;
}

#[tokio::test]
async fn a_verdict_is_shown_with_its_reason_and_evidence_and_can_be_forgotten() {
    let registry = FakeRegistry::start().await;
    let mirror = mirror_with_two_verdicts(&registry).await;
    let listed = mirror.admin_get("/api/v1/verdicts?decision=deny").await.json()["verdicts"][0].clone();
    let path = format!("/api/v1/verdicts/{}", listed["id"].as_str().unwrap());
    let shown = mirror.admin_get(&path).await.json();
    assert_eq!(
        (&shown["decision"], &shown["reason"], &shown["status"]),
        (&json!("deny"), &json!("no_signature"), &json!("current"))
    );
    assert_eq!(shown["text"], "A signature was required, but no signature exists");
    assert!(shown["evidence"].is_object(), "{shown}");
    assert_eq!(mirror.admin_request("DELETE", &path, &[]).await.status, 403);
    assert_eq!(mirror.admin_get(&path).await.status, 200);
    assert_eq!(mirror.admin_request("DELETE", &path, &[CHANGE]).await.status, 200);
    assert_eq!(mirror.admin_get(&path).await.status, 404);
    assert_eq!(mirror.admin_request("DELETE", &path, &[CHANGE]).await.status, 404);

    // Forgotten is decided anew, and the policy's answer is the same.
    assert_eq!(mirror.get("/v2/team/unsigned/manifests/1").await.status, 403);
    assert_eq!(mirror.admin_get(&path).await.status, 200);
    mirror.stop().await;
}
