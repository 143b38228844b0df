//! Referrers and tags.

use sealgate::limits::{REFERRERS_MAX, REFERRERS_PAGES_MAX};
use sealgate::oci::{Digest, MediaType};
use sealgate::testing::{FakeRegistry, Fault, ImageBuilder, Referrers};
use sealgate::upstream::UpstreamError;
use serde_json::{Value, json};

use super::{bad, name, registry};

fn index(entries: impl IntoIterator<Item = Value>) -> String {
    let entries: Vec<Value> = entries.into_iter().collect();
    json!({ "schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "manifests": entries }).to_string()
}

fn entry(number: usize) -> Value {
    let digest = Digest::sha256(&number.to_be_bytes()).to_string();
    json!({ "mediaType": MediaType::OciManifest.as_str(), "digest": digest, "size": 1, "artifactType": "a/b" })
}

#[tokio::test]
async fn referrers_are_listed_with_type_and_annotations() {
    let (registry, image, client) = registry().await;
    let none = client.referrers(&name(), &image.digest()).await.unwrap().unwrap();
    assert!(none.manifests.is_empty() && !none.more);
    let artefact = ImageBuilder::artefact("application/vnd.example")
        .subject(image.descriptor())
        .annotation("k", "v")
        .layer_of("text/plain", "x", &[])
        .build();
    registry.put_untagged("team/app", &artefact);
    let list = client.referrers(&name(), &image.digest()).await.unwrap().unwrap();
    assert_eq!(list.manifests.len(), 1);
    assert_eq!(list.manifests[0].digest, artefact.digest());
    assert_eq!(list.manifests[0].artifact_type.as_deref(), Some("application/vnd.example"));
    assert_eq!(list.manifests[0].annotations["k"], "v");
}

#[tokio::test]
async fn u25_only_a_404_means_that_there_is_no_referrers_api() {
    let (registry, image, client) = registry().await;
    registry.set_referrers(Referrers::FallbackTag);
    assert!(client.referrers(&name(), &image.digest()).await.unwrap().is_none());
    for status in [400, 403, 405, 429, 500, 503] {
        let (registry, image, client) = self::registry().await;
        registry.fault(Fault::on("*/referrers/*").status(status));
        assert!(client.referrers(&name(), &image.digest()).await.is_err(), "{status}");
    }
    registry.set_referrers(Referrers::Api);
    let path = "*/referrers/*";
    registry.fault(Fault::on(path).times(1).header("link", r#"<?page=2>; rel="next""#));
    registry.fault(Fault::on(path).status(404));
    let second_page_missing = client.referrers(&name(), &image.digest()).await;
    assert!(matches!(second_page_missing, Err(UpstreamError::NotFound { .. })), "{second_page_missing:?}");
}

#[tokio::test]
async fn u24_pages_and_entries_are_bounded_and_said_to_be_incomplete() {
    let (registry, image, client) = registry().await;
    let path = "*/referrers/*";
    for page in 0..2 * REFERRERS_PAGES_MAX {
        let link = format!(r#"<?page={}>; rel="next""#, page + 1);
        registry.fault(Fault::on(path).times(1).body(index([entry(page)])).header("link", link));
    }
    let list = client.referrers(&name(), &image.digest()).await.unwrap().unwrap();
    assert_eq!((list.manifests.len(), list.more), (REFERRERS_PAGES_MAX, true));
    assert_eq!(registry.count("*", path), REFERRERS_PAGES_MAX);
    for (count, more) in [(REFERRERS_MAX, false), (REFERRERS_MAX + 1, true), (3000, true)] {
        registry.heal();
        registry.fault(Fault::on(path).body(index((0..count).map(entry))));
        let list = client.referrers(&name(), &image.digest()).await.unwrap().unwrap();
        assert_eq!((list.manifests.len(), list.more), (REFERRERS_MAX, more), "{count}");
    }
}

#[tokio::test]
async fn u24_a_link_that_loops_or_leads_elsewhere_is_not_followed() {
    let trap = FakeRegistry::start().await;
    let (registry, image, client) = registry().await;
    let path = format!("/v2/team/app/referrers/{}", image.digest());
    let links = [
        (format!("<{path}>"), 1),
        ("<?page=1>".to_owned(), 2),
        (format!("<{}{path}?page=2>", trap.url()), 1),
        ("</v2/team/other/referrers/x>".to_owned(), 1),
        ("</v2/_catalog>".to_owned(), 1),
    ];
    for (link, requests) in links {
        registry.heal();
        registry.forget_requests();
        registry.fault(Fault::on("*").body(index([entry(1)])).header("link", format!("{link}; rel=\"next\"")));
        let list = client.referrers(&name(), &image.digest()).await.unwrap().unwrap();
        assert!(list.more, "{link}");
        assert_eq!(registry.count("*", "*"), requests, "{link}");
    }
    assert_eq!(trap.connections(), 0);
}

#[tokio::test]
async fn u24_a_list_that_is_no_index_is_no_answer() {
    let (registry, image, client) = registry().await;
    let rows = [
        (Fault::on("*").content_type("application/json"), "media_type"),
        (Fault::on("*").content_type(MediaType::OciManifest.as_str()), "media_type"),
        (Fault::on("*").without_header("content-type"), "media_type"),
        (Fault::on("*").body(""), "protocol"),
        (Fault::on("*").body("null"), "protocol"),
        (Fault::on("*").body("{}"), "protocol"),
        (Fault::on("*").body(r#"{"manifests":{}}"#), "protocol"),
        (Fault::on("*").body(r#"{"manifests":[],"manifests":[]}"#), "protocol"),
        (Fault::on("*").body(r#"{"manifests":[],"Manifests":[]}"#), "protocol"),
        (Fault::on("*").body(r#"{"mediaType":"x/y","manifests":[]}"#), "protocol"),
        (Fault::on("*").body("[".repeat(100_000)), "protocol"),
        (Fault::on("*").truncate(10), "truncated"),
        (Fault::on("*").endless(), "too_large"),
        (Fault::on("*").status(204), "protocol"),
        (Fault::on("*").header("content-encoding", "gzip"), "content_encoding"),
    ];
    for (fault, reason) in rows {
        registry.heal();
        registry.fault(fault.clone());
        assert_eq!(bad(client.referrers(&name(), &image.digest()).await), reason, "{fault:?}");
    }
}

#[tokio::test]
async fn u24_an_entry_that_is_no_descriptor_is_passed_over_and_counted() {
    let (registry, image, client) = registry().await;
    let mut malformed = entry(2);
    malformed["digest"] = json!("sha256:00");
    registry.fault(Fault::on("*").body(index([entry(1), malformed, json!(1), entry(3)])));
    let list = client.referrers(&name(), &image.digest()).await.unwrap().unwrap();
    assert_eq!((list.manifests.len(), list.skipped, list.more), (2, 2, false));
}

#[tokio::test]
async fn tags_come_page_by_page() {
    let (registry, image, client) = registry().await;
    for tag in ["a", "b", "c"] {
        registry.put("team/app", tag, &image);
    }
    let page = client.tags(&name(), 2, Some("1.0")).await.unwrap();
    assert_eq!(page.tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b"]);
    assert!(page.more);
    let page = client.tags(&name(), 2, Some("b")).await.unwrap();
    assert_eq!((page.tags.len(), page.more), (1, false));
    assert_eq!(registry.requests().last().unwrap().query, "n=2&last=b");
}

#[tokio::test]
async fn a_tag_list_is_read_strictly_and_bad_tags_are_left_out() {
    let (registry, _, client) = registry().await;
    let rows = [
        (r#"{"name":"x","tags":["good","-bad","a b",7]}"#, Some(1)),
        (r#"{"name":"x","tags":null}"#, Some(0)),
        (r#"{"name":"x"}"#, Some(0)),
        (r#"{"tags":{}}"#, None),
        ("{}", None),
        ("<html>", None),
        (r#"{"tags":[],"tags":["x"]}"#, None),
    ];
    for (body, count) in rows {
        registry.heal();
        registry.fault(Fault::on("*").body(body));
        match count {
            Some(count) => assert_eq!(client.tags(&name(), 10, None).await.unwrap().tags.len(), count, "{body}"),
            None => assert_eq!(bad(client.tags(&name(), 10, None).await), "protocol", "{body}"),
        }
    }
}
