//! `kill -9` at any moment of a pull: the real program, killed and started again on the same directory.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sealgate::clock::Clock;
use sealgate::oci::Digest;
use sealgate::testing::sigstore::{FakeSigstore, Flaw, key_requirement, signature_image};
use sealgate::testing::{BuiltImage, FakeRegistry, Fault, ImageBuilder, pseudo_random};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Moments at which the program is killed.
const KILLS: u64 = 24;
const REPOSITORY: &str = "team/app";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_01_a_kill_at_any_moment_of_a_pull_leaves_nothing_wrong() {
    let seed = std::env::var_os("SEALGATE_SEED")
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or_else(|| Clock::System.now().unix_millis().unsigned_abs());
    println!("SEALGATE_SEED={seed}");
    let upstream = Upstream::start(seed).await;
    let dir = tempfile::tempdir().unwrap();
    upstream.configure(dir.path());
    let moments = pseudo_random(seed, usize::try_from(KILLS).unwrap());
    for (round, moment) in (0..KILLS).zip(moments) {
        let signed = upstream.signed_image(round);
        let mirror = Mirror::start(dir.path());
        assert_eq!(mirror.staging(), Vec::<PathBuf>::new(), "round {round}: staging is empty after a start");
        let address = mirror.address;
        let pulls = tokio::spawn({
            let (signed, unsigned) = (signed.clone(), upstream.unsigned.clone());
            async move { tokio::join!(pull(address, &signed), pull(address, &unsigned)) }
        });
        // Any moment will do: none of the assertions depends on how far the pull came.
        tokio::time::sleep(Duration::from_millis(u64::from(moment))).await;
        mirror.kill();
        pulls.abort();
        every_cached_file_is_what_its_name_says(&dir.path().join("data/blobs"));

        let mirror = Mirror::start(dir.path());
        assert_eq!(mirror.staging(), Vec::<PathBuf>::new(), "round {round}: staging is empty after a start");
        assert_eq!(pull(mirror.address, &signed).await, Outcome::Whole, "round {round}");
        assert_eq!(pull(mirror.address, &upstream.unsigned).await, Outcome::Refused, "round {round}");
        mirror.kill();
    }
    assert!(upstream.registry.count("GET", "*/blobs/*") > 0);
}

/// What became of a pull.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Every byte came, and is the right one.
    Whole,
    /// The manifest was refused.
    Refused,
    /// The mirror went away.
    Broken,
}

/// Pulls as a client does: tag, then every blob; whatever comes whole must be right.
async fn pull(mirror: SocketAddr, image: &BuiltImage) -> Outcome {
    let tag = tag_of(&image.digest());
    match get(mirror, &format!("/v2/{REPOSITORY}/manifests/{tag}")).await {
        Some((200, body)) => assert!(image.digest().matches(&body), "a wrong manifest was served"),
        Some((403, _)) => return Outcome::Refused,
        Some(_) | None => return Outcome::Broken,
    }
    for blob in &image.blobs {
        let target = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
        match get(mirror, &target).await {
            Some((200, body)) => assert!(blob.digest.matches(&body), "a wrong blob was served"),
            Some(_) | None => return Outcome::Broken,
        }
    }
    Outcome::Whole
}

/// Status and body of an answer that came whole, as its `Content-Length` says.
async fn get(mirror: SocketAddr, target: &str) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(mirror).await.ok()?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {mirror}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).ok()?;
    let body = answer.split_off(end + 4);
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let status = head.split(' ').nth(1)?.parse().ok()?;
    (length == Some(body.len())).then_some((status, body))
}

fn tag_of(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

struct Upstream {
    registry: FakeRegistry,
    sigstore: FakeSigstore,
    seed: u64,
    unsigned: BuiltImage,
}

impl Upstream {
    async fn start(seed: u64) -> Self {
        let registry = FakeRegistry::start().await;
        let unsigned = ImageBuilder::new(seed).layer(1000).build();
        registry.put(REPOSITORY, &tag_of(&unsigned.digest()), &unsigned);
        // Slow enough that kills fall into the middle of transfers.
        registry.fault(Fault::on("*/blobs/*").get().drip(16 * 1024, Duration::from_millis(2)));
        Self { registry, sigstore: FakeSigstore::from_seed(seed, Clock::System.now()), seed, unsigned }
    }

    fn signed_image(&self, round: u64) -> BuiltImage {
        let image = ImageBuilder::new(self.seed.wrapping_add(round + 1)).layer(300_000).layer(200_000).build();
        let tag = tag_of(&image.digest());
        self.registry.put(REPOSITORY, &tag, &image);
        let reference = format!("registry.test/{REPOSITORY}:{tag}");
        let signature = self.sigstore.sign_unlogged(&self.sigstore.key("k"), &reference, &image.digest(), Flaw::None);
        let signatures = format!("sha256-{}.sig", image.digest().hex());
        self.registry.put(REPOSITORY, &signatures, &signature_image(&[signature]));
        image
    }

    fn configure(&self, dir: &Path) {
        let mut requirement = key_requirement(&self.sigstore.key("k"));
        requirement["signedIdentity"] = json!({"type": "matchRepository"});
        let policy = json!({"default": [requirement]});
        std::fs::write(dir.join("policy.json"), policy.to_string()).unwrap();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n\
             [policy]\ncontainers_policy = \"policy.json\"\n\
             [[upstream]]\nhost = \"registry.test\"\nendpoint = \"{}\"\ndefault = true\n\
             [cache]\nmin_free_bytes = \"0\"\n",
            self.registry.url().trim_end_matches('/')
        );
        std::fs::write(dir.join("sealgate.toml"), config).unwrap();
    }
}

/// The program itself, on a port of its own.
struct Mirror {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
}

impl Mirror {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealgate"))
            .args(["serve", "--config"])
            .arg(dir.join("sealgate.toml"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| registry_address(&line)).expect("the mirror starts");
        Self { child, address, data: dir.join("data") }
    }

    fn staging(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data.join("staging"));
        entries.map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The address in the line of the banner that names the registry API.
fn registry_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://").filter(|_| line.contains("registry"))?;
    rest.split(|char: char| char.is_whitespace() || char == '/').next()?.parse().ok()
}

fn every_cached_file_is_what_its_name_says(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            every_cached_file_is_what_its_name_says(&path);
        } else {
            let content = std::fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(Digest::sha256(&content).hex(), name, "{}", path.display());
        }
    }
}
