//! Tokens and passwords: who may ask for them, and where they go.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealgate::limits::TOKEN_FRESH;
use sealgate::testing::{Auth, FakeRegistry, Fault, ImageBuilder, TokenAuth};
use sealgate::upstream::{Credentials, Settings, UpstreamError};
use serde_json::json;

use super::{HOST, bad, client, name, read_blob, tag};

fn with_password(mut settings: Settings, password: &str) -> Settings {
    settings.credentials = Credentials::Static { username: "robot".to_owned(), password: password.to_owned() };
    settings
}

async fn guarded(auth: TokenAuth) -> FakeRegistry {
    let registry = FakeRegistry::builder().auth(Auth::Token(auth)).start().await;
    registry.put("team/app", "1.0", &ImageBuilder::new(1).layer(1000).build());
    registry.put("team/other", "1.0", &ImageBuilder::new(2).layer(1000).build());
    registry
}

/// Lets the time pass in which a refused token is taken for a refusal.
async fn age_tokens() {
    tokio::time::pause();
    tokio::time::advance(TOKEN_FRESH).await;
    tokio::time::resume();
}

fn refused<T: std::fmt::Debug>(result: Result<T, UpstreamError>) -> u16 {
    let error = result.unwrap_err();
    let UpstreamError::Refused { status, .. } = error else { panic!("{error:?}") };
    status
}

#[tokio::test]
async fn one_token_serves_all_requests_of_a_repository() {
    let registry = guarded(TokenAuth::default()).await;
    let client = client(registry.settings(HOST));
    for _ in 0..5 {
        client.manifest(&name(), &tag()).await.unwrap();
        client.manifest_head(&name(), &tag()).await.unwrap();
    }
    assert_eq!(registry.count("*", "/token"), 1);
    assert_eq!(registry.count("*", "/v2/*"), 11, "one 401, then each request brings the token along");
    client.manifest(&"team/other".parse().unwrap(), &tag()).await.unwrap();
    assert_eq!(registry.count("*", "/token"), 2, "a token opens one repository");
    assert_eq!(registry.count("*", "/v2/*"), 12, "the second repository's first request knows what is wanted");
    let asked = &registry.requests_to("*", "/token")[0];
    assert_eq!(asked.query, "service=registry.test&scope=repository%3Ateam%2Fapp%3Apull");
    assert_eq!(asked.header("authorization"), None);
}

#[tokio::test]
async fn many_requests_at_once_share_one_token() {
    let registry = guarded(TokenAuth::default()).await;
    let client = client(registry.settings(HOST));
    client.manifest(&name(), &tag()).await.unwrap();
    registry.revoke_tokens();
    age_tokens().await;
    registry.forget_requests();
    let (name, tag) = (name(), tag());
    let all = futures_util::future::join_all((0..20).map(|_| client.manifest(&name, &tag))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(registry.count("*", "/token"), 1);
}

#[tokio::test]
async fn a_password_goes_to_the_realm_and_the_token_to_the_registry() {
    let registry = guarded(TokenAuth::for_user("robot", "hunter2")).await;
    client(with_password(registry.settings(HOST), "hunter2")).manifest(&name(), &tag()).await.unwrap();
    for request in registry.requests() {
        let authorization = request.header("authorization").unwrap_or_default();
        let basic = format!("Basic {}", STANDARD.encode("robot:hunter2"));
        assert_eq!(authorization == basic, request.path == "/token", "{request:?}");
        assert!(!request.query.contains("hunter2"));
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged_at_the_realm() {
    let registry = guarded(TokenAuth::for_user("robot", "identity")).await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    let auths = json!({ "auths": { registry.host(): { "identitytoken": "identity" } } });
    std::fs::write(&config, auths.to_string()).unwrap();
    let mut settings = registry.settings(HOST);
    settings.credentials = Credentials::DockerConfig(config);
    client(settings).manifest(&name(), &tag()).await.unwrap();
    assert_eq!(registry.count("POST", "/token"), 1);
}

#[tokio::test]
async fn a_password_is_shown_to_a_registry_that_asks_for_it() {
    let registry = FakeRegistry::builder().auth(Auth::basic("robot", "hunter2")).start().await;
    registry.put("team/app", "1.0", &ImageBuilder::new(1).build());
    let good = client(with_password(registry.settings(HOST), "hunter2"));
    good.manifest(&name(), &tag()).await.unwrap();
    good.manifest(&name(), &tag()).await.unwrap();
    assert_eq!(registry.count("*", "*"), 3);
    assert_eq!(registry.requests()[0].header("authorization"), None, "nothing is shown before it is asked for");
    assert_eq!(refused(client(with_password(registry.settings(HOST), "wrong")).manifest(&name(), &tag()).await), 401);
    assert_eq!(refused(client(registry.settings(HOST)).manifest(&name(), &tag()).await), 401);
}

#[tokio::test]
async fn credentials_of_docker_are_found_and_read_again_when_refused() {
    let registry = FakeRegistry::builder().auth(Auth::basic("robot", "pa:ss")).start().await;
    registry.put("team/app", "1.0", &ImageBuilder::new(1).build());
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    let auths = json!({ "auths": { format!("{HOST}/team"): { "auth": STANDARD.encode("robot:pa:ss") } } });
    std::fs::write(&config, auths.to_string()).unwrap();
    let mut settings = registry.settings(HOST);
    settings.credentials = Credentials::DockerConfig(config.clone());
    client(settings.clone()).manifest(&name(), &tag()).await.unwrap();
    std::fs::write(&config, "{").unwrap();
    assert_eq!(bad(client(settings.clone()).manifest(&name(), &tag()).await), "upstream_auth");
    settings.credentials = Credentials::DockerConfig(directory.path().join("absent"));
    assert_eq!(bad(client(settings).manifest(&name(), &tag()).await), "upstream_auth", "never anonymous by accident");
}

#[tokio::test]
async fn u10_a_registry_that_is_never_content_is_asked_twice() {
    let registry = guarded(TokenAuth::default()).await;
    registry.fault(Fault::on("/v2/*").status(401));
    assert_eq!(refused(client(registry.settings(HOST)).manifest(&name(), &tag()).await), 401);
    assert_eq!((registry.count("*", "/v2/*"), registry.count("*", "/token")), (1, 0), "no challenge");
    registry.heal();
    registry.forget_requests();
    let challenge = format!(r#"Bearer realm="{}/token",service="registry.test""#, registry.url());
    registry.fault(Fault::on("/v2/*").status(401).header("www-authenticate", challenge));
    let client = client(registry.settings(HOST));
    assert_eq!(refused(client.manifest(&name(), &tag()).await), 401);
    assert_eq!((registry.count("*", "/v2/*"), registry.count("*", "/token")), (2, 1));
    assert_eq!(refused(client.manifest(&name(), &tag()).await), 401);
    assert_eq!(registry.count("*", "/token"), 1, "a fresh token is not replaced");
    age_tokens().await;
    assert_eq!(refused(client.manifest(&name(), &tag()).await), 401);
    assert_eq!(registry.count("*", "/token"), 2, "an older one is, once");
    registry.heal();
    registry.fault(Fault::on("/v2/*").status(403));
    assert_eq!(refused(client.manifest(&name(), &tag()).await), 403);
}

#[tokio::test]
async fn u10_docker_hub_answers_a_missing_repository_with_401() {
    let registry = guarded(TokenAuth::for_user("robot", "hunter2")).await;
    let anonymous = client(registry.settings(HOST));
    assert_eq!(refused(anonymous.manifest(&"team/none".parse().unwrap(), &tag()).await), 401);
    let known = client(with_password(registry.settings(HOST), "hunter2"));
    let missing = known.manifest(&"team/none".parse().unwrap(), &tag()).await;
    assert!(matches!(missing, Err(UpstreamError::NotFound { .. })));
    let wrong = client(with_password(registry.settings(HOST), "wrong"));
    assert_eq!(refused(wrong.manifest(&name(), &tag()).await), 401);
}

#[tokio::test]
async fn u10_a_realm_that_gives_no_token_is_a_failure_of_upstream() {
    for answer in [json!({}), json!({ "token": "" }), json!([]), json!({ "token": "a b" })] {
        let registry = guarded(TokenAuth::default().answer(answer.clone())).await;
        let client = client(registry.settings(HOST));
        assert_eq!(bad(client.manifest(&name(), &tag()).await), "upstream_auth", "{answer}");
        assert!(registry.count("*", "/token") <= 2);
    }
    let registry = guarded(TokenAuth::default()).await;
    registry.fault(Fault::on("/token").times(1).status(404));
    assert_eq!(bad(client(registry.settings(HOST)).manifest(&name(), &tag()).await), "upstream_auth");
    registry.fault(Fault::on("/token").times(1).body(vec![b' '; (1 << 20) + 1]));
    assert_eq!(bad(client(registry.settings(HOST)).manifest(&name(), &tag()).await), "too_large");
    registry.fault(Fault::on("/token").times(1).status(429));
    let limited = client(registry.settings(HOST)).manifest(&name(), &tag()).await;
    assert!(matches!(limited, Err(UpstreamError::RateLimited { .. })));
    registry.heal();
    registry.fault(Fault::on("/token").times(2).status(503));
    assert!(client(registry.settings(HOST)).manifest(&name(), &tag()).await.is_ok(), "5xx of a realm is repeated");
}

#[tokio::test]
async fn u10_any_stated_life_of_a_token_is_survived() {
    for life in [json!(-1), json!(0), json!(1e18), json!("soon"), json!(null)] {
        let registry = guarded(TokenAuth::default().expires_in(life.clone())).await;
        let client = client(registry.settings(HOST));
        client.manifest(&name(), &tag()).await.unwrap();
        client.manifest(&name(), &tag()).await.unwrap();
        assert_eq!(registry.count("*", "/token"), 1, "{life}");
    }
}

#[tokio::test]
async fn a_token_that_was_voided_is_replaced_once() {
    let registry = guarded(TokenAuth::default()).await;
    let client = client(registry.settings(HOST));
    client.manifest(&name(), &tag()).await.unwrap();
    registry.revoke_tokens();
    age_tokens().await;
    client.manifest(&name(), &tag()).await.unwrap();
    assert_eq!(registry.count("*", "/token"), 2);
}

#[tokio::test]
async fn access_that_is_granted_later_is_found_with_a_fresh_token() {
    let registry = guarded(TokenAuth::for_user("robot", "hunter2")).await;
    let client = client(registry.settings(HOST));
    assert_eq!(refused(client.manifest(&name(), &tag()).await), 401);
    registry.set_auth(Auth::Token(TokenAuth::default()));
    assert_eq!(refused(client.manifest(&name(), &tag()).await), 401, "the token is seconds old");
    age_tokens().await;
    assert!(client.manifest(&name(), &tag()).await.is_ok());
}

/// CVE-2026-33540, CVE-2025-27403.
#[tokio::test]
async fn u15_credentials_go_to_no_realm_but_the_upstreams() {
    let trap = FakeRegistry::start().await;
    let realms = [
        format!(r#"Bearer realm="{}/token""#, trap.url()),
        format!(r#"Bearer realm="http://localhost:{}/token""#, trap.address().port()),
        format!(r#"Bearer realm="http://user:pw@127.0.0.1:{}/token""#, trap.address().port()),
        r#"Bearer realm="http://169.254.169.254/latest""#.to_owned(),
        r#"Bearer realm="/token""#.to_owned(),
        r#"Bearer realm="""#.to_owned(),
        r#"Bearer realm="file:///etc/passwd""#.to_owned(),
        format!(r#"Basic realm="x", Bearer realm="{}/token""#, trap.url()),
    ];
    for challenge in realms {
        let registry = guarded(TokenAuth::for_user("robot", "hunter2").challenge(&challenge)).await;
        let client = client(with_password(registry.settings(HOST), "hunter2"));
        assert_eq!(bad(client.manifest(&name(), &tag()).await), "realm_blocked", "{challenge}");
        assert!(registry.requests().iter().all(|request| request.header("authorization").is_none()), "{challenge}");
    }
    assert_eq!(trap.connections(), 0);
    let long = format!(r#"Bearer realm="{}/{}""#, trap.url(), "a".repeat(10 * 1024));
    for challenge in [long.as_str(), r#"Bearer service="x""#, "Bearer", "Negotiate"] {
        let registry = guarded(TokenAuth::for_user("robot", "hunter2").challenge(challenge)).await;
        let client = client(with_password(registry.settings(HOST), "hunter2"));
        assert_eq!(refused(client.manifest(&name(), &tag()).await), 401);
        assert!(registry.requests().iter().all(|request| request.header("authorization").is_none()));
    }
    assert_eq!(trap.connections(), 0);
}

/// CVE-2019-10214.
#[tokio::test]
async fn u15_an_https_upstream_has_no_http_realm() {
    let trap = FakeRegistry::start().await;
    let registry = FakeRegistry::builder().tls().start().await;
    registry.set_auth(Auth::Token(TokenAuth::default().challenge(format!(r#"Bearer realm="{}/token""#, trap.url()))));
    let mut settings = with_password(registry.settings(HOST), "hunter2");
    settings.auth_hosts = vec![trap.host()];
    assert_eq!(bad(client(settings).manifest(&name(), &tag()).await), "realm_blocked");
    assert_eq!(trap.connections(), 0);
}

/// go-containerregistry#2193.
#[tokio::test]
async fn u15_a_realm_that_redirects_is_not_followed() {
    let trap = FakeRegistry::start().await;
    let registry = guarded(TokenAuth::for_user("robot", "hunter2")).await;
    for status in [301, 302, 303, 307, 308] {
        registry.heal();
        registry.fault(Fault::on("/token").redirect(&format!("{}/token", trap.url())).status(status));
        let client = client(with_password(registry.settings(HOST), "hunter2"));
        assert_eq!(bad(client.manifest(&name(), &tag()).await), "realm_blocked", "{status}");
    }
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn u15_the_scope_of_a_challenge_is_never_taken() {
    let registry = guarded(TokenAuth::default()).await;
    let hostile = format!(
        r#"Bearer realm="{}/token?scope=registry:catalog:*",service="registry.test",scope="repository:*:*""#,
        registry.url()
    );
    registry.set_auth(Auth::Token(TokenAuth::default().challenge(hostile)));
    client(registry.settings(HOST)).manifest(&name(), &tag()).await.unwrap();
    let asked = &registry.requests_to("*", "/token")[0];
    assert_eq!(asked.query, "service=registry.test&scope=repository%3Ateam%2Fapp%3Apull");
}

#[tokio::test]
async fn a_listed_realm_elsewhere_is_asked() {
    let realm = FakeRegistry::builder().auth(Auth::Token(TokenAuth::for_user("robot", "hunter2"))).start().await;
    let challenge = format!(r#"Bearer realm="{}/token",service="registry.test""#, realm.url());
    let registry = guarded(TokenAuth::default().challenge(challenge)).await;
    let mut settings = with_password(registry.settings(HOST), "hunter2");
    assert_eq!(bad(client(settings.clone()).manifest(&name(), &tag()).await), "realm_blocked");
    settings.auth_hosts = vec![realm.host()];
    assert_eq!(refused(client(settings).manifest(&name(), &tag()).await), 401, "its tokens open nothing here");
    assert_eq!(realm.count("GET", "/token"), 1);
    assert!(realm.requests()[0].header("authorization").is_some());
}

#[tokio::test]
async fn a_blob_is_fetched_with_the_token_too() {
    let registry = guarded(TokenAuth::default()).await;
    let image = ImageBuilder::new(1).layer(1000).build();
    let client = client(registry.settings(HOST));
    assert_eq!(read_blob(&client, &image.blobs[1].digest).await.unwrap(), image.blobs[1].bytes);
}

/// artifact-keeper#3606.
#[tokio::test]
async fn two_upstreams_at_one_registry_do_not_share_tokens() {
    let registry = guarded(TokenAuth::for_user("robot", "hunter2")).await;
    let known = client(with_password(registry.settings(HOST), "hunter2"));
    let anonymous = client(registry.settings("other.test"));
    known.manifest(&name(), &tag()).await.unwrap();
    assert_eq!(refused(anonymous.manifest(&name(), &tag()).await), 401, "C-11");
}
