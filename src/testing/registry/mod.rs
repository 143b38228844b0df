//! A registry in memory: strict, counting, and as faulty as a test wants it.
//!
//! It speaks HTTP over real TCP (or TLS), serves what was put into it or pushed to it, records each request with its
//! headers, asks for tokens or passwords, and breaks exactly what a [`Fault`] says.
//!
//! ```
//! # use sealgate::testing::{FakeRegistry, Fault, ImageBuilder};
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let registry = FakeRegistry::start().await;
//! let image = ImageBuilder::new(1).layer(1024).build();
//! registry.put("library/alpine", "3.20", &image);
//! registry.fault(Fault::on("*/manifests/3.20").times(2).status(503).header("retry-after", "7"));
//! // … drive the product against registry.url() …
//! assert_eq!(registry.count("GET", "*/manifests/*"), 0);
//! # });
//! ```

mod auth;
mod contents;
mod fault;
mod push;
mod serve;
mod socket;
mod tls;

pub use auth::{Auth, TokenAuth};
pub use fault::Fault;
pub use tls::{TestCa, TestIdentity};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use self::contents::Contents;
use self::fault::Faults;
use super::{BuiltImage, Content};
use crate::oci::{Algorithm, Digest};
use crate::upstream;

/// A running registry; it ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    shared: Arc<Shared>,
    address: SocketAddr,
    scheme: &'static str,
    ca_pem: Option<String>,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// The accepting task, which owns the tasks of all connections.
    tasks: Mutex<JoinSet<()>>,
}

/// How a registry starts.
#[derive(Debug, Default)]
pub struct FakeRegistryBuilder {
    auth: Auth,
    referrers: Referrers,
    identity: Option<TestIdentity>,
    client_ca: Option<TestCa>,
    http2: bool,
}

/// How referrers can be found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Referrers {
    /// By the referrers API, which filters by artifact type and says so.
    #[default]
    Api,
    /// By the referrers API, which lists all whatever was asked.
    Unfiltered,
    /// By the fallback tag `sha256-<hex>` alone; the API answers 404.
    FallbackTag,
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// The path, as sent.
    pub path: String,
    /// The query, as sent; empty without one.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The HTTP version.
    pub version: http::Version,
    /// The number of the connection that it came over, from 0.
    pub connection: usize,
}

impl Recorded {
    /// The value of a header, if it was sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What the connections work on.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    contents: Contents,
    /// What is served at paths outside the registry API.
    files: BTreeMap<String, Bytes>,
    faults: Faults,
    auth: auth::Guard,
    referrers: Referrers,
    /// How many referrers a page lists.
    referrers_page: usize,
    requests: Vec<Recorded>,
    connections: usize,
    /// Where it listens, for absolute URLs.
    origin: String,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl FakeRegistry {
    /// An open registry over plain HTTP, on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A registry with authentication, TLS or without the referrers API.
    pub fn builder() -> FakeRegistryBuilder {
        FakeRegistryBuilder::default()
    }

    /// Its origin, such as `http://127.0.0.1:41234`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Host and port, such as `127.0.0.1:41234`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate (PEM) of the CA that its TLS certificate comes from.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Settings of an upstream named `host` that reaches this registry, without credentials.
    pub fn settings(&self, host: &str) -> upstream::Settings {
        upstream::Settings {
            host: host.parse().unwrap(),
            endpoint: self.url().parse().unwrap(),
            credentials: upstream::Credentials::Anonymous,
            auth_hosts: Vec::new(),
            redirect_hosts: Vec::new(),
            ca_pem: self.ca_pem.as_ref().map(|pem| pem.clone().into_bytes()),
            client_identity_pem: None,
            proxy: None,
            allow_private_addresses: false,
            ns: false,
        }
    }

    // ---- contents ----

    /// Puts an image with all blobs and children under a tag.
    pub fn put(&self, repository: &str, tag: &str, image: &BuiltImage) {
        self.put_untagged(repository, image);
        self.tag(repository, tag, image.digest());
    }

    /// Puts an image with all blobs and children, to be had by digest.
    pub fn put_untagged(&self, repository: &str, image: &BuiltImage) {
        for child in &image.children {
            self.put_untagged(repository, child);
        }
        for blob in &image.blobs {
            self.put_blob(repository, blob.bytes.clone());
        }
        self.put_manifest(repository, &image.manifest);
    }

    /// Puts a manifest alone; its bytes need not be a manifest at all.
    pub fn put_manifest(&self, repository: &str, manifest: &Content) {
        self.shared.state().contents.put_manifest(repository, manifest.clone());
    }

    /// Puts a blob; it can be had by both its digests. Returns the SHA-256 one.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        let mut state = self.shared.state();
        state.contents.put_blob(repository, digest, bytes.clone());
        state.contents.put_blob(repository, Digest::of(Algorithm::Sha512, &bytes), bytes);
        digest
    }

    /// Puts a file that is had at exactly this path, outside the registry API and without authentication.
    pub fn put_file(&self, path: &str, bytes: impl Into<Bytes>) {
        assert!(!path.starts_with("/v2/"), "a path outside the registry API");
        self.shared.state().files.insert(path.to_owned(), bytes.into());
    }

    /// The base of lookaside signatures for `registries.d`: see [`put_lookaside`](super::put_lookaside).
    pub fn lookaside_url(&self) -> String {
        format!("{}/lookaside", self.url())
    }

    /// Points a tag at a digest, whether or not that is there.
    pub fn tag(&self, repository: &str, tag: &str, digest: Digest) {
        self.shared.state().contents.tag(repository, tag, digest);
    }

    /// Removes a tag.
    pub fn untag(&self, repository: &str, tag: &str) {
        self.shared.state().contents.untag(repository, tag);
    }

    /// Removes a manifest; tags keep pointing at it.
    pub fn remove_manifest(&self, repository: &str, digest: &Digest) {
        self.shared.state().contents.remove_manifest(repository, digest);
    }

    /// Removes a blob.
    pub fn remove_blob(&self, repository: &str, digest: &Digest) {
        self.shared.state().contents.remove_blob(repository, digest);
    }

    // ---- behaviour ----

    /// Breaks something; see [`Fault`]. The first fault that fits a request applies to it, and no other.
    pub fn fault(&self, fault: Fault) {
        self.shared.state().faults.add(fault);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.shared.state().faults = Faults::default();
    }

    /// Changes who may pull, from now on; tokens issued so far are void.
    pub fn set_auth(&self, auth: Auth) {
        self.shared.state().auth.change(auth);
    }

    /// Voids all tokens that were issued.
    pub fn revoke_tokens(&self) {
        self.shared.state().auth.revoke();
    }

    /// Switches the referrers API on or off.
    pub fn set_referrers(&self, referrers: Referrers) {
        self.shared.state().referrers = referrers;
    }

    /// Lists referrers in pages of so many, each with a `Link` to the next.
    pub fn page_referrers(&self, referrers: usize) {
        self.shared.state().referrers_page = referrers;
    }

    /// Closes the listener and cuts all connections: nobody answers on its port any more.
    pub fn go_down(&self) {
        *self.tasks.lock().unwrap() = JoinSet::new();
    }

    /// Listens again, on the same port, with the same contents.
    pub async fn come_back(&self) {
        // Aborted tasks give the port back when they are next polled.
        for _ in 0..1000 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            if socket.bind(self.address).is_ok()
                && let Ok(listener) = socket.listen(1024)
            {
                self.listen(listener);
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} is still taken", self.address);
    }

    // ---- what was asked ----

    /// All requests so far, in the order in which their headers arrived.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state().requests.clone()
    }

    /// How many requests had this method (`*`: any) and a path that fits the pattern, in which `*` stands for any text.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.shared.state().requests.iter().filter(|request| fits(request, method, path)).count()
    }

    /// The requests that [`Self::count`] counts.
    pub fn requests_to(&self, method: &str, path: &str) -> Vec<Recorded> {
        self.requests().into_iter().filter(|request| fits(request, method, path)).collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.state().requests.clear();
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    fn listen(&self, listener: TcpListener) {
        let accepting = serve::accept(listener, self.tls.clone(), Arc::clone(&self.shared));
        self.tasks.lock().unwrap().spawn(accepting);
    }
}

impl FakeRegistryBuilder {
    /// Who may pull.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// TLS, with a certificate for `127.0.0.1` and `localhost` from a CA of its own.
    #[must_use]
    pub fn tls(self) -> Self {
        let identity = TestCa::new("registry").issue(&["127.0.0.1", "localhost"]);
        self.identity(identity)
    }

    /// TLS, with that certificate.
    #[must_use]
    pub fn identity(mut self, identity: TestIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Speaks HTTP/2 over TLS, and nothing else.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Demands client certificates of that CA.
    #[must_use]
    pub fn client_ca(mut self, ca: TestCa) -> Self {
        self.client_ca = Some(ca);
        self
    }

    /// Without the referrers API.
    #[must_use]
    pub fn without_referrers(mut self) -> Self {
        self.referrers = Referrers::FallbackTag;
        self
    }

    /// Starts it on a free port of 127.0.0.1.
    pub async fn start(self) -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if self.identity.is_some() { "https" } else { "http" };
        let state = State {
            contents: Contents::default(),
            files: BTreeMap::new(),
            faults: Faults::default(),
            auth: auth::Guard::new(self.auth),
            referrers: self.referrers,
            referrers_page: usize::MAX,
            requests: Vec::new(),
            connections: 0,
            origin: format!("{scheme}://{address}"),
        };
        let registry = FakeRegistry {
            shared: Arc::new(Shared { state: Mutex::new(state) }),
            address,
            scheme,
            ca_pem: self.identity.as_ref().map(|identity| identity.ca_pem().to_owned()),
            tls: self.identity.map(|identity| identity.server_config(self.client_ca.as_ref(), self.http2)),
            tasks: Mutex::new(JoinSet::new()),
        };
        registry.listen(listener);
        registry
    }
}

fn fits(request: &Recorded, method: &str, path: &str) -> bool {
    (method == "*" || request.method.as_str() == method) && fault::matches(path, &request.path)
}
