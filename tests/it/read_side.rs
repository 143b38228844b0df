//! The read side of the OCI distribution-spec, "Pull" and "Content Discovery", through the whole server: each test names its section.
//! `docs/conformance.md` lists every MUST and SHOULD with its tests, and is checked here.
//!
//! Read at v1.1.1 and at what stands on `main` after it, which is stricter.

use sealgate::oci::{Algorithm, Digest, MediaType};
use sealgate::testing::{BuiltImage, Content, Fault, ImageBuilder, Referrers};
use serde_json::{Value, json};

use crate::catalogue::{tests_by_name, tests_in};
use crate::parts::{ACCEPT_ANYTHING, Mirror, REJECT};
use crate::wire::{Answer, exchange, get, head};

const NAME: &str = "team/app";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn every_requirement_names_tests_that_exist_and_every_test_here_is_named() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/conformance.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.contains("| MUST") || line.contains("| SHOULD")).collect();
    assert!(rows.len() >= 40, "the page has {} requirements", rows.len());
    let tests = tests_by_name();
    let mut wrong = Vec::new();
    for row in &rows {
        let named: Vec<&str> = row.rsplit('|').nth(1).map(|cell| tests_in(cell).collect()).unwrap_or_default();
        if named.is_empty() {
            wrong.push(format!("no test: {row}"));
        }
        wrong.extend(named.iter().filter(|name| !tests.contains_key(**name)).map(|name| format!("no test {name}")));
    }
    let here = include_str!("read_side.rs").lines().filter_map(|line| line.strip_prefix("async fn "));
    let here = here.filter_map(|line| line.split_once('(')).map(|(name, _)| name);
    let ours =
        here.filter(|name| name.starts_with("pull_") || name.starts_with("discovery_") || name.starts_with("api_"));
    wrong.extend(ours.filter(|name| !page.contains(&format!("`{name}`"))).map(|name| format!("{name} has no row")));
    assert!(wrong.is_empty(), "docs/conformance.md:\n{}", wrong.join("\n"));
}

// ---- data ----

/// The data sets of the conformance program, each under its own tag.
fn data() -> Vec<(&'static str, BuiltImage)> {
    let image = ImageBuilder::new(1).layer(3000).layer(70_000).build();
    let arm = ImageBuilder::new(2).platform("linux", "arm64").layer(10).build();
    let manifest = Content::new(Algorithm::Sha256, MediaType::OciManifest.as_str(), "not pushed");
    let artefact = || ImageBuilder::artefact("application/vnd.example+json").layer_of("text/plain", "x", &[]);
    let mut custom = ImageBuilder::new(3).layer(100).build();
    let mut document: Value = serde_json::from_slice(&custom.manifest.bytes).unwrap();
    document["org.example.custom"] = json!({"hello": ["world", 1, null]});
    custom.manifest = Content::new(Algorithm::Sha256, MediaType::OciManifest.as_str(), document.to_string());
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    vec![
        ("index", ImageBuilder::index([image.clone(), arm]).build()),
        ("docker", ImageBuilder::new(8).docker().layer(10).build()),
        ("artefact", artefact().build()),
        ("subject", artefact().subject(image.descriptor()).annotation("org.example.note", "one").build()),
        ("missing-subject", artefact().subject(manifest.descriptor()).annotation("org.example.note", "two").build()),
        ("custom", custom),
        ("no-layers", ImageBuilder::new(4).build()),
        ("empty-blob", ImageBuilder::new(5).layer(0).layer(1).build()),
        ("sha512", ImageBuilder::new(6).sha512().layer(70_000).layer(5).build()),
        ("sha512-index", ImageBuilder::index([ImageBuilder::new(9).layer(7).build()]).sha512().build()),
        ("nondistributable", ImageBuilder::new(7).layer_of(foreign, "foreign", &[]).layer(9).build()),
        ("large", ImageBuilder::new(10).annotation("org.example.large", &"x".repeat(3_900_000)).build()),
        ("image", image),
    ]
}

async fn serving(data: &[(&str, BuiltImage)]) -> Mirror {
    let mirror = Mirror::start(ACCEPT_ANYTHING).await;
    for (tag, image) in data {
        mirror.upstream.put(NAME, tag, image);
    }
    mirror
}

fn manifest_path(reference: impl std::fmt::Display) -> String {
    format!("/v2/{NAME}/manifests/{reference}")
}

fn blob_path(digest: &Digest) -> String {
    format!("/v2/{NAME}/blobs/{digest}")
}

/// The answer has these bytes under this digest; its HEAD has the same headers and no body.
fn is_content(answer: &Answer, head: &Answer, digest: &Digest, bytes: &[u8], what: &str) {
    assert_eq!((answer.status, head.status), (200, 200), "{what}: {answer:?}");
    assert!(answer.body == bytes, "{what}: exactly these bytes");
    for answer in [answer, head] {
        assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()), "{what}");
        let stated: Digest = answer.header("docker-content-digest").unwrap().parse().unwrap();
        assert!(stated.matches(bytes), "{what}: {stated}");
        assert_eq!(stated, *digest, "{what}");
    }
    assert!(head.body.is_empty(), "{what}");
}

// ---- Determining Support ----

/// "Determining Support" (end-1).
#[tokio::test]
async fn api_the_base_answers_200() {
    let mirror = serving(&[]).await;
    for answer in [get(mirror.address, "/v2/", "").await, head(mirror.address, "/v2/", "").await] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
    }
    mirror.stop().await;
}

// ---- Pull ----

/// "Pulling manifests" (end-3) and "Checking if content exists in the registry", for every kind of manifest.
#[tokio::test]
async fn pull_every_kind_of_manifest_by_tag_and_digest_with_get_and_head() {
    let data = data();
    let mirror = serving(&data).await;
    for (tag, image) in &data {
        let sha256 = Digest::sha256(&image.manifest.bytes);
        for (reference, digest) in [((*tag).to_owned(), sha256), (image.digest().to_string(), image.digest())] {
            let path = manifest_path(&reference);
            let (head, answer) = (head(mirror.address, &path, "").await, get(mirror.address, &path, "").await);
            is_content(&answer, &head, &digest, &image.manifest.bytes, &format!("{tag} as {reference}"));
            for answer in [&answer, &head] {
                assert_eq!(
                    answer.header("content-type"),
                    Some(image.manifest.media_type.as_str()),
                    "{tag}: no parameter"
                );
            }
        }
    }
    mirror.stop().await;
}

/// "Pulling manifests": a sparse index is one, too.
#[tokio::test]
async fn pull_an_index_whose_children_are_not_there() {
    let mirror = serving(&[]).await;
    let index = ImageBuilder::index([ImageBuilder::new(1).layer(5).build()]).build();
    mirror.upstream.put_manifest(NAME, &index.manifest);
    mirror.upstream.tag(NAME, "sparse", index.digest());
    for reference in ["sparse".to_owned(), index.digest().to_string()] {
        let answer = get(mirror.address, &manifest_path(&reference), "").await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, index.manifest.bytes.as_ref()), "{reference}");
    }
    let child = get(mirror.address, &manifest_path(index.children[0].digest()), "").await;
    assert_eq!((child.status, child.code().as_str()), (404, "MANIFEST_UNKNOWN"));
    mirror.stop().await;
}

/// "Pulling manifests": 404 for what is not there, by tag, by digest, in an unknown repository.
#[tokio::test]
async fn pull_a_manifest_that_is_not_there_is_404() {
    let mirror = serving(&data()[..1]).await;
    let digests =
        [Digest::sha256(b"nothing"), Digest::of(Algorithm::Sha512, b"nothing")].map(|digest| digest.to_string());
    for reference in ["nothing", &digests[0], &digests[1]] {
        for name in [NAME, "team/unknown"] {
            let path = format!("/v2/{name}/manifests/{reference}");
            let (head, answer) = (head(mirror.address, &path, "").await, get(mirror.address, &path, "").await);
            assert_eq!((answer.status, head.status), (404, 404), "{path}");
            assert_eq!(answer.code(), "MANIFEST_UNKNOWN", "{path}");
        }
    }
    mirror.stop().await;
}

/// "Pull": a reference is a tag or a digest of the grammar, and nothing else reaches the registry behind.
#[tokio::test]
async fn pull_a_reference_that_is_none_is_refused() {
    let mirror = serving(&[]).await;
    let hex = "a".repeat(64);
    let wrong = [
        "sha256:baddigeststring".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha512:{hex}"),
        format!("md5:{hex}"),
        "t".repeat(129),
        ".tag".to_owned(),
        "-tag".to_owned(),
        "a:b".to_owned(),
    ];
    for reference in &wrong {
        let answer = get(mirror.address, &manifest_path(reference), "").await;
        assert!(matches!(answer.status, 400 | 404), "{reference}: {answer:?}");
    }
    for digest in &wrong[..4] {
        let blob = get(mirror.address, &format!("/v2/{NAME}/blobs/{digest}"), "").await;
        assert_eq!((blob.status, blob.code().as_str()), (400, "DIGEST_INVALID"), "{digest}");
    }
    assert_eq!(mirror.stop().await.upstream.count("*", "*"), 0);
}

/// "Pulling blobs" (end-2) and "Checking if content exists in the registry", cold and cached, by both algorithms.
#[tokio::test]
async fn pull_every_blob_with_get_and_head() {
    let data = data();
    let mirror = serving(&data).await;
    for (tag, image) in &data {
        for part in std::iter::once(image).chain(&image.children) {
            assert_eq!(get(mirror.address, &manifest_path(part.digest()), "").await.status, 200);
            for blob in &part.blobs {
                for round in ["cold", "cached"] {
                    let path = blob_path(&blob.digest);
                    let (head, answer) = (head(mirror.address, &path, "").await, get(mirror.address, &path, "").await);
                    let what = format!("{tag} {round} {}", blob.digest);
                    is_content(&answer, &head, &blob.digest, &blob.bytes, &what);
                }
            }
        }
    }
    mirror.stop().await;
}

/// "Pulling blobs": 404 for what is not there.
#[tokio::test]
async fn pull_a_blob_that_is_not_there_is_404() {
    let data = data();
    let mirror = serving(&data).await;
    let image = &data.last().unwrap().1;
    assert_eq!(get(mirror.address, &manifest_path("image"), "").await.status, 200);
    mirror.upstream.remove_blob(NAME, &image.blobs[1].digest);
    for digest in [Digest::sha256(b"nothing"), Digest::of(Algorithm::Sha512, b"nothing"), image.blobs[1].digest] {
        let answer = get(mirror.address, &blob_path(&digest), "").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UNKNOWN"), "{digest}");
    }
    assert_eq!(head(mirror.address, &blob_path(&Digest::sha256(b"nothing")), "").await.status, 404);
    mirror.stop().await;
}

/// "Pulling blobs": ranges as RFC 9110, section 14, says, with the cases of the conformance program.
#[tokio::test]
async fn pull_ranges_of_a_blob() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let builder = ImageBuilder::new(1).layer(3000);
        let image = if algorithm == Algorithm::Sha512 { builder.sha512().build() } else { builder.build() };
        let mirror = serving(&[("image", image.clone())]).await;
        assert_eq!(get(mirror.address, &manifest_path(image.digest()), "").await.status, 200);
        let blob = &image.blobs[1];
        let ask = async |range: &str| {
            get(mirror.address, &blob_path(&blob.digest), &format!("Range: bytes={range}\r\n")).await
        };
        for round in ["cold", "cached"] {
            for (range, first, last) in [
                ("500-1499", 500, 1499),
                ("500-", 500, 2999),
                ("-500", 2500, 2999),
                ("2000-5000", 2000, 2999),
                ("0-0", 0, 0),
            ] {
                let answer = ask(range).await;
                assert_eq!(
                    (answer.status, answer.body.as_slice()),
                    (206, &blob.bytes[first..=last]),
                    "{round} {range}"
                );
                assert_eq!(answer.header("content-range"), Some(format!("bytes {first}-{last}/3000").as_str()));
                assert_eq!(answer.header("accept-ranges"), Some("bytes"));
            }
            for range in ["500-0", "5000-10000", "3000-"] {
                let answer = ask(range).await;
                assert_eq!(
                    (answer.status, answer.header("content-range")),
                    (416, Some("bytes */3000")),
                    "{round} {range}"
                );
            }
        }
        mirror.stop().await;
    }
}

/// "Pulling manifests": what `Accept` says is advice; nothing is converted.
#[tokio::test]
async fn pull_a_manifest_whatever_types_are_accepted() {
    let data = data();
    let mirror = serving(&data).await;
    for (tag, image) in data.iter().filter(|(tag, _)| ["image", "index", "docker", "artefact"].contains(tag)) {
        for accept in
            ["", "Accept: */*\r\n", "Accept: text/html\r\n", "Accept: application/vnd.oci.image.manifest.v1+json\r\n"]
        {
            let answer = get(mirror.address, &manifest_path(tag), accept).await;
            assert_eq!((answer.status, answer.body.as_slice()), (200, image.manifest.bytes.as_ref()), "{tag} {accept}");
            assert_eq!(answer.header("content-type"), Some(image.manifest.media_type.as_str()), "{tag} {accept}");
        }
    }
    mirror.stop().await;
}

// ---- Content Discovery ----

async fn tags(mirror: &Mirror, query: &str) -> (Vec<String>, Option<String>) {
    let answer = get(mirror.address, &format!("/v2/{NAME}/tags/list{query}"), "").await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["name"], NAME);
    let tags = serde_json::from_value(answer.json()["tags"].clone()).unwrap();
    (tags, answer.header("link").map(str::to_owned))
}

/// "Listing Tags" (end-8a, end-8b): all of them, in order, in pages, after a tag.
#[tokio::test]
async fn discovery_tags_come_in_order_in_pages_and_after_a_tag() {
    let mirror = serving(&[]).await;
    let image = ImageBuilder::new(1).build();
    let mut expected: Vec<String> = ["b", "a", "Z", "1.10", "1.9", "_x", "latest"].map(str::to_owned).to_vec();
    for tag in &expected {
        mirror.upstream.put(NAME, tag, &image);
    }
    expected.sort();
    assert_eq!(tags(&mirror, "").await, (expected.clone(), None), "sorted by bytes");
    assert_eq!(tags(&mirror, "?n=0").await, (vec![], None), "an empty list, and no link");
    assert_eq!(tags(&mirror, "?n=100").await, (expected.clone(), None));
    assert_eq!(tags(&mirror, "?n=7").await, (expected.clone(), None), "exactly all of them");
    for n in 1..=7 {
        let (mut found, mut query) = (Vec::new(), format!("?n={n}"));
        loop {
            let (page, link) = tags(&mirror, &query).await;
            assert!(page.len() == n || link.is_none(), "fewer only on the last page");
            found.extend(page);
            let Some(link) = link else { break };
            let (target, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
            assert_eq!(rest, "; rel=\"next\"", "RFC 5988");
            query = target.strip_prefix(&format!("/v2/{NAME}/tags/list")).unwrap().to_owned();
        }
        assert_eq!(found, expected, "pages of {n}");
    }
    for (at, tag) in expected.iter().enumerate() {
        assert_eq!(
            tags(&mirror, &format!("?last={tag}")).await.0,
            expected[at + 1..],
            "not {tag} itself, and none before it"
        );
    }
    assert_eq!(tags(&mirror, "?last=1").await.0, expected[..], "a name and no number");
    let unknown = get(mirror.address, "/v2/team/unknown/tags/list", "").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "NAME_UNKNOWN"));
    mirror.stop().await;
}

/// The descriptors that the referrers API lists, and the answer.
async fn referrers(mirror: &Mirror, digest: &Digest, query: &str) -> (Answer, Vec<Value>) {
    let answer = get(mirror.address, &format!("/v2/{NAME}/referrers/{digest}{query}"), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some(INDEX), "no other type, no parameter");
    let index = answer.json();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(INDEX)));
    let listed = index["manifests"].as_array().unwrap().clone();
    (answer, listed)
}

/// "Listing Referrers" (end-12a): every descriptor says all that it has to, with the API behind us and without.
#[tokio::test]
async fn discovery_referrers_are_listed_with_type_size_and_annotations() {
    let data = data();
    for upstream in [Referrers::Api, Referrers::FallbackTag] {
        let mirror = serving(&data).await;
        mirror.upstream.set_referrers(upstream);
        let image = &data.last().unwrap().1;
        let by_config =
            ImageBuilder::new(20).config("application/vnd.example.config", "{}").subject(image.descriptor()).build();
        let index = ImageBuilder::index([]).subject(image.descriptor()).annotation("org.example.note", "three").build();
        mirror.upstream.put_untagged(NAME, &by_config);
        mirror.upstream.put_untagged(NAME, &index);
        let subject = &data.iter().find(|(tag, _)| *tag == "subject").unwrap().1;
        let (_, listed) = referrers(&mirror, &image.digest(), "").await;
        for (referrer, artifact_type, annotations) in [
            (subject, json!("application/vnd.example+json"), json!({"org.example.note": "one"})),
            (&by_config, json!("application/vnd.example.config"), Value::Null),
            (&index, Value::Null, json!({"org.example.note": "three"})),
        ] {
            let found = listed.iter().find(|entry| entry["digest"] == referrer.digest().to_string()).unwrap();
            assert_eq!(found["mediaType"], referrer.manifest.media_type, "{found}");
            assert_eq!(found["size"], referrer.manifest.bytes.len(), "{found}");
            assert_eq!(found["artifactType"], artifact_type, "{found}");
            assert_eq!(found["annotations"], annotations, "{found}");
        }
        assert_eq!(listed.len(), 3);
        mirror.stop().await;
    }
}

/// "Listing Referrers": never 404, an empty index where nothing refers, also to what was never pushed.
#[tokio::test]
async fn discovery_referrers_of_anything_are_an_index() {
    let data = data();
    let mirror = serving(&data).await;
    for digest in [Digest::sha256(b"random"), Digest::of(Algorithm::Sha512, b"random")] {
        assert!(referrers(&mirror, &digest, "").await.1.is_empty(), "{digest}");
    }
    let (_, of_the_missing) = referrers(&mirror, &Digest::sha256(b"not pushed"), "").await;
    assert_eq!(of_the_missing.len(), 1, "a subject need not be there");
    let sha512 = &data.iter().find(|(tag, _)| *tag == "sha512").unwrap().1;
    let of_sha512 = ImageBuilder::artefact("application/x").subject(sha512.descriptor()).build();
    mirror.upstream.put_untagged(NAME, &of_sha512);
    let (_, listed) = referrers(&mirror, &sha512.digest(), "").await;
    assert_eq!(listed[0]["digest"], of_sha512.digest().to_string());
    mirror.stop().await;
}

/// "Listing Referrers": an invalid digest is 400.
#[tokio::test]
async fn discovery_referrers_of_what_is_no_digest_are_400() {
    let mirror = serving(&[]).await;
    for digest in ["sha256:bad", "latest", "sha512:00"] {
        let answer = get(mirror.address, &format!("/v2/{NAME}/referrers/{digest}"), "").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"), "{digest}");
    }
    mirror.stop().await;
}

/// "Listing Referrers" (end-12b): the filter is applied and said to be, whether upstream filters or not.
#[tokio::test]
async fn discovery_referrers_are_filtered_by_type() {
    let data = data();
    for upstream in [Referrers::Api, Referrers::Unfiltered, Referrers::FallbackTag] {
        let mirror = serving(&data).await;
        mirror.upstream.set_referrers(upstream);
        let image = &data.last().unwrap().1;
        let other = ImageBuilder::artefact("application/other").subject(image.descriptor()).build();
        mirror.upstream.put_untagged(NAME, &other);
        let (answer, listed) = referrers(&mirror, &image.digest(), "?artifactType=application/other").await;
        assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"), "{upstream:?}");
        assert_eq!(listed.len(), 1, "{upstream:?}");
        assert_eq!(listed[0]["digest"], other.digest().to_string());
        let (answer, listed) = referrers(&mirror, &image.digest(), "?artifactType=application/nobody").await;
        assert_eq!((answer.header("oci-filters-applied"), listed.len()), (Some("artifactType"), 0), "{upstream:?}");
        let (answer, listed) = referrers(&mirror, &image.digest(), "").await;
        assert_eq!((answer.header("oci-filters-applied"), listed.len()), (None, 2), "{upstream:?}");
        mirror.stop().await;
    }
}

/// "Listing Referrers": pages of upstream are followed, so that clients need not.
#[tokio::test]
async fn discovery_referrers_of_many_pages_are_one_list() {
    let mirror = serving(&[]).await;
    let image = ImageBuilder::new(1).build();
    mirror.upstream.put(NAME, "image", &image);
    for number in 0..7 {
        let builder = ImageBuilder::artefact("application/x").subject(image.descriptor());
        mirror.upstream.put_untagged(NAME, &builder.annotation("org.example.number", &number.to_string()).build());
    }
    mirror.upstream.page_referrers(2);
    let (answer, listed) = referrers(&mirror, &image.digest(), "").await;
    assert_eq!((listed.len(), answer.header("link")), (7, None));
    mirror.stop().await;
}

// ---- Error Codes, Registry Proxying, what is not offered ----

/// "Error Codes": the body is JSON, its code is of the table.
#[tokio::test]
async fn api_errors_are_json_with_a_code_of_the_table() {
    const CODES: [&str; 14] = [
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "UNAUTHORIZED",
        "DENIED",
        "UNSUPPORTED",
        "TOOMANYREQUESTS",
    ];
    let data = data();
    let mirror = serving(&data).await;
    let broken = ["500", "503", "429", "403"];
    for status in broken {
        mirror.upstream.fault(Fault::on(&format!("/v2/broken/{status}/*")).status(status.parse().unwrap()));
    }
    mirror.set_policy(REJECT);
    let refused = get(mirror.address, &manifest_path("image"), "").await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "DENIED"));
    let mut targets = vec![
        manifest_path("nothing"),
        manifest_path("sha256:bad"),
        blob_path(&Digest::sha256(b"nothing")),
        "/v2/UPPER/manifests/x".to_owned(),
        "/v2/a/manifests/x?ns=unknown.example".to_owned(),
        format!("/v2/{NAME}/referrers/bad"),
        "/v2/team/unknown/tags/list".to_owned(),
        "/v2/_catalog".to_owned(),
    ];
    targets.extend(broken.map(|status| format!("/v2/broken/{status}/manifests/x")));
    targets.extend(broken.map(|status| format!("/v2/broken/{status}/tags/list")));
    for target in &targets {
        let answer = get(mirror.address, target, "").await;
        assert!(answer.status >= 400, "{target}: {}", answer.status);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{target}");
        let body = answer.json();
        let errors = body["errors"].as_array().unwrap();
        assert!(!errors.is_empty(), "{target}");
        for error in errors {
            assert!(CODES.contains(&error["code"].as_str().unwrap()), "{target}: {error}");
            assert!(error["message"].is_string(), "{target}: {error}");
        }
    }
    mirror.stop().await;
}

/// "Error Codes": a limit says when to come back.
#[tokio::test]
async fn api_a_limit_says_when_to_come_back() {
    let mirror = serving(&[]).await;
    mirror.upstream.fault(Fault::on("*").status(429).header("retry-after", "7"));
    for target in [manifest_path("x"), format!("/v2/{NAME}/tags/list")] {
        let answer = get(mirror.address, &target, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (429, "TOOMANYREQUESTS"), "{target}");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=7).contains(&seconds), "{target}: {seconds}");
    }
    mirror.stop().await;
}

/// "Registry Proxying": `ns` names the registry behind, and the answer says which it was.
#[tokio::test]
async fn api_a_namespace_is_answered_with_itself() {
    let data = data();
    let mirror = serving(&data).await;
    let image = &data.last().unwrap().1;
    assert_eq!(get(mirror.address, &manifest_path("image"), "").await.status, 200);
    for path in [
        manifest_path("image"),
        blob_path(&image.blobs[0].digest),
        format!("/v2/{NAME}/tags/list"),
        format!("/v2/{NAME}/referrers/{}", image.digest()),
    ] {
        let answer = get(mirror.address, &format!("{path}?ns=docker.io"), "").await;
        assert_eq!((answer.status, answer.header("oci-namespace")), (200, Some("docker.io")), "{path}");
    }
    mirror.stop().await;
}

/// "Push" and "Content Management" are not offered: 405 with the code for it, and nothing of it reaches upstream.
#[tokio::test]
async fn api_what_writes_is_unsupported() {
    let mirror = serving(&[]).await;
    let digest = Digest::sha256(b"x");
    for (method, path) in [
        ("POST", format!("/v2/{NAME}/blobs/uploads/")),
        ("PUT", manifest_path("x")),
        ("DELETE", manifest_path("x")),
        ("DELETE", blob_path(&digest)),
        ("PATCH", format!("/v2/{NAME}/blobs/uploads/1")),
    ] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: mirror\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let answer = exchange(mirror.address, request).await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"), "{method} {path}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method} {path}");
    }
    assert_eq!(mirror.stop().await.upstream.count("*", "*"), 0);
}
