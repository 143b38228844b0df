//! Reloading while running: what changes, what stays, and what is said about it.

use sealgate::clock::Clock;
use sealgate::testing::sigstore::FakeSigstore;
use sealgate::testing::{ACCEPT_ANYTHING, REJECT, TestCa, TestSealgate};

#[tokio::test]
async fn a_reload_puts_another_policy_in_force_and_says_so() {
    let mirror = TestSealgate::with_policy(REJECT).upstream("docker.io", "http://127.0.0.1:9").start().await;
    assert!(!mirror.reload().await.unwrap().policy_changed);
    mirror.write_policy(ACCEPT_ANYTHING);
    let changes = mirror.reload().await.unwrap();
    assert!(changes.policy_changed && changes.restart_needed.is_empty(), "{changes:?}");
    assert_eq!(mirror.metric("sealgate_policy_reloads_total{outcome=\"ok\"}"), Some(2.0));
    mirror.stop().await;
}

#[tokio::test]
async fn c_01_a_bad_new_file_leaves_the_old_policy_in_force() {
    let mirror = TestSealgate::with_policy(REJECT).upstream("docker.io", "http://127.0.0.1:9").start().await;
    let before = mirror.admin_get("/api/v1/policy").await.json();
    mirror.write_policy("{\"default\": []}");
    let error = mirror.reload().await.unwrap_err();
    assert!(error.contains("policy.json"), "{error}");
    assert_eq!(mirror.admin_get("/api/v1/policy").await.json(), before);
    assert_eq!(mirror.metric("sealgate_policy_reloads_total{outcome=\"error\"}"), Some(1.0));
    mirror.write("sealgate.toml", "[policy");
    assert!(mirror.reload().await.is_err());
    assert_eq!(mirror.admin_get("/readyz").await.status, 200, "it goes on serving");
    mirror.stop().await;
}

#[tokio::test]
async fn the_admin_api_reloads_and_a_form_of_another_site_cannot() {
    let mirror = TestSealgate::with_policy(REJECT).upstream("docker.io", "http://127.0.0.1:9").start().await;
    mirror.write_policy(ACCEPT_ANYTHING);
    let refused = mirror.admin_request("POST", "/api/v1/reload", &[("Content-Length", "0")]).await;
    assert_eq!(refused.status, 403);
    let headers = [("Content-Length", "0"), ("Sealgate-Admin", "1")];
    let answer = mirror.admin_request("POST", "/api/v1/reload", &headers).await;
    assert_eq!((answer.status, answer.json()["policy_changed"].as_bool()), (200, Some(true)), "{}", answer.text());
    mirror.write_policy("no JSON");
    let answer = mirror.admin_request("POST", "/api/v1/reload", &headers).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    mirror.stop().await;
}

#[tokio::test]
async fn a_reload_says_whether_another_trust_root_is_in_force() {
    let root = |seed| FakeSigstore::from_seed(seed, Clock::System.now()).trusted_root_json();
    let mirror = TestSealgate::with_policy(REJECT)
        .upstream("docker.io", "http://127.0.0.1:9")
        .file("root.json", root(1))
        .set("policy.trusted_root", "root.json")
        .start()
        .await;
    let headers = [("Content-Length", "0"), ("Sealgate-Admin", "1")];
    let reload = async || {
        let answer = mirror.admin_request("POST", "/api/v1/reload", &headers).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let in_force = async || mirror.admin_get("/api/v1/policy").await.json()["trust_root"].clone();
    let (before, same) = (in_force().await, reload().await);
    assert_eq!((&same["trust_root"], &same["trust_root_changed"]), (&before, &false.into()), "{same}");
    mirror.write("root.json", root(2));
    let changed = reload().await;
    assert_eq!(changed["trust_root_changed"], true, "{changed}");
    assert_ne!(changed["trust_root"], before);
    assert_eq!(changed["trust_root"], in_force().await);
    assert_eq!(reload().await["trust_root_changed"], false);
    mirror.stop().await;
}

#[tokio::test]
async fn keys_that_need_a_restart_are_named_and_have_no_effect_before() {
    let setup = TestSealgate::with_policy(REJECT).file("ca.pem", TestCa::new("one").pem()).upstream_with(
        "docker.io",
        "http://127.0.0.1:9",
        "ca_file = \"ca.pem\"",
    );
    let mirror = setup.start().await;
    let path = mirror.dir().join("sealgate.toml");
    let mut config: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    config["cache"].as_table_mut().unwrap().insert("max_bytes".to_owned(), "1GiB".into());
    config.insert("verdicts".to_owned(), toml::Value::Table("deny_ttl = \"7s\"".parse().unwrap()));
    config["upstream"][0].as_table_mut().unwrap().insert("proxy".to_owned(), "http://u:p@proxy.example".into());
    mirror.write("sealgate.toml", toml::to_string(&config).unwrap());
    mirror.write("ca.pem", TestCa::new("two").pem());
    let changes = mirror.reload().await.unwrap();
    let expected = ["cache.max_bytes", "upstream.proxy", "upstream[0].ca_file (its content)", "upstream[0].proxy"];
    assert_eq!(changes.restart_needed, expected);
    let policy = mirror.admin_get("/api/v1/policy").await.json();
    assert_eq!(policy["deny_ttl_seconds"], 7, "[verdicts] takes effect at once");
    mirror.stop().await;
}

#[tokio::test]
async fn a_changed_policy_file_is_noticed_without_being_told() {
    let mirror = TestSealgate::with_policy(REJECT).upstream("docker.io", "http://127.0.0.1:9").start().await;
    let before = mirror.admin_get("/api/v1/policy").await.json()["fingerprint"].clone();
    mirror.write_policy(ACCEPT_ANYTHING);
    // However long the looks at the file take, the change must come; the bound only ends a test that would hang.
    let changed = async {
        while mirror.admin_get("/api/v1/policy").await.json()["fingerprint"] == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), changed).await.unwrap();
    mirror.stop().await;
}
