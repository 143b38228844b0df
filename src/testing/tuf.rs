//! A TUF repository that serves a trust root, with everything about it open to being wrong.
//!
//! [`FakeTuf`] builds and signs the four roles; a test changes one thing, publishes, and looks at what the client does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

use super::sigstore::FakeKey;
use crate::clock::Timestamp;
use crate::oci::Digest;

/// One role's state.
#[derive(Debug)]
pub struct TufRole {
    /// The version of the metadata that is published next.
    pub version: u64,
    /// When it ends.
    pub expires: Timestamp,
    /// The keys that the root names for the role.
    pub keys: Vec<FakeKey>,
    /// How many of them must have signed.
    pub threshold: u64,
    /// The keys that do sign; empty: those that the root names.
    pub signers: Vec<FakeKey>,
}

/// The four roles.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the role of its name")]
pub struct TufRoles {
    pub root: TufRole,
    pub timestamp: TufRole,
    pub snapshot: TufRole,
    pub targets: TufRole,
}

/// A TUF repository with consistent snapshots, served on a port of 127.0.0.1.
#[derive(Debug)]
pub struct FakeTuf {
    /// What is signed next.
    pub roles: TufRoles,
    seed: u64,
    bootstrap: Vec<u8>,
    answers: Answers,
    requests: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// By path, the whole answer.
type Answers = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

impl FakeTuf {
    /// Publishes that trust root in version 1 of everything, good for a week from `now`.
    pub async fn start(seed: u64, trusted_root: &str, now: Timestamp) -> Self {
        let role = |label: &str| TufRole {
            version: 1,
            expires: now.plus(Duration::from_hours(7 * 24)),
            keys: vec![FakeKey::p256(seed, label)],
            threshold: 1,
            signers: Vec::new(),
        };
        let roles = TufRoles {
            root: TufRole { keys: vec![FakeKey::p256(seed, "root"), FakeKey::ed25519(seed, "root")], ..role("root") },
            timestamp: role("timestamp"),
            snapshot: role("snapshot"),
            targets: role("targets"),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answers, requests) = (Answers::default(), Arc::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&answers), Arc::clone(&requests)));
        let mut tuf = Self { roles, seed, bootstrap: Vec::new(), answers, requests, address, _tasks: tasks };
        tuf.bootstrap = tuf.publish_root();
        tuf.publish(trusted_root);
        tuf
    }

    /// Where it is.
    pub fn url(&self) -> Url {
        format!("http://{}/", self.address).parse().unwrap()
    }

    /// The first root: what a client begins from.
    pub fn bootstrap(&self) -> Vec<u8> {
        self.bootstrap.clone()
    }

    /// A key of that seed and name; the roles' first ones are named as they are.
    pub fn key(seed: u64, label: &str) -> FakeKey {
        FakeKey::p256(seed, label)
    }

    /// A key that the root does not name.
    pub fn other_key(&self, label: &str) -> FakeKey {
        FakeKey::p256(self.seed, &format!("other {label}"))
    }

    /// Publishes a trust root, with the roles' versions as they are; then all but the root's grow by one.
    pub fn publish(&mut self, trusted_root: &str) {
        self.publish_targets(&json!({
            "trusted_root.json": {
                "length": trusted_root.len(),
                "hashes": {"sha256": Digest::sha256(trusted_root.as_bytes()).hex()},
            },
        }));
        let name = format!("{}.trusted_root.json", Digest::sha256(trusted_root.as_bytes()).hex());
        self.put(&format!("targets/{name}"), trusted_root.as_bytes());
    }

    /// Publishes these targets without the files that they name.
    pub fn publish_targets(&mut self, targets: &Value) {
        self.publish_signed_targets(&json!({ "targets": targets }));
    }

    /// Publishes a targets role with these members, and what vouches for it.
    pub fn publish_signed_targets(&mut self, members: &Value) {
        let targets = Self::signed(&self.roles.targets, "targets", members);
        self.put(&format!("{}.targets.json", self.roles.targets.version), &targets);
        let snapshot = json!({"meta": {"targets.json": pin(self.roles.targets.version, &targets)}});
        let snapshot = Self::signed(&self.roles.snapshot, "snapshot", &snapshot);
        self.put(&format!("{}.snapshot.json", self.roles.snapshot.version), &snapshot);
        let timestamp = json!({"meta": {"snapshot.json": pin(self.roles.snapshot.version, &snapshot)}});
        let timestamp = Self::signed(&self.roles.timestamp, "timestamp", &timestamp);
        self.put("timestamp.json", &timestamp);
        for role in [&mut self.roles.targets, &mut self.roles.snapshot, &mut self.roles.timestamp] {
            role.version += 1;
        }
    }

    /// Publishes a root that names the roles' keys as they are, signed by the root role's signers; then its version grows.
    pub fn publish_root(&mut self) -> Vec<u8> {
        let mut keys = serde_json::Map::new();
        let mut roles = serde_json::Map::new();
        let all = [
            ("root", &self.roles.root),
            ("timestamp", &self.roles.timestamp),
            ("snapshot", &self.roles.snapshot),
            ("targets", &self.roles.targets),
        ];
        for (name, role) in all {
            let ids: Vec<String> = role.keys.iter().map(key_id).collect();
            keys.extend(role.keys.iter().map(|key| (key_id(key), public(key))));
            roles.insert(name.to_owned(), json!({"keyids": ids, "threshold": role.threshold}));
        }
        let root =
            Self::signed(&self.roles.root, "root", &json!({"keys": keys, "roles": roles, "consistent_snapshot": true}));
        self.put(&format!("{}.root.json", self.roles.root.version), &root);
        self.roles.root.version += 1;
        root
    }

    fn signed(role: &TufRole, kind: &str, members: &Value) -> Vec<u8> {
        let mut signed = json!({
            "_type": kind, "spec_version": "1.0.31", "version": role.version,
            // TUF's times have no fractions.
            "expires": Timestamp::from_unix_seconds(role.expires.unix_seconds()).to_string(),
        });
        signed.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let message = sigstore_tuf::canonical_json::to_canonical_bytes(&signed).unwrap();
        let signers = if role.signers.is_empty() { &role.keys } else { &role.signers };
        let signatures: Vec<Value> =
            signers.iter().map(|key| json!({"keyid": key_id(key), "sig": hex::encode(key.sign(&message))})).collect();
        json!({"signed": signed, "signatures": signatures}).to_string().into_bytes()
    }

    /// Serves that file.
    pub fn put(&self, path: &str, content: &[u8]) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
        self.answer(path, [head.as_bytes(), content].concat());
    }

    /// Answers requests for that path with exactly these bytes.
    pub fn answer(&self, path: &str, answer: impl Into<Vec<u8>>) {
        self.answers.lock().unwrap().insert(format!("/{path}"), answer.into());
    }

    /// Answers 404 for that path.
    pub fn remove(&self, path: &str) {
        self.answers.lock().unwrap().remove(&format!("/{path}"));
    }

    /// Everything that is served, for putting it back later.
    pub fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        self.answers.lock().unwrap().clone()
    }

    /// Serves exactly that.
    pub fn restore(&self, answers: BTreeMap<String, Vec<u8>>) {
        *self.answers.lock().unwrap() = answers;
    }

    /// The paths that were asked for since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn pin(version: u64, content: &[u8]) -> Value {
    json!({"version": version, "length": content.len(), "hashes": {"sha256": Digest::sha256(content).hex()}})
}

fn key_id(key: &FakeKey) -> String {
    key.fingerprint().hex()
}

fn public(key: &FakeKey) -> Value {
    let (keytype, scheme) = if key.is_ed25519() { ("ed25519", "ed25519") } else { ("ecdsa", "ecdsa-sha2-nistp256") };
    json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": key.public_pem()}})
}

async fn serve(listener: TcpListener, answers: Answers, requests: Arc<Mutex<Vec<String>>>) {
    let mut open = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        while open.try_join_next().is_some() {}
        open.spawn(answer(stream, Arc::clone(&answers), Arc::clone(&requests)));
    }
}

async fn answer(mut stream: TcpStream, answers: Answers, requests: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(1..) if request.len() < 64 * 1024 => {}
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = answers.lock().unwrap().get(&path).cloned();
    requests.lock().unwrap().push(path);
    let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = answer.unwrap_or_else(|| missing.to_vec());
    if stream.write_all(&answer).await.is_ok() && stream.shutdown().await.is_ok() {
        // Waits until the other side has closed too, so that no reset overtakes the answer.
        drop(tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0; 1024])).await);
    }
}
