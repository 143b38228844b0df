//! A client of raw bytes: what no library would send, and what comes back as it came.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// No answer takes longer unless something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The reason phrase.
    pub(crate) reason: String,
    /// Head as it came, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn detail(&self, key: &str) -> String {
        self.json()["errors"][0]["detail"][key].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection that sends what it is told.
#[derive(Debug)]
pub(crate) struct Wire<S = TcpStream> {
    stream: S,
    read: Vec<u8>,
}

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Connects from another loopback address.
    pub(crate) async fn open_from(from: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends as much as the server takes.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads one answer to a request that was not a HEAD.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more().await > 0, "the body ends short: {answer:?}");
        }
        answer.body = self.read.drain(..length).collect();
        answer
    }

    /// Reads the head of an answer.
    pub(crate) async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(self.more().await > 0, "no answer: {:?}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let (line, headers) = head.split_once("\r\n").unwrap();
        let (_, rest) = line.split_once(' ').unwrap();
        let (status, reason) = rest.split_once(' ').unwrap();
        let headers = headers.lines().filter_map(|line| line.split_once(": "));
        Answer {
            status: status.parse().unwrap(),
            reason: reason.to_owned(),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: Vec::new(),
        }
    }

    /// Reads so many bytes of a body.
    pub(crate) async fn first(&mut self, bytes: usize) -> Vec<u8> {
        while self.read.len() < bytes {
            assert!(self.more().await > 0, "the body ends after {} bytes", self.read.len());
        }
        self.read.drain(..bytes).collect()
    }

    /// Reads until the server closes; gives what came before.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.read)
    }

    /// Reads a piece; 0 when the server has closed or reset the connection.
    async fn more(&mut self) -> usize {
        let reading = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read));
        reading.await.unwrap_or_else(|_| panic!("the server neither answers nor closes")).unwrap_or(0)
    }
}

/// Sends one request's bytes on a connection of its own and reads the first answer.
pub(crate) async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut wire = Wire::open(address).await;
    wire.send(bytes).await;
    wire.answer().await
}

/// GET of a path, with further header lines.
pub(crate) async fn get(address: SocketAddr, target: &str, headers: &str) -> Answer {
    exchange(address, format!("GET {target} HTTP/1.1\r\nHost: mirror\r\n{headers}Connection: close\r\n\r\n")).await
}

/// HEAD of a path, with further header lines.
pub(crate) async fn head(address: SocketAddr, target: &str, headers: &str) -> Answer {
    let mut wire = Wire::open(address).await;
    wire.send(format!("HEAD {target} HTTP/1.1\r\nHost: mirror\r\n{headers}Connection: close\r\n\r\n")).await;
    let answer = wire.head().await;
    assert!(wire.rest().await.is_empty(), "a HEAD has no body");
    answer
}
