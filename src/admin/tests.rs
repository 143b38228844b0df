//! The bounds of the listener, with moved time where time is what is bounded.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::server::{Service, connection};
use super::*;
use crate::clock::Timestamp;
use crate::limits::{ADMIN_CONNECTION_LIFE, ADMIN_CONNECTIONS_MAX, ADMIN_REQUEST, HEADER_READ, REQUEST_HEADERS_MAX};
use crate::oci::Digest;
use crate::policy::{ContainersPolicy, ContainersPolicyDocument, PolicySet};
use crate::pull::VerdictTtl;
use crate::store;

const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
const RELOAD: &[u8] =
    b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nSealgate-Admin: 1\r\nContent-Length: 0\r\n\r\n";

async fn state(reload: Reload) -> State {
    let document = ContainersPolicyDocument::parse(br#"{"default": [{"type": "reject"}]}"#).unwrap();
    let containers_policy = ContainersPolicy::resolve(document, &mut |path| Err(path.to_owned())).unwrap();
    let policy =
        PolicySet::new(crate::policy::Settings { containers_policy: Some(containers_policy), ..Default::default() });
    let second = Duration::from_secs(1);
    let snapshot = Snapshot {
        policy: policy.unwrap(),
        trust_root: Digest::sha256(b"none"),
        verdict_ttl: VerdictTtl { allow: second, deny: second },
    };
    let settings = store::Settings { data_dir: None, max_bytes: 1 << 20, min_free_bytes: 0 };
    let telemetry = Telemetry::default();
    let clock = Clock::Manual(crate::clock::ManualClock::at(Timestamp::from_unix_seconds(0)));
    State {
        access: Access::default(),
        store: Store::open(settings, clock.clone(), telemetry.clone()).await.unwrap(),
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        telemetry,
        clock,
        reload,
        upstreams: Vec::new(),
        standings: Arc::new(|_| Vec::new()),
        draining: CancellationToken::new(),
    }
}

fn reload_at_once() -> Reload {
    Arc::new(|| async { Ok(Reloaded::default()) }.boxed())
}

/// A connection in memory; its other end is answered by a task of the set, which ends with it.
struct Client {
    stream: DuplexStream,
    tasks: tokio::task::JoinSet<()>,
}

impl Client {
    fn of(state: State, buffer_bytes: usize, shutdown: &CancellationToken) -> Self {
        let (stream, other) = duplex(buffer_bytes);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection(other, Arc::new(Service::new(true, state)), shutdown.clone()));
        Self { stream, tasks }
    }

    fn open(state: State) -> Self {
        Self::of(state, 64 * 1024, &CancellationToken::new())
    }

    /// Sends a request and reads what comes first, which is the whole answer where it is small.
    async fn ask(&mut self, request: &[u8]) -> String {
        self.stream.write_all(request).await.unwrap();
        let mut answer = vec![0; 16 * 1024];
        let length = self.stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    /// The time until the server ended the connection.
    async fn ended(&mut self) -> Duration {
        let began = Instant::now();
        self.tasks.join_next().await.unwrap().unwrap();
        began.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_gets_the_time_of_a_head() {
    let mut client = Client::open(state(reload_at_once()).await);
    assert_eq!(client.ended().await.as_secs(), HEADER_READ.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_at_the_end_of_its_life_and_not_before() {
    let mut client = Client::open(state(reload_at_once()).await);
    let began = Instant::now();
    let pause = Duration::from_secs(5);
    while began.elapsed() + pause < ADMIN_CONNECTION_LIFE {
        assert!(client.ask(LIVE).await.starts_with("HTTP/1.1 200"));
        sleep(pause).await;
    }
    client.ended().await;
    assert_eq!(began.elapsed().as_secs(), ADMIN_CONNECTION_LIFE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_left() {
    let mut client = Client::of(state(reload_at_once()).await, 64, &CancellationToken::new());
    client.stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(client.ended().await, ADMIN_CONNECTION_LIFE + ADMIN_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_too_long_is_given_up() {
    let mut client = Client::open(state(Arc::new(|| std::future::pending().boxed())).await);
    let began = Instant::now();
    assert!(client.ask(RELOAD).await.starts_with("HTTP/1.1 503"));
    assert_eq!(began.elapsed().as_secs(), ADMIN_REQUEST.as_secs());
}

#[tokio::test]
async fn a_panic_is_an_answer_and_is_counted() {
    let state = state(Arc::new(|| async { panic!("on purpose") }.boxed())).await;
    let telemetry = state.telemetry.clone();
    let mut client = Client::open(state);
    assert!(client.ask(RELOAD).await.starts_with("HTTP/1.1 500"));
    assert!(telemetry.render().contains("\nsealgate_panics_total 1\n"));
    assert!(client.ask(LIVE).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn draining_says_not_ready_and_ends_connections_after_their_answer() {
    let state = state(reload_at_once()).await;
    let draining = state.draining.clone();
    let shutdown = CancellationToken::new();
    let mut client = Client::of(state, 64 * 1024, &shutdown);
    let ready: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert!(client.ask(ready).await.starts_with("HTTP/1.1 200"));
    draining.cancel();
    let answer = client.ask(ready).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"draining\": true"), "{answer}");
    shutdown.cancel();
    client.ended().await;
}

#[tokio::test]
async fn headers_are_bounded_in_number() {
    let request = |headers: usize| {
        let more = "X: 1\r\n".repeat(headers - 1);
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
    };
    let mut client = Client::open(state(reload_at_once()).await);
    assert!(client.ask(request(REQUEST_HEADERS_MAX).as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert!(client.ask(request(REQUEST_HEADERS_MAX + 1).as_bytes()).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(serve(listener, state(reload_at_once()).await, shutdown.clone(), tasks.clone()));
    let mut answer = [0; 12];
    let mut held = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(LIVE).await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        held.push(stream);
    }
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(LIVE).await.unwrap();
    // It cannot be answered, so this time-out always comes; were it answered, it would be at once.
    let early = timeout(Duration::from_millis(200), waiting.read_exact(&mut answer)).await;
    assert!(early.is_err(), "answered beyond the bound");
    held.pop();
    waiting.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
}
