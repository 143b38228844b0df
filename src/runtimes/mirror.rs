//! The address under which clients reach the mirror.

use std::fmt;
use std::str::FromStr;

use crate::oci::Host;

/// `http://host[:port]` or `https://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Plain or over TLS.
    pub scheme: Scheme,
    /// Host and port.
    pub host: Host,
}

/// How clients speak to the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain: for loopback and test networks.
    Http,
    /// Over TLS.
    Https,
}

impl Mirror {
    /// Whether traffic to it leaves the machine in the clear.
    pub fn is_clear_text_off_loopback(&self) -> bool {
        let host = self.host.without_port().trim_matches(['[', ']']);
        let loopback =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.scheme == Scheme::Http && !loopback
    }
}

/// A text is no mirror address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// No scheme, or another one.
    #[error("write http:// or https:// in front, such as http://127.0.0.1:5000")]
    Scheme,
    /// Something after the host, or no host.
    #[error("write only scheme, host and port, such as https://mirror.example:5443, without path or user")]
    Host,
}

impl FromStr for Mirror {
    type Err = MirrorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(MirrorError::Scheme),
        };
        let host = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| MirrorError::Host)?;
        Ok(Self { scheme, host })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(formatter, "{scheme}://{}", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port() {
        for good in ["http://127.0.0.1:5000", "https://mirror.example", "https://[::1]:5443"] {
            assert_eq!(good.parse::<Mirror>().unwrap().to_string(), good);
        }
        assert_eq!("https://m.example/".parse::<Mirror>().unwrap().to_string(), "https://m.example");
        for bad in ["m.example:5000", "ftp://m.example", "", "HTTP://m"] {
            assert_eq!(bad.parse::<Mirror>(), Err(MirrorError::Scheme), "{bad}");
        }
        for bad in ["http://", "http://m/path", "http://u:p@m", "http://m?x", "http://m\"\n"] {
            assert_eq!(bad.parse::<Mirror>(), Err(MirrorError::Host), "{bad}");
        }
    }

    #[test]
    fn only_plain_http_to_another_machine_is_clear_text() {
        for (text, clear) in [
            ("http://127.0.0.1:5000", false),
            ("http://[::1]:5000", false),
            ("http://localhost", false),
            ("http://mirror.example", true),
            ("https://mirror.example", false),
        ] {
            assert_eq!(text.parse::<Mirror>().unwrap().is_clear_text_off_loopback(), clear, "{text}");
        }
    }
}
