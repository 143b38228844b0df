//! Parts of the product, wired for one test.

use std::sync::Arc;
use std::time::Duration;

use sealgate::clock::Clock;
use sealgate::oci::Digest;
use sealgate::policy::{self, ContainersPolicy, ContainersPolicyDocument, Mode, MultiArch, PolicySet};
use sealgate::pull::{Puller, Snapshot, VerdictTtl};
use sealgate::store::{Settings, Store};
use sealgate::telemetry::Telemetry;

/// A puller without upstreams.
pub(crate) async fn puller(telemetry: &Telemetry) -> Puller {
    let settings = Settings { data_dir: None, max_bytes: 1 << 20, min_free_bytes: 0 };
    let store = Store::open(settings, Clock::System, telemetry.clone()).await.unwrap();
    let verdict_ttl = VerdictTtl { allow: Duration::from_secs(60), deny: Duration::from_secs(60) };
    let snapshot = Snapshot { policy: reject(), trust_root: Digest::sha256(b""), verdict_ttl };
    let snapshot = Arc::new(arc_swap::ArcSwap::from_pointee(snapshot));
    Puller::new(vec![], store, snapshot, Clock::System, telemetry.clone(), tokio_util::task::TaskTracker::new())
}

fn reject() -> PolicySet {
    let document = ContainersPolicyDocument::parse(br#"{"default": [{"type": "reject"}]}"#).unwrap();
    let containers_policy = ContainersPolicy::resolve(document, &mut |path| Err(path.to_owned())).unwrap();
    let settings = policy::Settings {
        containers_policy: Some(containers_policy),
        mode: Mode::Enforce,
        multi_arch: MultiArch::IndexOrEveryLeaf,
        overrides: vec![],
        exemptions: vec![],
    };
    PolicySet::new(settings).unwrap()
}
