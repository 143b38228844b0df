//! A client of a few lines that shows what is on the wire: status, reason phrase, headers, body, and broken endings.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An HTTP/1.1 answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What follows it in the status line.
    pub reason: String,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, or as much of it as came.
    pub body: Bytes,
    /// Whether the body ended where it had to.
    pub complete: bool,
}

impl Answer {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// `errors[0].code` of an OCI error body.
    ///
    /// # Panics
    /// When the body is not JSON.
    pub fn error_code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends one request on a connection of its own and reads the answer to its end.
///
/// # Panics
/// When the server cannot be reached, answers nothing that is HTTP, or takes longer than [`PATIENCE`].
pub async fn send(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = try_send(address, method, target, headers).await;
    answer.unwrap_or_else(|| panic!("{method} {target}: the connection ended before the answer's head"))
}

/// As [`send`]; `None` when the connection ended before the answer's head was whole.
///
/// # Panics
/// When the server cannot be reached, or takes longer than [`PATIENCE`].
pub async fn try_send(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Option<Answer> {
    let exchange = exchange(address, method, target, headers);
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{method} {target}: no answer in time"))
}

/// As [`try_send`], for as long as it takes.
///
/// # Panics
/// When the server cannot be reached.
pub async fn exchange(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let mut lines = vec![format!("{method} {target} HTTP/1.1")];
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        lines.push(format!("Host: {address}"));
    }
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    lines.push("Connection: close\r\n\r\n".to_owned());
    let request = lines.join("\r\n");
    // A server that refuses early may close before it has read everything: its answer counts.
    drop(stream.write_all(request.as_bytes()).await);
    let mut bytes = Vec::new();
    // A connection that is cut is an ending like another: what came until then is what is looked at.
    drop(stream.read_to_end(&mut bytes).await);
    parse(method, &bytes)
}

fn parse(method: &str, bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut status_line = lines.next().expect("a status line").splitn(3, ' ');
    assert_eq!(status_line.next(), Some("HTTP/1.1"), "{head}");
    let status = status_line.next().and_then(|status| status.parse().ok()).expect("a status");
    let reason = status_line.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status, reason, headers, body: Bytes::new(), complete: true };
    let rest = &bytes[end + 4..];
    if method == "HEAD" || matches!(status, 204 | 304) {
        answer.complete = rest.is_empty();
        return Some(answer);
    }
    let chunked = answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = answer.header("content-length").and_then(|value| value.parse::<usize>().ok());
    (answer.body, answer.complete) = match (chunked, length) {
        (true, _) => unchunk(rest),
        (false, Some(length)) => (Bytes::copy_from_slice(&rest[..length.min(rest.len())]), rest.len() == length),
        (false, None) => (Bytes::copy_from_slice(rest), true),
    };
    Some(answer)
}

fn unchunk(mut rest: &[u8]) -> (Bytes, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return (body.into(), false) };
        let Ok(size) = usize::from_str_radix(String::from_utf8_lossy(&rest[..end]).trim(), 16) else {
            return (body.into(), false);
        };
        rest = &rest[end + 2..];
        if size == 0 {
            return (body.into(), rest == b"\r\n");
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(&rest[..size.min(rest.len())]);
            return (body.into(), false);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// How long an answer may take; far more than any needs.
const PATIENCE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_shows_its_reason_phrase_and_whether_its_body_is_whole() {
        let whole = parse("GET", b"HTTP/1.1 403 Source image rejected: x\r\nContent-Length: 2\r\n\r\nno").unwrap();
        assert_eq!((whole.status, whole.reason.as_str(), whole.complete), (403, "Source image rejected: x", true));
        assert_eq!((whole.header("content-length"), whole.text().as_str()), (Some("2"), "no"));
        assert!(!parse("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno").unwrap().complete);
        let chunked =
            parse("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n").unwrap();
        assert_eq!((chunked.text().as_str(), chunked.complete), ("no", true));
        assert!(!parse("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n").unwrap().complete);
        assert!(parse("GET", b"HTTP/1.1 200 OK\r\n").is_none());
    }
}
