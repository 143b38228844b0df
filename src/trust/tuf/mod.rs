//! Fetching the trust root by TUF (The Update Framework), from the Sigstore project's repository or a mirror of one's own.
//!
//! `sigstore-tuf` judges: root chain, signature thresholds, versions that never go back, expiry, lengths and hashes. We
//! fetch for it (`repository`) and keep what it accepted (`state`), so that the next refresh cannot be led back behind
//! this one, and a start without network can check everything again. Only the top-level targets role may name the trust
//! root; delegations are not followed. Follows the TUF specification 1.0, section 5.

mod error;
mod files;
mod repository;
mod state;
#[cfg(test)]
mod tests;

pub use error::{StateError, TufError};

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sigstore_tuf::{MemoryStore, MetadataStore, TrustedMetadataSet, Updater, UpdaterConfig};
use url::Url;

use self::repository::HttpRepository;
use self::state::{Complete, State};
use super::{TrustError, TrustRoot, TrustSource, Trusted};
use crate::clock::Timestamp;
use crate::limits::{
    CONFIG_FILE_BYTES_MAX, TUF_REFRESH, TUF_ROOT_BYTES_MAX, TUF_ROTATIONS_MAX, TUF_SNAPSHOT_BYTES_MAX,
    TUF_TARGETS_BYTES_MAX, TUF_TIMESTAMP_BYTES_MAX,
};
use crate::net::{AddressRules, HttpClient, HttpSettings};

/// Where a trust root is fetched from, and where what was fetched is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The repository: http or https, no user, query or fragment. What it serves is signed, so plain http is no hole.
    pub url: Url,
    /// The TUF root to begin from.
    pub bootstrap: Arc<[u8]>,
    /// The directory for what is kept.
    pub state_dir: PathBuf,
    /// How often a running mirror asks; `None`: never.
    pub refresh: Option<Duration>,
    /// The only TLS roots for it (PEM); without, the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// HTTP proxy.
    pub proxy: Option<Url>,
    /// Which addresses may be dialled.
    pub addresses: Addresses,
}

/// Which addresses beyond public ones the repository may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// None.
    Public,
    /// Private ones.
    Private,
    /// This machine's: its URL says so.
    Loopback,
}

/// What a refresh did.
#[derive(Debug, Clone)]
pub struct Update {
    /// The trust root that the repository serves now.
    pub root: TrustRoot,
    /// What the refresh before this one ended with; `None`: this is the first.
    pub before: Option<TrustRoot>,
    /// The version of the TUF root, before and now.
    pub tuf_root: (u64, u64),
}

impl Update {
    /// Whether it is another trust root than before.
    pub fn changed(&self) -> bool {
        self.before.as_ref().is_none_or(|before| before.fingerprint != self.root.fingerprint)
    }

    /// Those that were not trusted before, or not in that window.
    pub fn added(&self) -> impl Iterator<Item = &Trusted> {
        self.root.trusted.iter().filter(|one| self.before.as_ref().is_none_or(|before| !before.trusted.contains(one)))
    }

    /// Those that are not trusted any more, or not in that window.
    pub fn removed(&self) -> impl Iterator<Item = &Trusted> {
        let before = self.before.iter().flat_map(|before| &before.trusted);
        before.filter(|one| !self.root.trusted.contains(one))
    }
}

impl Settings {
    /// Whether the root to begin from is the Sigstore project's: then what is built in is trusted by the same people.
    pub fn is_public_good(&self) -> bool {
        *self.bootstrap == *PUBLIC_GOOD_ROOT
    }

    /// The file that holds what the last refresh ended with.
    pub fn state_path(&self) -> PathBuf {
        self.state_dir.join("tuf.json")
    }

    /// A copy of the trust root alone, for other tools; never read.
    pub fn trusted_root_path(&self) -> PathBuf {
        self.state_dir.join(TARGET)
    }

    fn source(&self) -> TrustSource {
        TrustSource::Tuf { url: self.url.to_string(), path: self.state_path() }
    }
}

/// Checks that the bytes are a TUF root, signed by itself.
///
/// # Errors
/// What is wrong with them, one line.
pub fn check_bootstrap(root: &[u8]) -> Result<(), String> {
    TrustedMetadataSet::from_root(root).map(drop).map_err(|error| error.to_string())
}

/// The trust root that the last refresh ended with, checked again from the configured TUF root on; blocking. That its
/// metadata has expired since is no error here: [`TrustRoot::warnings`] says it.
///
/// # Errors
/// [`StateError::Absent`] when none was fetched yet, the others when what is there cannot be used.
pub fn stored(settings: &Settings) -> Result<TrustRoot, TrustError> {
    let stored = |source| TrustError::Stored { source: Box::new(source) };
    let state = State::read(settings).map_err(stored)?;
    let (last, verified) = state.verify(settings).map_err(stored)?;
    trust_root(settings, last, verified.refreshed, verified.expires)
}

/// When the last refresh succeeded, as the state says without being checked; blocking.
pub fn last_refresh(settings: &Settings) -> Option<Timestamp> {
    State::read(settings).ok()?.last?.refreshed.parse().ok()
}

fn trust_root(
    settings: &Settings,
    last: &Complete,
    refreshed: Timestamp,
    expires: Timestamp,
) -> Result<TrustRoot, TrustError> {
    let root = TrustRoot::parse(&settings.source(), last.trusted_root.as_bytes(), Some(refreshed))?;
    Ok(TrustRoot { expires: Some(expires), ..root })
}

/// Asks the repository, checks everything, and keeps what is good. One at a time a directory. Takes at most
/// [`TUF_REFRESH`]. Cancel safe: then nothing is kept.
///
/// # Errors
/// [`TufError`]; what was kept before stays, but for roots that were replaced by good ones.
pub async fn update(settings: &Settings, now: Timestamp) -> Result<Update, TufError> {
    let own = settings.clone();
    let kept = off_thread(move || Kept::open(own)).await?;
    let url = settings.url.to_string();
    let refused = |error| TufError::of(&url, error);
    let client = client(settings).map_err(|source| TufError::Client { url: url.clone(), source })?;
    let store = Arc::new(seeded(&kept.state));
    let updater =
        Updater::new(HttpRepository::new(client, settings.url.clone()), &settings.bootstrap).map_err(refused)?;
    let mut updater = updater.with_config(bounds()).with_store(Arc::clone(&store));
    let began = updater.trusted().root().version;
    let fetched = match tokio::time::timeout(TUF_REFRESH, fetch(&mut updater, now)).await {
        Ok(fetched) => fetched.map_err(refused),
        Err(_elapsed) => Err(TufError::TooSlow { url: url.clone(), seconds: TUF_REFRESH.as_secs() }),
    };
    let ended = updater.trusted().root().version;
    let last = fetched.and_then(|document| complete(&store, ended, now, document).map_err(refused));
    let roots = roots(&store, settings, &kept.state);
    off_thread(move || kept.replace(roots, last, (began, ended))).await
}

/// Runs blocking work off the async threads. It runs to its end, also when the caller leaves.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TufError> + Send + 'static,
) -> Result<T, TufError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(StateError::Io { what: "use", path: PathBuf::from("the TUF state"), source }.into())
    })
}

/// What earlier refreshes kept, held for this one.
struct Kept {
    settings: Settings,
    state: State,
    before: Option<TrustRoot>,
    _lock: File,
}

impl Kept {
    /// Takes the lock and checks what is there; blocking.
    fn open(settings: Settings) -> Result<Self, TufError> {
        let lock = files::lock(&settings.state_dir)?;
        let state = match State::read(&settings) {
            Err(StateError::Absent { .. }) => State::default(),
            other => other?,
        };
        let before = match state.verify(&settings) {
            // A root that this version cannot use is one to replace.
            Ok((last, verified)) => trust_root(&settings, last, verified.refreshed, verified.expires).ok(),
            Err(StateError::Absent { .. }) => None,
            // Beginning anew would let the repository lead us back behind what we know.
            Err(error) => return Err(error.into()),
        };
        Ok(Self { settings, state, before, _lock: lock })
    }

    /// Keeps what the refresh ended with. When it failed, only the roots: one that was replaced must stay replaced.
    /// Blocking.
    fn replace(
        self,
        roots: Vec<String>,
        last: Result<Complete, TufError>,
        tuf_root: (u64, u64),
    ) -> Result<Update, TufError> {
        let Self { settings, state, before, _lock } = self;
        let grown = tuf_root.1 > tuf_root.0;
        let next = State { roots, ..state };
        let checked = last.and_then(|last| Self::check(&settings, State { last: Some(last), ..next.clone() }));
        match checked {
            Ok((next, root)) => {
                next.write(&settings)?;
                files::write(&settings.trusted_root_path(), root.document())?;
                Ok(Update { root, before, tuf_root })
            }
            Err(error) => {
                if grown {
                    next.write(&settings)?;
                }
                Err(error)
            }
        }
    }

    /// Checks the next state just as the next start will, and that its trust root can be used.
    fn check(settings: &Settings, next: State) -> Result<(State, TrustRoot), TufError> {
        let (last, verified) = next.verify(settings)?;
        let root = trust_root(settings, last, verified.refreshed, verified.expires)
            .map_err(|source| TufError::Unusable { url: settings.url.to_string(), source: Box::new(source) })?;
        Ok((next, root))
    }
}

/// Steps of section 5.3 to 5.7, in their order.
async fn fetch(updater: &mut Updater, now: Timestamp) -> Result<Vec<u8>, sigstore_tuf::Error> {
    let now = jiff::Timestamp::from_millisecond(now.unix_millis())
        .map_err(|_| sigstore_tuf::Error::Malformed("the clock shows no time".to_owned()))?;
    updater.refresh(now).await?;
    updater.get_target(TARGET, now).await
}

/// What was kept, as the floor that the repository must not go below. Nothing of it is believed: it is verified again.
fn seeded(state: &State) -> MemoryStore {
    let store = MemoryStore::new();
    let keep = |name: &str, text: &str| drop(store.store(name, text.as_bytes()));
    for root in &state.roots {
        if let Ok(version) = version_of(root.as_bytes()) {
            keep(&history(version), root);
        }
    }
    if let Some(last) = &state.last {
        keep("timestamp.json", &last.timestamp);
        keep("snapshot.json", &last.snapshot);
        keep("targets.json", &last.targets);
        keep(&format!("targets/{TARGET}"), &last.trusted_root);
    }
    store
}

/// Every root that is known now: those before, the one to begin from, and those that the chain has grown by.
fn roots(store: &MemoryStore, settings: &Settings, before: &State) -> Vec<String> {
    let mut roots = before.roots.clone();
    let known = roots.last().and_then(|root| version_of(root.as_bytes()).ok()).unwrap_or(0);
    let mut version = version_of(&settings.bootstrap).unwrap_or(0).max(known.saturating_add(1));
    while let Some(text) = loaded(store, &history(version)) {
        roots.push(text);
        version = version.saturating_add(1);
    }
    roots
}

fn complete(
    store: &MemoryStore,
    root_version: u64,
    now: Timestamp,
    trusted_root: Vec<u8>,
) -> Result<Complete, sigstore_tuf::Error> {
    let role = |name: &str| {
        loaded(store, name).ok_or_else(|| sigstore_tuf::Error::Malformed(format!("{name} is not there, or not UTF-8")))
    };
    let trusted_root = String::from_utf8(trusted_root)
        .map_err(|_| sigstore_tuf::Error::Malformed(format!("{TARGET} is not UTF-8")))?;
    Ok(Complete {
        refreshed: now.to_string(),
        root_version,
        timestamp: role("timestamp.json")?,
        snapshot: role("snapshot.json")?,
        targets: role("targets.json")?,
        trusted_root,
    })
}

fn loaded(store: &MemoryStore, name: &str) -> Option<String> {
    String::from_utf8(store.load(name).ok()??).ok()
}

fn history(version: u64) -> String {
    format!("root_history/{version}.root.json")
}

fn version_of(root: &[u8]) -> Result<u64, sigstore_tuf::Error> {
    Ok(sigstore_tuf::Metadata::<sigstore_tuf::Root>::from_slice(root)?.signed().version)
}

fn bounds() -> UpdaterConfig {
    let mut bounds = UpdaterConfig::default();
    bounds.root_max_length = TUF_ROOT_BYTES_MAX;
    bounds.timestamp_max_length = TUF_TIMESTAMP_BYTES_MAX;
    bounds.snapshot_max_length = TUF_SNAPSHOT_BYTES_MAX;
    bounds.targets_max_length = TUF_TARGETS_BYTES_MAX;
    bounds.target_max_length = CONFIG_FILE_BYTES_MAX;
    // One more than `repository` lets pass, so that the chain ends there, as a rule that is broken.
    bounds.max_root_rotations = u32::try_from(TUF_ROTATIONS_MAX).unwrap_or(u32::MAX).saturating_add(1);
    // The top-level role alone.
    bounds.max_delegations = 1;
    bounds
}

fn client(settings: &Settings) -> Result<HttpClient, crate::net::HttpSettingsError> {
    let addresses = AddressRules {
        loopback: settings.addresses == Addresses::Loopback,
        private: settings.addresses == Addresses::Private,
        named: Vec::new(),
    };
    let (ca_pem, proxy) = (settings.ca_pem.clone(), settings.proxy.clone());
    HttpClient::new(HttpSettings { ca_pem, proxy, addresses, ..HttpSettings::default() })
}

/// Where the Sigstore project publishes its trust root.
pub const PUBLIC_GOOD_URL: &str = "https://tuf-repo-cdn.sigstore.dev/";
/// Version 16 of the Sigstore project's TUF root, from <https://github.com/sigstore/root-signing>.
pub const PUBLIC_GOOD_ROOT: &[u8] = include_bytes!("public_good_root.json");

/// The target's name in every Sigstore's repository.
const TARGET: &str = "trusted_root.json";
