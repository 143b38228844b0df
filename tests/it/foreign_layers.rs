//! Layers that say where else they could be fetched.

use sealgate::oci::{Algorithm, MediaType};
use sealgate::testing::{ACCEPT_ANYTHING, Content, FakeRegistry, ImageBuilder, RawServer, TestSealgate};

/// CVE-2020-15157.
#[tokio::test]
async fn v_28_the_urls_of_a_foreign_layer_are_never_followed() {
    let (registry, trap) = (FakeRegistry::start().await, RawServer::answering("HTTP/1.1 200 OK\r\n\r\n").await);
    let image = ImageBuilder::new(28).layer(1000).build();
    registry.put_untagged("team/app", &image);
    let layer = &image.blobs[1];
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
    manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{}/layer", trap.address())]);
    let manifest = Content::new(Algorithm::Sha256, MediaType::OciManifest.as_str(), manifest.to_string());
    registry.put_manifest("team/app", &manifest);
    registry.tag("team/app", "1", manifest.digest);
    let mirror = TestSealgate::with_policy(ACCEPT_ANYTHING).upstream("registry.test", registry.url()).start().await;

    assert_eq!(mirror.get("/v2/team/app/manifests/1").await.body, manifest.bytes);
    // The layer is a blob like any other: asked of the upstream, here when it has it and 404 when it does not.
    let blob = format!("/v2/team/app/blobs/{}", layer.digest);
    registry.remove_blob("team/app", &layer.digest);
    assert_eq!(mirror.get(&blob).await.status, 404);
    registry.put_blob("team/app", layer.bytes.clone());
    let answer = mirror.get(&blob).await;
    assert_eq!((answer.status, answer.body), (200, layer.bytes.clone()));
    assert_eq!(trap.requests().len(), 0);
    mirror.stop().await;
}
