//! Tag lists and referrers, as they stand on the wire (distribution-spec v1.1, "Content Discovery").

use sealgate::oci::Digest;
use sealgate::testing::{Fault, ImageBuilder};

use crate::parts::{ACCEPT_ANYTHING, Mirror};
use crate::wire::{Answer, get, head};

fn tags(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_value(answer.json()["tags"].clone()).unwrap()
}

/// A mirror whose upstream has `library/app` with the tags `t00` to `t<count - 1>`.
async fn with_tags(count: usize) -> Mirror {
    let mirror = Mirror::start(ACCEPT_ANYTHING).await;
    let image = ImageBuilder::new(1).build();
    for n in 0..count {
        mirror.upstream.put("library/app", &format!("t{n:02}"), &image);
    }
    mirror
}

#[tokio::test]
async fn tags_are_listed_page_by_page_under_the_name_that_was_asked_for() {
    let mirror = with_tags(5).await;
    let mut target = "/v2/docker.io/library/app/tags/list?n=2&ns=docker.io".to_owned();
    let mut pages = Vec::new();
    loop {
        let answer = get(mirror.address, &target, "").await;
        assert_eq!(answer.json()["name"], "docker.io/library/app");
        assert_eq!(answer.header("oci-namespace"), Some("docker.io"));
        pages.push(tags(&answer));
        let Some(link) = answer.header("link") else { break };
        let (next, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert_eq!(rest, "; rel=\"next\"");
        assert!(next.starts_with("/v2/docker.io/library/app/tags/list?n=2&last=t"), "{next}");
        next.clone_into(&mut target);
    }
    assert_eq!(pages, [vec!["t00", "t01"], vec!["t02", "t03"], vec!["t04"]]);
    mirror.stop().await;
}

#[tokio::test]
async fn p21_the_edges_of_a_page() {
    let mirror = with_tags(3).await;
    let ask = async |query: &str| get(mirror.address, &format!("/v2/app/tags/list{query}"), "").await;
    let none = ask("?n=0").await;
    assert_eq!((tags(&none), none.header("link")), (vec![], None));
    let all = ask("").await;
    assert_eq!((tags(&all), all.header("link")), (vec!["t00".into(), "t01".into(), "t02".into()], None));
    assert_eq!(tags(&ask("?last=t00").await), ["t01", "t02"]);
    assert_eq!(tags(&ask("?last=t005").await), ["t01", "t02"], "last need not be a tag that exists");
    assert_eq!(tags(&ask("?n=99999999999999999999").await).len(), 3);
    for request in mirror.upstream.requests_to("GET", "*/tags/list") {
        let n = request.query.split('&').find_map(|pair| pair.strip_prefix("n=")).unwrap_or("0");
        assert!(n.parse::<usize>().unwrap() <= 1000, "{}", request.query);
    }
    assert_eq!(ask("?n=0").await.status, 200);
    for query in ["", "?n=0"] {
        let unknown = get(mirror.address, &format!("/v2/library/nowhere/tags/list{query}"), "").await;
        assert_eq!((unknown.status, unknown.code().as_str()), (404, "NAME_UNKNOWN"), "{query}");
    }
    assert_eq!(head(mirror.address, "/v2/app/tags/list", "").await.status, 200);
    mirror.stop().await;
}

#[tokio::test]
async fn upstreams_failures_of_a_list_keep_the_status_that_fits() {
    let mirror = with_tags(1).await;
    let docker = "User-Agent: docker/20.10.24\r\n";
    // The limit comes last: it keeps upstream from being asked for a while.
    for (upstream, status, code) in [(403, 403, "DENIED"), (404, 404, "NAME_UNKNOWN"), (429, 429, "TOOMANYREQUESTS")] {
        mirror.upstream.fault(Fault::on("*/tags/list").status(upstream));
        let answer = get(mirror.address, "/v2/app/tags/list", docker).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.header("retry-after").is_some(), upstream == 429);
        mirror.upstream.heal();
    }
    mirror.stop().await;
}

#[tokio::test]
async fn referrers_are_always_an_index_and_filtered_on_request() {
    let mirror = Mirror::start(ACCEPT_ANYTHING).await;
    let image = ImageBuilder::new(1).layer(100).build();
    let sbom = ImageBuilder::artefact("application/spdx+json").subject(image.descriptor()).build();
    let other = ImageBuilder::artefact("application/vnd.x+json").subject(image.descriptor()).layer(5).build();
    mirror.upstream.put("library/app", "1", &image);
    mirror.upstream.put_untagged("library/app", &sbom);
    mirror.upstream.put_untagged("library/app", &other);
    let ask = async |digest: &Digest, query: &str| {
        let answer = get(mirror.address, &format!("/v2/app/referrers/{digest}{query}"), "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
        let index = answer.json();
        assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&2.into(), &answer.header("content-type").into()));
        (answer, index["manifests"].as_array().unwrap().clone())
    };
    let (all, found) = ask(&image.digest(), "").await;
    assert_eq!((found.len(), all.header("oci-filters-applied")), (2, None));
    for query in ["?artifactType=application%2Fspdx%2Bjson", "?artifactType=application/spdx+json"] {
        let (filtered, found) = ask(&image.digest(), query).await;
        assert_eq!(found.len(), 1, "{query}");
        assert_eq!(found[0]["digest"], sbom.digest().to_string());
        assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    }
    let (_, nothing) = ask(&Digest::sha256(b"nobody"), "").await;
    assert!(nothing.is_empty());
    mirror.stop().await;
}
