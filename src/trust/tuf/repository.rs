//! The repository's files over HTTP: bounded in bytes and time, from one origin, by names that cannot lead elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use sigstore_tuf::transport::FetchFuture;
use sigstore_tuf::{Error, Repository};
use url::Url;

use crate::limits::TUF_ROTATIONS_MAX;
use crate::net::{HttpClient, NetError, Request, read_at_most};

/// Metadata at the base, targets below `targets/`.
#[derive(Debug)]
pub(super) struct HttpRepository {
    client: HttpClient,
    /// Ends with a slash.
    base: Url,
    /// Roots that were there, of the chain that is walked.
    roots: AtomicUsize,
}

impl HttpRepository {
    pub(super) fn new(client: HttpClient, base: Url) -> Self {
        Self { client, base, roots: AtomicUsize::new(0) }
    }

    /// `None`: it is not there. Object stores say so with 403, too.
    async fn fetch(&self, folder: &str, name: &str, max: u64) -> Result<Option<Vec<u8>>, Error> {
        let url = self.url(folder, name)?;
        let unusable = |why: String| Error::transport(format!("{url}: {why}"));
        let request = Request { method: Method::GET, url: url.clone(), headers: HeaderMap::new(), body: Bytes::new() };
        let response = self.client.send(request).await.map_err(|error| unusable(error.to_string()))?;
        match response.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Ok(None),
            status if status.is_redirection() => {
                return Err(unusable(format!("{status}: redirects are not followed; name the address it leads to")));
            }
            status => return Err(unusable(status.to_string())),
        }
        match read_at_most(response.body, max).await {
            Ok(body) => Ok(Some(body.to_vec())),
            // Whoever sends more than a file of that kind can have breaks a rule, and is not away.
            Err(NetError::TooLarge { limit }) => {
                Err(Error::IntegrityMismatch(format!("{name}: more than {limit} bytes")))
            }
            Err(error) => Err(unusable(error.to_string())),
        }
    }

    /// Names contain numbers and hashes that the repository wrote: none may climb out of the folder or name another host.
    fn url(&self, folder: &str, name: &str) -> Result<Url, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() || name.starts_with('.') || name.contains("..") || !name.bytes().all(plain) {
            return Err(Error::Malformed(format!("the file name {name:?} is refused")));
        }
        self.base
            .join(&format!("{folder}{name}"))
            .map_err(|_| Error::Malformed(format!("the file name {name:?} is refused")))
    }

    /// An endless chain of good roots would keep us busy for ever.
    fn count_root(&self, name: &str) -> Result<(), Error> {
        if name.ends_with(".root.json") && self.roots.fetch_add(1, Ordering::Relaxed) >= TUF_ROTATIONS_MAX {
            return Err(Error::Malformed(format!("more than {TUF_ROTATIONS_MAX} new roots in one refresh")));
        }
        Ok(())
    }
}

impl Repository for HttpRepository {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move {
            let found = self.fetch("", name, max_length).await?;
            if found.is_some() {
                self.count_root(name)?;
            }
            Ok(found)
        })
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(self.fetch("targets/", path, max_length))
    }
}
