//! Broken networks: a TCP proxy that cuts, delays and swallows, and a server that says exactly some bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the proxy does with what passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chaos {
    /// Hands everything on.
    #[default]
    Pass,
    /// Waits before each piece from the server.
    Delay(Duration),
    /// Accepts connections and swallows everything; nothing comes back.
    Blackhole,
    /// Resets each connection, those that are open too.
    Reset,
    /// Closes each connection after so many bytes from the server.
    CutAfter(usize),
    /// Resets each connection after so many bytes from the server.
    ResetAfter(usize),
}

/// A TCP proxy in front of one address; it ends, with all its connections, when it is dropped.
///
/// [`ChaosProxy::set`] takes effect at once, on open connections too.
#[derive(Debug)]
pub struct ChaosProxy {
    address: SocketAddr,
    chaos: watch::Sender<Chaos>,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl ChaosProxy {
    /// A proxy on a free port of 127.0.0.1 that hands everything on to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (chaos, watched) = watch::channel(Chaos::Pass);
        let connections = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                *counted.lock().unwrap() += 1;
                while open.try_join_next().is_some() {}
                open.spawn(pass(client, target, watched.clone()));
            }
        });
        Self { address, chaos, connections, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does from now on.
    pub fn set(&self, chaos: Chaos) {
        self.chaos.send_replace(chaos);
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, mut chaos: watch::Receiver<Chaos>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let mut up = vec![0; 16 * 1024];
    let mut down = vec![0; 16 * 1024];
    let mut sent = 0;
    let mut changed = true;
    loop {
        let mode = *chaos.borrow_and_update();
        match mode {
            Chaos::Reset => return reset(&client),
            Chaos::Blackhole => {
                if chaos.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Chaos::Pass | Chaos::Delay(_) | Chaos::CutAfter(_) | Chaos::ResetAfter(_) => {}
        }
        // Losing a branch is safe: reading from a TCP stream takes nothing until it completes.
        let (from_client, read) = tokio::select! {
            change = chaos.changed(), if changed => {
                changed = change.is_ok();
                continue;
            }
            read = client.read(&mut up) => (true, read),
            read = server.read(&mut down) => (false, read),
        };
        let Ok(count @ 1..) = read else { return };
        if from_client {
            if server.write_all(&up[..count]).await.is_err() {
                return;
            }
            continue;
        }
        let allowed = match mode {
            Chaos::CutAfter(limit) | Chaos::ResetAfter(limit) => count.min(limit.saturating_sub(sent)),
            Chaos::Delay(time) => {
                tokio::time::sleep(time).await;
                count
            }
            Chaos::Pass | Chaos::Blackhole | Chaos::Reset => count,
        };
        if client.write_all(&down[..allowed]).await.is_err() {
            return;
        }
        sent += allowed;
        if allowed < count {
            if matches!(mode, Chaos::ResetAfter(_)) {
                reset(&client);
            }
            return;
        }
    }
}

/// Closing the stream after this sends RST.
fn reset(stream: &TcpStream) {
    drop(stream.set_zero_linger());
}

/// A server that answers each connection's first request with exactly these bytes, and then closes it.
#[derive(Debug)]
pub struct RawServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: JoinSet<()>,
}

impl RawServer {
    /// Starts on a free port of 127.0.0.1.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&requests);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                while open.try_join_next().is_some() {}
                open.spawn(say(stream, Arc::clone(&answer), Arc::clone(&recorded)));
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first bytes that each connection sent.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.requests.lock().unwrap().clone()
    }
}

async fn say(mut stream: TcpStream, answer: Arc<[u8]>, recorded: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut request = vec![0; 64 * 1024];
    let Ok(count) = stream.read(&mut request).await else { return };
    request.truncate(count);
    recorded.lock().unwrap().push(request);
    if stream.write_all(&answer).await.is_ok() && stream.shutdown().await.is_ok() {
        // Waits until the other side has closed too, so that no reset overtakes the answer.
        drop(tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0; 1024])).await);
    }
}
