//! The real program under mixed load: an upstream with signed and unsigned images, clients of all kinds, and what the system
//! says of the process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sealgate::clock::Clock;
use sealgate::oci::Digest;
use sealgate::testing::sigstore::{FakeSigstore, Flaw, key_requirement};
use sealgate::testing::{BuiltImage, FakeRegistry, ImageBuilder, attach_signatures};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::random::Random;

pub(crate) const REPOSITORY: &str = "team/app";

/// The seed of this run, printed so that it can be given again.
pub(crate) fn seed() -> u64 {
    let now = || Clock::System.now().unix_millis().unsigned_abs();
    let seed = number("SEALGATE_SEED").unwrap_or_else(now);
    println!("SEALGATE_SEED={seed}");
    seed
}

/// A number from the environment.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var_os(variable)?;
    Some(text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{variable} is a number")))
}

pub(crate) fn tag_of(image: &BuiltImage) -> String {
    image.digest().hex().chars().take(12).collect()
}

/// A registry with an unsigned image, and as many signed ones as a test makes.
pub(crate) struct Upstream {
    pub(crate) registry: FakeRegistry,
    pub(crate) unsigned: BuiltImage,
    sigstore: FakeSigstore,
    seed: u64,
}

impl Upstream {
    pub(crate) async fn start(seed: u64) -> Self {
        let registry = FakeRegistry::start().await;
        let unsigned = ImageBuilder::new(seed).layer(1000).build();
        registry.put(REPOSITORY, &tag_of(&unsigned), &unsigned);
        Self { registry, sigstore: FakeSigstore::from_seed(seed, Clock::System.now()), seed, unsigned }
    }

    /// Another image with these layers, tagged and signed.
    pub(crate) fn signed_image(&self, number: u64, layers: &[usize]) -> BuiltImage {
        let builder = ImageBuilder::new(self.seed.wrapping_add(number + 1));
        let image = layers.iter().fold(builder, |builder, bytes| builder.layer(*bytes)).build();
        self.registry.put(REPOSITORY, &tag_of(&image), &image);
        let reference = format!("registry.test/{REPOSITORY}:{}", tag_of(&image));
        let key = self.sigstore.key("k");
        let signature = self.sigstore.sign_unlogged(&key, &reference, &image.digest(), Flaw::None);
        attach_signatures(&self.registry, REPOSITORY, &image.digest(), &[signature]);
        image
    }

    /// Writes what `sealgate serve` needs to mirror it, with these lines more. All clients share one address, so nothing is
    /// held back from it.
    pub(crate) fn configure(&self, dir: &Path, more: &str) {
        let policy = serde_json::json!({"default": [key_requirement(&self.sigstore.key("k"))]});
        std::fs::write(dir.join("policy.json"), policy.to_string()).unwrap();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n\
             cold_pulls_per_minute = 0\n\
             [policy]\ncontainers_policy = \"policy.json\"\n\
             [[upstream]]\nhost = \"registry.test\"\nendpoint = \"{}\"\ndefault = true\n\
             [cache]\nmin_free_bytes = \"0\"\n{more}",
            self.registry.url().trim_end_matches('/')
        );
        std::fs::write(dir.join("sealgate.toml"), config).unwrap();
    }
}

/// `sealgate serve` as a process of its own, killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// From the start of the process to its first answer.
    pub(crate) ready_in: Duration,
    data: PathBuf,
}

/// What the system says of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) rss_kib: u64,
    /// Of it, what is no file in memory.
    pub(crate) anonymous_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
}

impl Program {
    pub(crate) async fn start(dir: &Path) -> Self {
        let began = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealgate"))
            .args(["serve", "--config"])
            .arg(dir.join("sealgate.toml"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut addresses = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while addresses.len() < 2 {
            let line = lines.next().expect("the program starts").unwrap();
            addresses.extend(["registry", "admin"].iter().filter_map(|name| address_in(&line, name)));
        }
        let answer = get(addresses[0], "GET", "/v2/", None).await.expect("it answers");
        assert_eq!(answer.status, 200);
        let (address, admin) = (addresses[0], addresses[1]);
        Self { child, address, admin, ready_in: began.elapsed(), data: dir.join("data") }
    }

    /// The files in `staging/`.
    pub(crate) fn staging(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data.join("staging"));
        entries.map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect()).unwrap_or_default()
    }

    pub(crate) fn usage(&self) -> Usage {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        let field = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let descriptors = std::fs::read_dir(folder.join("fd")).map_or(0, Iterator::count);
        Usage { rss_kib: field("VmRSS"), anonymous_kib: field("RssAnon"), descriptors, threads: field("Threads") }
    }

    /// The sum of all series of that name.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let page = get(self.admin, "GET", "/metrics", None).await?;
        let text = String::from_utf8_lossy(&page.body).into_owned();
        let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let values: Vec<f64> = values.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// As SIGKILL does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As SIGTERM does; how it ended, and how long that took.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        (self.child.wait().unwrap(), began.elapsed())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The address in the line of the banner that begins with that name.
fn address_in(line: &str, name: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://").filter(|_| line.trim_start().starts_with(name))?;
    rest.split(|char: char| char.is_whitespace() || char == '/').next()?.parse().ok()
}

/// An answer that came whole, as its `Content-Length` says.
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// One request on a connection of its own; `None`: what came was not whole.
pub(crate) async fn get(
    address: SocketAddr,
    method: &str,
    target: &str,
    range: Option<(usize, usize)>,
) -> Option<Whole> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let range = range.map(|(first, last)| format!("Range: bytes={first}-{last}\r\n")).unwrap_or_default();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n{range}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).ok()?;
    let body = Bytes::from(answer.split_off(end + 4));
    let field =
        |name: &str| head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(str::to_owned));
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length: Option<usize> = field("content-length: ").and_then(|text| text.parse().ok());
    let whole = method == "HEAD" || field("transfer-encoding: ").is_some() || length == Some(body.len());
    whole.then_some(Whole { status, body })
}

/// What clients saw, counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) whole: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) left: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// The blobs that a client has received whole.
    pub(crate) acknowledged: Mutex<Vec<Digest>>,
}

/// One client that goes on until it is aborted: tags, digests, blobs, ranges, HEAD, lists; sometimes it leaves. Whatever it
/// receives whole must be right.
pub(crate) async fn client(
    mirror: SocketAddr,
    images: Vec<BuiltImage>,
    unsigned: BuiltImage,
    tally: &Tally,
    seed: u64,
) {
    let mut random = Random::new(seed);
    loop {
        let image = random.one_of(&images);
        let manifests = format!("/v2/{REPOSITORY}/manifests");
        match random.below(12) {
            0 => {
                let answer = get(mirror, "GET", &format!("{manifests}/{}", tag_of(&unsigned)), None).await;
                assert!(answer.as_ref().is_none_or(|answer| answer.status != 200), "an unsigned image was served");
                tally.count(answer.as_ref());
            }
            1 => {
                let answer = get(mirror, "GET", &format!("{manifests}/{}", image.digest()), None).await;
                tally.image(answer, image);
            }
            2 => {
                let lists =
                    [format!("/v2/{REPOSITORY}/tags/list"), format!("/v2/{REPOSITORY}/referrers/{}", image.digest())];
                tally.count(get(mirror, "GET", &lists[random.below(2)], None).await.as_ref());
            }
            3 => {
                let blob = random.one_of(&image.blobs);
                let target = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
                tally.count(get(mirror, "HEAD", &target, None).await.as_ref());
            }
            4 => {
                let blob = random.one_of(&image.blobs);
                let first = random.below(blob.bytes.len());
                let last = first + random.below(blob.bytes.len() - first);
                let target = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
                let answer = get(mirror, "GET", &target, Some((first, last))).await;
                if let Some(Whole { status: 206, body }) = &answer {
                    // A range that starts later may be handed on before the whole is verified.
                    assert!(first > 0 || *body == blob.bytes[first..=last], "a wrong range was served");
                }
                tally.count(answer.as_ref());
            }
            5 => {
                let blob = random.one_of(&image.blobs);
                let request = format!("GET /v2/{REPOSITORY}/blobs/{} HTTP/1.1\r\nHost: mirror\r\n\r\n", blob.digest);
                if let Ok(mut stream) = TcpStream::connect(mirror).await {
                    drop(stream.write_all(request.as_bytes()).await);
                    drop(stream.read(&mut [0; 3000]).await);
                    tally.left.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {
                pull(mirror, image, tally).await;
            }
        }
        // A mirror that is away is not asked in a circle.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Pulls as clients do: tag, then every blob.
pub(crate) async fn pull(mirror: SocketAddr, image: &BuiltImage, tally: &Tally) -> bool {
    let answer = get(mirror, "GET", &format!("/v2/{REPOSITORY}/manifests/{}", tag_of(image)), None).await;
    if !tally.image(answer, image) {
        return false;
    }
    for blob in &image.blobs {
        let answer = get(mirror, "GET", &format!("/v2/{REPOSITORY}/blobs/{}", blob.digest), None).await;
        tally.count(answer.as_ref());
        match answer {
            Some(Whole { status: 200, body }) => {
                assert!(body == blob.bytes, "a wrong blob was served");
                tally.acknowledged.lock().unwrap().push(blob.digest);
            }
            _ => return false,
        }
    }
    true
}

impl Tally {
    /// Whether the image was served; if it was, it is the right one.
    fn image(&self, answer: Option<Whole>, image: &BuiltImage) -> bool {
        self.count(answer.as_ref());
        let Some(Whole { status: 200, body }) = answer else { return false };
        assert!(body == image.manifest.bytes, "a wrong manifest was served");
        true
    }

    fn count(&self, answer: Option<&Whole>) {
        let of = match answer.map(|answer| answer.status) {
            None => &self.cut,
            Some(200 | 206) => &self.whole,
            Some(403 | 404) => &self.refused,
            Some(_) => &self.failed,
        };
        of.fetch_add(1, Ordering::Relaxed);
        let bytes = answer.map_or(0, |answer| answer.body.len());
        self.bytes.fetch_add(bytes.try_into().unwrap(), Ordering::Relaxed);
    }
}
