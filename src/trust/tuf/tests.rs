//! The TUF client against a repository that breaks exactly one thing (threats: policy-formats.md §4, T14).

use sigstore_tuf::Error;

use super::*;
use crate::clock::Timestamp;
use crate::testing::sigstore::FakeSigstore;
use crate::testing::{FakeTuf, TufRole};

/// A repository with the trust root of [`root_json`]`(1)`, and a client with an empty directory.
struct Scene {
    tuf: FakeTuf,
    settings: Settings,
    now: Timestamp,
    /// The trust root that it serves first.
    first: String,
    dir: tempfile::TempDir,
}

fn root_json(seed: u64) -> String {
    FakeSigstore::from_seed(seed, NOW.parse().unwrap()).trusted_root_json()
}

const NOW: &str = "2026-11-20T00:00:00Z";

impl Scene {
    async fn new() -> Self {
        let now: Timestamp = NOW.parse().unwrap();
        let first = root_json(1);
        let tuf = FakeTuf::start(1, &first, now).await;
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            url: tuf.url(),
            bootstrap: tuf.bootstrap().into(),
            state_dir: dir.path().join("data/trust"),
            refresh: None,
            ca_pem: None,
            proxy: None,
            addresses: Addresses::Loopback,
        };
        Self { tuf, settings, now, first, dir }
    }

    async fn update(&self) -> Result<Update, TufError> {
        update(&self.settings, self.now).await
    }

    /// The update is refused for breaking a rule, and what was in force stays in force.
    async fn refused(&self) -> Error {
        let before = self.kept();
        let error = match self.update().await {
            Err(TufError::Refused { source, .. }) => *source,
            other => panic!("{other:?}"),
        };
        assert_eq!(self.kept(), before);
        error
    }

    fn stored(&self) -> Result<TrustRoot, TrustError> {
        stored(&self.settings)
    }

    /// The root that a start would use.
    fn kept(&self) -> Option<crate::oci::Digest> {
        self.stored().ok().map(|root| root.fingerprint)
    }
}

#[tokio::test]
async fn a_first_update_fetches_checks_and_keeps_and_a_start_without_network_uses_it() {
    let scene = Scene::new().await;
    assert!(
        matches!(scene.stored(), Err(TrustError::Stored { source }) if matches!(*source, StateError::Absent { .. }))
    );
    let update = scene.update().await.unwrap();
    assert!(update.changed() && update.before.is_none() && update.tuf_root == (1, 1));
    assert_eq!(update.added().count(), update.root.trusted.len());
    let stored = scene.stored().unwrap();
    assert_eq!(stored.fingerprint, crate::oci::Digest::sha256(scene.first.as_bytes()));
    assert_eq!((stored.as_of, stored.source.kind()), (Some(scene.now), "tuf"));
    assert_eq!(std::fs::read_to_string(scene.settings.trusted_root_path()).unwrap(), scene.first);
    let names: Vec<_> = std::fs::read_dir(&scene.settings.state_dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[tokio::test]
async fn an_update_says_who_was_added_and_removed_and_asks_for_little_when_nothing_changed() {
    let mut scene = Scene::new().await;
    scene.update().await.unwrap();
    scene.tuf.requests();
    let same = scene.update().await.unwrap();
    assert!(!same.changed() && same.added().count() == 0 && same.removed().count() == 0);
    assert_eq!(scene.tuf.requests(), ["/2.root.json", "/timestamp.json"]);

    scene.tuf.publish(&root_json(2));
    let other = scene.update().await.unwrap();
    assert!(other.changed());
    let all = other.root.trusted.len();
    assert_eq!((other.added().count(), other.removed().count()), (all, all));
    assert_eq!(scene.kept(), Some(other.root.fingerprint));
}

#[tokio::test]
async fn a_chain_of_roots_is_followed_and_each_must_be_signed_by_the_one_before() {
    let mut scene = Scene::new().await;
    let old = [FakeTuf::key(1, "root"), FakeTuf::key(1, "second")];
    scene.tuf.roles.root.keys = vec![FakeTuf::key(1, "second")];
    scene.tuf.roles.root.signers = old.into();
    scene.tuf.publish_root();
    assert_eq!(scene.update().await.unwrap().tuf_root, (1, 2));

    // The third is signed by its own key alone.
    scene.tuf.roles.root.keys = vec![scene.tuf.other_key("root")];
    scene.tuf.roles.root.signers = vec![scene.tuf.other_key("root")];
    scene.tuf.publish_root();
    assert!(matches!(scene.refused().await, Error::ThresholdNotMet { .. }));

    // And this one by the old one's alone.
    scene.tuf.roles.root.version = 3;
    scene.tuf.roles.root.signers = vec![FakeTuf::key(1, "second")];
    scene.tuf.publish_root();
    assert!(matches!(scene.refused().await, Error::ThresholdNotMet { .. }));
}

#[tokio::test]
async fn a_root_that_was_replaced_stays_replaced_even_when_the_refresh_fails_later() {
    let mut scene = Scene::new().await;
    scene.update().await.unwrap();
    let before = scene.tuf.snapshot();
    // The timestamp's key was stolen, and is taken back.
    scene.tuf.roles.root.signers = scene.tuf.roles.root.keys.drain(..).collect();
    scene.tuf.roles.root.keys = vec![FakeTuf::key(1, "root")];
    scene.tuf.roles.timestamp.keys = vec![scene.tuf.other_key("timestamp")];
    scene.tuf.publish_root();
    assert!(matches!(scene.refused().await, Error::ThresholdNotMet { .. }), "its timestamp is by the old key");
    // The thief hides the new root.
    scene.tuf.restore(before);
    assert!(matches!(scene.refused().await, Error::ThresholdNotMet { .. }));
    assert!(scene.stored().is_ok(), "what was good when it was fetched is still in force");
}

/// T14, CVE-2022-29173 (go-tuf: a client that accepts older metadata than it has seen).
#[tokio::test]
async fn t14_cve_2022_29173_no_role_goes_back_to_an_older_version() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut scene = Scene::new().await;
        scene.tuf.publish(&root_json(2));
        scene.tuf.publish(&root_json(3));
        scene.update().await.unwrap();
        let roles = &mut scene.tuf.roles;
        match role {
            "timestamp" => roles.timestamp.version = 2,
            "snapshot" => roles.snapshot.version = 2,
            _ => roles.targets.version = 2,
        }
        scene.tuf.publish(&root_json(4));
        let error = scene.refused().await;
        assert!(matches!(error, Error::Rollback { .. }), "{role}: {error:?}");
    }
}

/// The whole repository as it was some time ago, every signature of it good.
#[tokio::test]
async fn t14_cve_2022_29173_a_repository_set_back_as_a_whole_is_refused() {
    let mut scene = Scene::new().await;
    let old = scene.tuf.snapshot();
    scene.tuf.publish(&root_json(2));
    scene.update().await.unwrap();
    scene.tuf.restore(old);
    assert!(matches!(scene.refused().await, Error::Rollback { .. }));
}

#[tokio::test]
async fn t14_a_root_of_another_version_than_the_next_is_refused() {
    for version in [1, 2, 4] {
        let mut scene = Scene::new().await;
        scene.tuf.publish_root();
        scene.update().await.unwrap();
        scene.tuf.roles.root.version = version;
        let root = scene.tuf.publish_root();
        scene.tuf.put("3.root.json", &root);
        assert!(matches!(scene.refused().await, Error::BadRootVersion { trusted: 2, .. }), "{version}");
    }
}

/// T14, freeze: metadata that has ended is not believed, whoever signed it; the end itself still counts.
#[tokio::test]
async fn t14_expired_metadata_is_refused_and_what_was_kept_stays_in_force_with_a_warning() {
    type Of = fn(&mut FakeTuf) -> &mut TufRole;
    let roles: [Of; 4] = [
        |tuf| &mut tuf.roles.root,
        |tuf| &mut tuf.roles.timestamp,
        |tuf| &mut tuf.roles.snapshot,
        |tuf| &mut tuf.roles.targets,
    ];
    for role in roles {
        let mut scene = Scene::new().await;
        scene.update().await.unwrap();
        let now = scene.now;
        role(&mut scene.tuf).expires = now.minus(Duration::from_secs(1));
        scene.tuf.publish_root();
        scene.tuf.publish(&root_json(2));
        assert!(matches!(scene.refused().await, Error::Expired { .. }));
    }
    let mut scene = Scene::new().await;
    scene.tuf.roles.timestamp.expires = scene.now;
    scene.tuf.publish(&root_json(2));
    let root = scene.update().await.unwrap().root;
    assert_eq!(root.expires, Some(scene.now));
    assert!(!root.warnings(scene.now).iter().any(|warning| warning.contains("expired")));
    let later = scene.now.plus(Duration::from_millis(1));
    assert!(root.warnings(later)[0].contains("expired"), "{:?}", root.warnings(later));
    assert!(matches!(
        update(&scene.settings, scene.now.plus(Duration::from_hours(400 * 24))).await,
        Err(TufError::Refused { .. })
    ));
    assert!(scene.stored().is_ok());
}

/// T14, CVE-2026-23992 (go-tuf: a threshold of 0 is met by nobody's signature).
#[tokio::test]
async fn t14_cve_2026_23992_a_threshold_of_nobody_is_refused_and_a_threshold_of_two_needs_two_keys() {
    let mut scene = Scene::new().await;
    scene.update().await.unwrap();
    scene.tuf.roles.timestamp.threshold = 0;
    scene.tuf.publish_root();
    scene.tuf.roles.timestamp.signers = vec![scene.tuf.other_key("timestamp")];
    scene.tuf.publish(&root_json(2));
    assert!(matches!(scene.refused().await, Error::Malformed(_)));

    let mut scene = Scene::new().await;
    let keys = [FakeTuf::key(1, "timestamp"), scene.tuf.other_key("timestamp")];
    scene.tuf.roles.timestamp.keys = keys.into();
    scene.tuf.roles.timestamp.threshold = 2;
    scene.tuf.publish_root();
    scene.tuf.publish(&root_json(2));
    scene.update().await.unwrap();
    // One key twice is one key.
    for signers in
        [vec![FakeTuf::key(1, "timestamp")], vec![FakeTuf::key(1, "timestamp"), FakeTuf::key(1, "timestamp")]]
    {
        scene.tuf.roles.timestamp.signers = signers;
        scene.tuf.publish(&root_json(3));
        let error = scene.refused().await;
        assert!(matches!(error, Error::ThresholdNotMet { .. } | Error::DuplicateSignature { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn t14_a_role_signed_by_a_key_that_the_root_does_not_name_is_refused() {
    for role in 0..3 {
        let mut scene = Scene::new().await;
        scene.update().await.unwrap();
        let key = scene.tuf.other_key("any");
        let roles = &mut scene.tuf.roles;
        [&mut roles.timestamp, &mut roles.snapshot, &mut roles.targets][role].signers = vec![key];
        scene.tuf.publish(&root_json(2));
        assert!(matches!(scene.refused().await, Error::ThresholdNotMet { found: 0, .. }), "{role}");
    }
}

/// T14, CVE-2024-47534 (go-tuf: a wrong delegation is trusted). Nobody but the top-level role may name the trust root.
#[tokio::test]
async fn t14_cve_2024_47534_a_delegated_role_cannot_name_the_trust_root() {
    let mut scene = Scene::new().await;
    scene.update().await.unwrap();
    let delegated = json_key(&scene.tuf.other_key("delegated"));
    scene.tuf.publish_signed_targets(&serde_json::json!({
        "targets": {},
        "delegations": {
            "keys": {"k": delegated},
            "roles": [{"name": "other", "keyids": ["k"], "threshold": 1, "paths": ["*"], "terminating": false}],
        },
    }));
    scene.tuf.requests();
    assert!(matches!(scene.refused().await, Error::TargetNotFound(_)));
    assert!(!scene.tuf.requests().iter().any(|path| path.contains("other")), "it is not even asked for");
}

fn json_key(key: &crate::testing::sigstore::FakeKey) -> serde_json::Value {
    serde_json::json!({"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": key.public_pem()}})
}

/// T14, CVE-2026-23991 (go-tuf: a malformed answer ends the client).
#[tokio::test]
async fn t14_cve_2026_23991_malformed_metadata_is_refused_and_harms_nothing() {
    let bad = [
        "",
        "null",
        "[]",
        "{}",
        "{\"signed\":{},\"signatures\":[]}",
        "{\"signed\":null,\"signatures\":null}",
        "{\"signed\":{\"_type\":\"timestamp\",\"version\":-1},\"signatures\":[]}",
        "{\"signed\":{\"_type\":\"timestamp\",\"version\":1.5},\"signatures\":[{}]}",
    ];
    let deep = "[".repeat(15_000);
    for document in bad.into_iter().chain([deep.as_str()]) {
        let scene = Scene::new().await;
        scene.update().await.unwrap();
        scene.tuf.put("timestamp.json", document.as_bytes());
        scene.refused().await;
        scene.tuf.put("2.root.json", document.as_bytes());
        scene.refused().await;
    }
}

/// T14, CVE-2026-24137 and CVE-2026-24686 (target and role names that lead out of the cache's directory).
#[tokio::test]
async fn t14_cve_2026_24137_cve_2026_24686_no_name_leads_out_of_the_folder_on_disk_or_on_the_server() {
    for hash in ["../../../up", "..", "/etc", "//other.example/x", "a/b", "%2e%2e%2f", "a?b", "a\\b", ""] {
        let mut scene = Scene::new().await;
        scene.update().await.unwrap();
        let hashes = serde_json::json!({ "sha256": hash });
        scene.tuf.publish_targets(&serde_json::json!({"trusted_root.json": {"length": 5, "hashes": hashes}}));
        scene.tuf.requests();
        let error = scene.refused().await;
        assert!(matches!(error, Error::Malformed(_) | Error::IntegrityMismatch(_)), "{hash}: {error:?}");
        assert!(!scene.tuf.requests().iter().any(|path| path.starts_with("/targets/")), "{hash}");
    }
    // A target of such a name is one that nobody asked for.
    let mut scene = Scene::new().await;
    let entry = serde_json::json!({"length": 1, "hashes": {"sha256": "00"}});
    scene.tuf.publish_targets(&serde_json::json!({"../trusted_root.json": entry, "/trusted_root.json": entry}));
    assert!(matches!(scene.refused().await, Error::TargetNotFound(_)));
    let outside: Vec<_> = std::fs::read_dir(scene.dir.path()).unwrap().collect();
    assert_eq!(outside.len(), 1, "{outside:?}");
}

#[tokio::test]
async fn t14_a_trust_root_of_another_length_or_hash_is_refused() {
    let root = root_json(2);
    for content in ["", "{}", &root_json(3), &format!("{root} ")] {
        let mut scene = Scene::new().await;
        scene.update().await.unwrap();
        scene.tuf.publish(&root);
        let name = format!("targets/{}.trusted_root.json", crate::oci::Digest::sha256(root.as_bytes()).hex());
        scene.tuf.put(&name, content.as_bytes());
        assert!(matches!(scene.refused().await, Error::IntegrityMismatch(_)));
    }
}

#[tokio::test]
async fn t14_metadata_without_a_hash_that_we_know_is_refused() {
    let mut scene = Scene::new().await;
    for hashes in [serde_json::json!({}), serde_json::json!({"md5": "00"})] {
        scene.tuf.publish_targets(&serde_json::json!({"trusted_root.json": {"length": 5, "hashes": hashes}}));
        scene.tuf.put("targets/00.trusted_root.json", b"12345");
        assert!(matches!(scene.refused().await, Error::IntegrityMismatch(_)));
    }
}

/// T14, endless data: each kind of file has its bound, also when its length is not stated.
#[tokio::test]
async fn t14_a_file_of_more_bytes_than_its_kind_can_have_is_refused_and_one_of_exactly_so_many_is_read() {
    let rows = [("timestamp.json", TUF_TIMESTAMP_BYTES_MAX), ("2.root.json", TUF_ROOT_BYTES_MAX)];
    for (path, max) in rows {
        let scene = Scene::new().await;
        let endless = vec![b' '; usize::try_from(max).unwrap() + 1];
        scene.tuf.answer(path, [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".as_slice(), &endless].concat());
        let error = scene.refused().await;
        assert!(matches!(&error, Error::IntegrityMismatch(why) if why.contains("bytes")), "{path}: {error:?}");
        scene.tuf.put(path, &endless[1..]);
        assert!(matches!(scene.refused().await, Error::Json(_)), "{path}");
    }
    let mut scene = Scene::new().await;
    let hashes = serde_json::json!({"sha256": "00"});
    scene.tuf.publish_targets(&serde_json::json!({
        "trusted_root.json": {"length": CONFIG_FILE_BYTES_MAX + 1, "hashes": hashes}
    }));
    assert!(matches!(scene.refused().await, Error::IntegrityMismatch(_)));
}

/// T14: a chain of good roots without end.
#[tokio::test]
async fn t14_an_endless_chain_of_roots_ends_at_the_bound() {
    let mut scene = Scene::new().await;
    for _ in 0..TUF_ROTATIONS_MAX {
        scene.tuf.publish_root();
    }
    let last = 1 + u64::try_from(TUF_ROTATIONS_MAX).unwrap();
    assert_eq!(scene.update().await.unwrap().tuf_root, (1, last));

    let mut scene = Scene::new().await;
    for _ in 0..=TUF_ROTATIONS_MAX {
        scene.tuf.publish_root();
    }
    assert!(matches!(scene.refused().await, Error::Malformed(why) if why.contains("roots")));
    // What was followed is kept, so that the next refresh gets further.
    assert_eq!(scene.update().await.unwrap().tuf_root, (last, last + 1));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_repository_that_is_away_is_no_refusal() {
    let scene = Scene::new().await;
    scene.update().await.unwrap();
    let elsewhere = FakeTuf::start(1, &root_json(9), scene.now).await;
    let redirect =
        format!("HTTP/1.1 302 Found\r\nLocation: {}timestamp.json\r\nContent-Length: 0\r\n\r\n", elsewhere.url());
    scene.tuf.answer("timestamp.json", redirect);
    assert!(matches!(scene.update().await, Err(TufError::Unreachable { .. })));
    assert_eq!(elsewhere.requests(), Vec::<String>::new());
    scene.tuf.answer("timestamp.json", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(scene.update().await, Err(TufError::Unreachable { .. })));
    scene.tuf.remove("timestamp.json");
    assert!(matches!(scene.update().await, Err(TufError::Unreachable { .. })));
    let Scene { tuf, settings, now, first: _, dir: _dir } = scene;
    drop(tuf);
    assert!(matches!(update(&settings, now).await, Err(TufError::Unreachable { .. })));
    assert!(stored(&settings).is_ok());
}

#[tokio::test]
async fn an_address_of_this_machine_is_dialled_only_when_the_url_says_so() {
    let mut scene = Scene::new().await;
    scene.settings.addresses = Addresses::Private;
    assert!(matches!(scene.update().await, Err(TufError::Unreachable { .. })));
    assert_eq!(scene.tuf.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_trust_root_that_cannot_be_used_is_refused_and_the_last_good_one_stays() {
    let unknown_key = root_json(2).replace("\"rawBytes\":\"MFkw", "\"rawBytes\":\"AAAA");
    for unusable in
        ["{}".to_owned(), "no JSON".to_owned(), root_json(2).replace("version=0.1", "version=9"), unknown_key]
    {
        let mut scene = Scene::new().await;
        scene.update().await.unwrap();
        let before = (scene.kept(), std::fs::read(scene.settings.trusted_root_path()).unwrap());
        scene.tuf.publish(&unusable);
        assert!(matches!(scene.update().await, Err(TufError::Unusable { .. })), "{unusable}");
        assert_eq!((scene.kept(), std::fs::read(scene.settings.trusted_root_path()).unwrap()), before);
    }
}

#[tokio::test]
async fn what_was_kept_is_believed_only_as_far_as_it_follows_from_the_configured_root() {
    let scene = Scene::new().await;
    scene.update().await.unwrap();
    let path = scene.settings.state_path();
    let good = std::fs::read_to_string(&path).unwrap();
    let other = serde_json::to_string(&root_json(2)).unwrap();
    let forged = good.replace(&serde_json::to_string(&scene.first).unwrap(), &other);
    assert!(forged != good, "the root is in there");
    for bad in [
        forged,
        good.replacen("schema\":1", "schema\":2", 1),
        "{}".to_owned(),
        String::new(),
        good.replace("last", "lost"),
    ] {
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(scene.stored(), Err(TrustError::Stored { .. })), "{bad}");
        assert!(matches!(scene.update().await, Err(TufError::State(_))), "it does not begin anew by itself");
    }
    std::fs::write(&path, &good).unwrap();
    let settings =
        Settings { bootstrap: FakeTuf::start(2, "", scene.now).await.bootstrap().into(), ..scene.settings.clone() };
    let error = stored(&settings).unwrap_err();
    assert!(matches!(error, TrustError::Stored { source } if matches!(*source, StateError::Unfounded { .. })));
    std::fs::write(&path, vec![b' '; usize::try_from(crate::limits::TUF_STATE_BYTES_MAX).unwrap() + 1]).unwrap();
    let error = scene.stored().unwrap_err();
    assert!(matches!(error, TrustError::Stored { source } if matches!(*source, StateError::TooLarge { .. })));
}

#[tokio::test]
async fn one_update_at_a_time_uses_a_directory() {
    let scene = Scene::new().await;
    let lock = files::lock(&scene.settings.state_dir).unwrap();
    assert!(matches!(scene.update().await, Err(TufError::State(StateError::Busy { .. }))));
    drop(lock);
    scene.update().await.unwrap();
}

#[test]
fn the_sigstore_projects_root_is_one_to_begin_from() {
    assert_eq!(check_bootstrap(PUBLIC_GOOD_ROOT), Ok(()));
    assert_eq!(version_of(PUBLIC_GOOD_ROOT).unwrap(), 16);
    assert!(check_bootstrap(b"{}").is_err());
}
