//! The trust root fetched by TUF: on the command line, at start, and while running.

use std::time::Duration;

use sealgate::clock::{Clock, Timestamp};
use sealgate::testing::sigstore::FakeSigstore;
use sealgate::testing::{FakeRegistry, FakeTuf, ImageBuilder, REJECT, Setup, TestSealgate};
use serde_json::Value;

use crate::program::{Place, Ran};

fn root_json(seed: u64) -> String {
    FakeSigstore::from_seed(seed, Clock::System.now()).trusted_root_json()
}

fn fingerprint(document: &str) -> String {
    sealgate::oci::Digest::sha256(document.as_bytes()).to_string()
}

/// A TUF repository, and a directory whose configuration begins from its root.
struct Scene {
    tuf: FakeTuf,
    place: Place,
    first: String,
}

impl Scene {
    async fn new(keys: &str) -> Self {
        let first = root_json(1);
        let tuf = FakeTuf::start(1, &first, Clock::System.now()).await;
        let place = Place::with_policy(REJECT);
        place.write("config/root.json", std::str::from_utf8(&tuf.bootstrap()).unwrap());
        let scene = Self { tuf, place, first };
        scene.configure(keys);
        scene
    }

    /// Writes the configuration, with further keys of `[trust.tuf]`.
    fn configure(&self, keys: &str) {
        let config = format!(
            "[policy]\ncontainers_policy = \"policy.json\"\n[trust.tuf]\nurl = \"{}\"\nroot_file = \"root.json\"\n{keys}\n",
            self.tuf.url()
        );
        self.place.write("config/sealgate.toml", &config);
    }

    /// The repository lives in this process, so waiting must not hold its thread.
    async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.place.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        Ran {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[arguments, &["--output", "json"]].concat()).await;
        assert_eq!(ran.status, 0, "{ran}");
        serde_json::from_str(&ran.stdout).unwrap()
    }
}

#[tokio::test]
async fn trust_update_fetches_the_root_says_what_changed_and_show_shows_it() {
    let mut scene = Scene::new("enabled = true").await;
    let ran = scene.run(&["trust", "show"]).await;
    assert_eq!(ran.status, 2, "nothing was fetched, and whoever is built in are strangers here: {ran}");
    assert!(ran.stderr.contains("sealgate trust update"), "{ran}");

    let first = scene.json(&["trust", "update"]).await;
    assert_eq!((&first["first"], &first["changed"], &first["used"]), (&true.into(), &true.into(), &true.into()));
    let shown = scene.json(&["trust", "show"]).await;
    assert_eq!(
        (shown["source"].as_str(), shown["fingerprint"].as_str()),
        (Some("tuf"), Some(&*fingerprint(&scene.first)))
    );
    assert_eq!(shown["warnings"], Value::Array(Vec::new()));

    let ran = scene.run(&["trust", "update"]).await;
    assert_eq!(ran.status, 0, "{ran}");
    assert!(ran.stdout.contains("has not changed"), "{ran}");
    let second = root_json(2);
    scene.tuf.publish(&second);
    let ran = scene.run(&["trust", "update"]).await;
    assert_eq!(ran.status, 0, "{ran}");
    assert!(
        ran.stdout.contains("  + certificate_authority\n") && ran.stdout.contains("  - certificate_authority\n"),
        "{ran}"
    );
    assert_eq!(scene.json(&["trust", "show"]).await["fingerprint"], fingerprint(&second));
    let copy = std::fs::read_to_string(scene.place.path().join("config/data/trust/trusted_root.json")).unwrap();
    assert_eq!(copy, second, "other tools can use it");
}

#[tokio::test]
async fn what_was_fetched_is_ignored_while_tuf_is_off_and_update_says_so() {
    let scene = Scene::new("").await;
    let ran = scene.run(&["trust", "update"]).await;
    assert_eq!(ran.status, 0, "{ran}");
    assert!(ran.stdout.contains("not used"), "{ran}");
    assert_eq!(scene.json(&["trust", "show"]).await["source"], "built_in");
    scene.configure("enabled = true\nstate_dir = \"elsewhere\"");
    assert_eq!(scene.run(&["trust", "show"]).await.status, 2, "there is nothing");
}

#[tokio::test]
async fn trust_update_tells_a_refusal_from_silence_by_its_status() {
    let mut scene = Scene::new("enabled = true").await;
    scene.json(&["trust", "update"]).await;
    let old = scene.tuf.snapshot();
    scene.tuf.publish(&root_json(2));
    scene.json(&["trust", "update"]).await;
    scene.tuf.restore(old);
    let ran = scene.run(&["trust", "update"]).await;
    assert_eq!(ran.status, 1, "a rollback: {ran}");
    assert!(ran.stderr.contains("rollback") && ran.stderr.contains("next:"), "{ran}");
    scene.configure("enabled = true\nstate_dir = \"root.json\"");
    assert_eq!(scene.run(&["trust", "update"]).await.status, 2, "no directory");
    let Scene { tuf, place, first } = scene;
    drop(tuf);
    let elsewhere = FakeTuf::start(9, &first, Clock::System.now()).await;
    let scene = Scene { tuf: elsewhere, place, first };
    scene.configure("enabled = true");
    scene.tuf.remove("timestamp.json");
    let ran = scene.run(&["trust", "update"]).await;
    assert_eq!(ran.status, 3, "no answer: {ran}");
}

#[tokio::test]
async fn an_expired_root_stays_in_force_and_is_warned_of() {
    let mut scene = Scene::new("enabled = true").await;
    // Good for a moment only; the command needs no more.
    scene.tuf.roles.timestamp.expires = Clock::System.now().plus(Duration::from_secs(30));
    scene.tuf.publish(&root_json(2));
    scene.json(&["trust", "update"]).await;
    let state = scene.place.path().join("config/data/trust/tuf.json");
    assert!(std::fs::metadata(state).unwrap().is_file());
    let root = scene.json(&["trust", "show"]).await;
    let until: Timestamp = root["fresh_until"].as_str().unwrap().parse().unwrap();
    assert!(until < Clock::System.now().plus(Duration::from_secs(60)));
    assert_eq!(root["source"], "tuf");
}

#[test]
fn keys_of_trust_tuf_are_checked_and_two_trust_roots_are_one_too_many() {
    let place = Place::with_policy(REJECT);
    place.write("config/root.json", "{}");
    let rows = [
        ("[trust.tuf]\nurl = \"ftp://a.example\"", "trust.tuf.url: neither http nor https"),
        (
            "[trust.tuf]\nurl = \"https://user:secret@a.example\"",
            "trust.tuf.url: more than scheme, host, port and path",
        ),
        ("[trust.tuf]\nrefresh = \"59m\"", "trust.tuf.refresh: 59m is not between 1h and 30d"),
        ("[trust.tuf]\nrefresh = \"31d\"", "trust.tuf.refresh: 31d is not between 1h and 30d"),
        ("[trust.tuf]\nroot_file = \"root.json\"", "trust.tuf.root_file"),
        ("[trust.tuf]\nroot_file = \"missing.json\"", "trust.tuf.root_file: cannot read"),
        ("[trust.tuf]\nca_file = \"root.json\"", "trust.tuf.ca_file"),
        ("[trust.tuf]\nproxy = \"gopher://user:secret@p.example\"", "trust.tuf.proxy: no http or https URL"),
        (
            "trusted_root = \"root.json\"\n[trust.tuf]\nenabled = true",
            "policy.trusted_root: trust.tuf.enabled is set, too",
        ),
    ];
    for (keys, expected) in rows {
        place.write("config/sealgate.toml", &format!("[policy]\ncontainers_policy = \"policy.json\"\n{keys}\n"));
        let ran = place.run(&["config", "check"]);
        assert_eq!(ran.status, 2, "{keys}: {ran}");
        assert!(ran.stderr.contains(expected) && !ran.stderr.contains("secret"), "{keys}: {ran}");
    }
    let fine = "[policy]\ncontainers_policy = \"policy.json\"\n[trust.tuf]\nenabled = true\nrefresh = \"24h\"\n";
    place.write("config/sealgate.toml", fine);
    let ran = place.run(&["config", "check"]);
    assert_eq!(ran.status, 0, "the same people vouch for the built-in root: {ran}");
    assert!(ran.stderr.contains("no trust root was fetched yet"), "{ran}");
}

/// A mirror that asks the repository again and again, after a first update into `state`.
async fn refreshing(tuf: &FakeTuf, state: &tempfile::TempDir) -> Setup {
    std::fs::write(state.path().join("root.json"), tuf.bootstrap()).unwrap();
    let path = |name: &str| state.path().join(name).display().to_string();
    let setup = TestSealgate::with_policy(REJECT)
        .upstream("docker.io", "http://127.0.0.1:9")
        .set("trust.tuf.enabled", true)
        .set("trust.tuf.url", tuf.url().to_string())
        .set("trust.tuf.root_file", path("root.json"))
        .set("trust.tuf.state_dir", path("trust"))
        .set("trust.tuf.refresh", "1h");
    let settings = sealgate::trust::tuf::Settings {
        url: tuf.url(),
        bootstrap: tuf.bootstrap().into(),
        state_dir: state.path().join("trust"),
        refresh: None,
        ca_pem: None,
        proxy: None,
        addresses: sealgate::trust::tuf::Addresses::Loopback,
    };
    sealgate::trust::tuf::update(&settings, Clock::System.now()).await.unwrap();
    setup.adjust(|loaded| loaded.config.tuf.as_mut().unwrap().refresh = Some(Duration::from_millis(20)))
}

/// However long it takes, it must come; the bound only ends a test that would hang.
async fn eventually<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}

async fn in_force(mirror: &TestSealgate) -> String {
    mirror.admin_get("/readyz").await.json()["trust_root"]["fingerprint"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_running_mirror_takes_a_newer_root_over_and_earlier_verdicts_do_not_count_under_it() {
    let registry = FakeRegistry::start().await;
    let image = ImageBuilder::new(1).layer(1000).build();
    registry.put("acme/app", "1", &image);
    let first = root_json(1);
    let mut tuf = FakeTuf::start(1, &first, Clock::System.now()).await;
    let state = tempfile::tempdir().unwrap();
    let setup = refreshing(&tuf, &state).await.upstream("registry.example", registry.url());
    // Until the newer root is published, there is no answer.
    tuf.remove("timestamp.json");
    let mirror = setup.start().await;
    assert_eq!(in_force(&mirror).await, fingerprint(&first));
    assert_eq!(mirror.get("/v2/registry.example/acme/app/manifests/1").await.status, 403);
    let status = || async {
        mirror.admin_get("/api/v1/verdicts").await.json()["verdicts"][0]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status().await, "current");

    let second = root_json(2);
    tuf.publish(&second);
    eventually(|| async { in_force(&mirror).await == fingerprint(&second) }).await;
    assert_eq!(status().await, "other_policy");
    assert!(mirror.metric("sealgate_trust_root_refreshes_total{outcome=\"ok\"}") >= Some(1.0));
    let refreshed = mirror.metric("sealgate_trust_root_last_refresh_timestamp_seconds{root=\"tuf\"}").unwrap();
    assert!(refreshed > 1_700_000_000.0, "{refreshed}");
    assert!(mirror.metric("sealgate_trust_root_expiry_timestamp_seconds{root=\"tuf\"}") > Some(refreshed));
    mirror.stop().await;
}

#[tokio::test]
async fn a_running_mirror_keeps_the_last_good_root_when_a_newer_one_cannot_be_used_or_fetched() {
    let first = root_json(1);
    let mut tuf = FakeTuf::start(1, &first, Clock::System.now()).await;
    let state = tempfile::tempdir().unwrap();
    let mirror = refreshing(&tuf, &state).await.start().await;
    tuf.publish(&root_json(2).replace("\"rawBytes\":\"MFkw", "\"rawBytes\":\"AAAA"));
    let errors = || mirror.metric("sealgate_trust_root_refreshes_total{outcome=\"error\"}").unwrap_or_default();
    eventually(|| async { errors() >= 1.0 }).await;
    assert_eq!(in_force(&mirror).await, fingerprint(&first));
    let before = errors();
    tuf.remove("timestamp.json");
    eventually(|| async { errors() > before }).await;
    assert_eq!(in_force(&mirror).await, fingerprint(&first));
    assert_eq!(mirror.admin_get("/readyz").await.status, 200, "it goes on serving");
    mirror.stop().await;
}

#[tokio::test]
async fn an_update_beside_a_running_mirror_is_noticed_and_a_damaged_file_leaves_the_old_root_in_force() {
    let first = root_json(1);
    let mut tuf = FakeTuf::start(1, &first, Clock::System.now()).await;
    let state = tempfile::tempdir().unwrap();
    let setup = refreshing(&tuf, &state).await.adjust(|_| {}).set("trust.tuf.refresh", "0s");
    let mirror = setup.start().await;
    std::fs::write(state.path().join("trust/tuf.json"), "{}").unwrap();
    assert!(mirror.reload().await.unwrap_err().contains("trust.tuf"));
    assert_eq!(in_force(&mirror).await, fingerprint(&first));
    std::fs::remove_file(state.path().join("trust/tuf.json")).unwrap();
    let second = root_json(2);
    tuf.publish(&second);
    refreshing(&tuf, &state).await;
    eventually(|| async { in_force(&mirror).await == fingerprint(&second) }).await;
    mirror.stop().await;
}
