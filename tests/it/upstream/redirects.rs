//! Redirects: followed by hand, and only to places that may be asked.

use sealgate::testing::{Auth, FakeRegistry, Fault, ImageBuilder, TokenAuth};
use sealgate::upstream::Credentials;

use super::{HOST, bad, client, name, read_blob, registry, tag};

#[tokio::test]
async fn u11_three_hops_are_followed_and_four_are_not() {
    let (registry, image, client) = registry().await;
    let layer = &image.blobs[1];
    let path = format!("/v2/team/app/blobs/{}", layer.digest);
    registry.fault(Fault::on(&path).times(1).redirect("/hop/1"));
    registry.fault(Fault::on("/hop/1").redirect("2"));
    registry.fault(Fault::on("/hop/2").redirect(&format!("{}/hop/3", registry.url())));
    registry.fault(Fault::on("/hop/3").status(200).body(layer.bytes.clone()));
    assert_eq!(read_blob(&client, &layer.digest).await.unwrap(), layer.bytes);
    registry.heal();
    registry.forget_requests();
    registry.fault(Fault::on("*").redirect("/loop"));
    assert_eq!(bad(read_blob(&client, &layer.digest).await), "redirect");
    assert_eq!(registry.count("*", "*"), 4);
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "redirect");
}

#[tokio::test]
async fn u11_a_redirect_without_a_place_is_no_answer() {
    let (registry, _, client) = registry().await;
    registry.fault(Fault::on("*").times(1).status(302));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "redirect");
    registry.fault(Fault::on("*").times(1).redirect("/a").header("location", "/b"));
    assert_eq!(bad(client.manifest(&name(), &tag()).await), "redirect", "two of them");
}

#[tokio::test]
async fn u12_a_redirect_to_a_forbidden_place_is_not_followed() {
    let trap = FakeRegistry::start().await;
    let port = trap.address().port();
    let places = [
        "http://169.254.169.254/latest".to_owned(),
        "http://10.0.0.1/x".to_owned(),
        "http://192.168.1.1/x".to_owned(),
        "http://100.64.0.1/x".to_owned(),
        "http://[::ffff:169.254.169.254]/x".to_owned(),
        "http://[fd00:ec2::254]/x".to_owned(),
        "http://0.0.0.0/x".to_owned(),
        "http://2851995902/x".to_owned(),
        "http://0xa9.0xfe.0xa9.0xfe/x".to_owned(),
        format!("http://127.0.0.1:{port}/x"),
        format!("http://2130706433:{port}/x"),
        format!("http://0x7f.1:{port}/x"),
        format!("http://localhost:{port}/x"),
        format!("http://u:p@127.0.0.1:{port}/x"),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1/x".to_owned(),
        "https://cdn.example:22/x".to_owned(),
    ];
    for place in places {
        let (registry, image, client) = registry().await;
        registry.fault(Fault::on("*").redirect(&place));
        assert_eq!(bad(client.manifest(&name(), &tag()).await), "redirect_blocked", "{place}");
        assert_eq!(bad(read_blob(&client, &image.blobs[1].digest).await), "redirect_blocked", "{place}");
    }
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn u12_an_https_upstream_is_not_left_for_http() {
    let trap = FakeRegistry::start().await;
    let registry = FakeRegistry::builder().tls().start().await;
    registry.fault(Fault::on("*").redirect(&format!("{}/x", trap.url())));
    let mut settings = registry.settings(HOST);
    settings.redirect_hosts = vec![trap.host()];
    assert_eq!(bad(client(settings).manifest(&name(), &tag()).await), "redirect_blocked");
    assert_eq!(trap.connections(), 0);
}

/// CVE-2026-48978.
#[tokio::test]
async fn u13_no_secret_follows_a_redirect_to_another_place() {
    let storage = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(1000).build();
    storage.put("x", "1", &image);
    for auth in [Auth::basic("robot", "hunter2"), Auth::Token(TokenAuth::for_user("robot", "hunter2"))] {
        let registry = FakeRegistry::builder().auth(auth).start().await;
        registry.put("team/app", "1.0", &image);
        let mut settings = registry.settings(HOST);
        settings.credentials = Credentials::Static { username: "robot".to_owned(), password: "hunter2".to_owned() };
        settings.redirect_hosts = vec![storage.host()];
        let client = client(settings);
        client.manifest(&name(), &tag()).await.unwrap();
        storage.forget_requests();
        let layer = &image.blobs[1];
        let to = format!("{}/v2/x/blobs/{}", storage.url(), layer.digest);
        registry.fault(Fault::on("*/blobs/*").redirect(&to).header("set-cookie", "session=1"));
        assert_eq!(read_blob(&client, &layer.digest).await.unwrap(), layer.bytes);
        assert_eq!(read_blob(&client, &layer.digest).await.unwrap(), layer.bytes);
        assert_eq!(storage.requests().len(), 2);
        for request in storage.requests() {
            let mut sent: Vec<&str> = request.headers.keys().map(http::HeaderName::as_str).collect();
            sent.sort_unstable();
            assert_eq!(sent, ["accept", "accept-encoding", "host", "user-agent"]);
        }
        let back = registry.requests_to("GET", "*/blobs/*");
        assert!(back.iter().all(|request| request.header("authorization").is_some()));
        assert!(back.iter().all(|request| request.header("cookie").is_none()), "cookies are not kept");
    }
}

#[tokio::test]
async fn u13_a_password_is_not_shown_to_a_storage_that_asks_for_one() {
    let storage = FakeRegistry::builder().auth(Auth::basic("robot", "hunter2")).start().await;
    let (registry, image, _) = registry().await;
    let layer = &image.blobs[1].digest;
    registry.fault(Fault::on("*").redirect(&format!("{}/v2/x/blobs/{layer}", storage.url())));
    let mut settings = registry.settings(HOST);
    settings.credentials = Credentials::Static { username: "robot".to_owned(), password: "hunter2".to_owned() };
    settings.redirect_hosts = vec![storage.host()];
    let error = read_blob(&client(settings), layer).await.unwrap_err();
    assert!(matches!(error, sealgate::upstream::UpstreamError::Refused { status: 401, .. }), "{error:?}");
    assert_eq!(storage.requests().len(), 1);
    assert_eq!(storage.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn u13_a_detour_back_to_the_registry_carries_no_secret() {
    let (storage, registry) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = ImageBuilder::new(1).layer(1000).build();
    registry.put("team/app", "1.0", &image);
    registry.set_auth(Auth::basic("robot", "hunter2"));
    let private = ImageBuilder::new(2).build();
    registry.put("team/private", "1.0", &private);
    registry.fault(Fault::on("/v2/team/app/manifests/*").after(1).redirect(&format!("{}/x", storage.url())));
    storage.fault(Fault::on("*").redirect(&format!("{}/v2/team/private/manifests/1.0", registry.url())));
    let mut settings = registry.settings(HOST);
    settings.credentials = Credentials::Static { username: "robot".to_owned(), password: "hunter2".to_owned() };
    settings.redirect_hosts = vec![storage.host()];
    let error = client(settings).manifest(&name(), &tag()).await.unwrap_err();
    assert!(matches!(error, sealgate::upstream::UpstreamError::Refused { status: 401, .. }), "{error:?}");
    let detour = registry.requests_to("GET", "/v2/team/private/*");
    assert_eq!((detour.len(), detour[0].header("authorization")), (1, None));
}
