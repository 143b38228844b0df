//! What clients ask for, and how it is sent.

use std::net::SocketAddr;

use sealgate::oci::Digest;
use sealgate::testing::http::{Answer, exchange};

use super::model::{ImageId, RepositoryId, TagId};
use super::world::{REPOSITORIES, TAGS, catalogue};

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Tag(RepositoryId, TagId),
    Image(RepositoryId, ImageId),
    Blob(RepositoryId, usize, Range),
    Referrers(RepositoryId, ImageId),
    Tags(RepositoryId),
    Signatures(RepositoryId, ImageId),
}

/// The part of a blob that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    Whole,
    Part(usize, usize),
    Last(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) ask: Ask,
    pub(super) head: bool,
    /// What the client says that it has.
    pub(super) known: Option<Digest>,
}

impl Request {
    /// A plain GET.
    pub(super) fn get(ask: Ask) -> Self {
        Self { ask, head: false, known: None }
    }
}

/// Sends it on a connection of its own; `None`: no head of an answer came.
pub(super) async fn ask(address: SocketAddr, request: Request) -> Option<Answer> {
    let (method, target, headers) = words(request);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    exchange(address, method, &target, &headers).await
}

/// The request as it is sent: method, target, headers.
pub(super) fn words(request: Request) -> (&'static str, String, Vec<(&'static str, String)>) {
    let catalogue = catalogue();
    let target = match request.ask {
        Ask::Tag(repository, tag) => format!("/v2/{}/manifests/{}", REPOSITORIES[repository], TAGS[tag]),
        Ask::Image(repository, image) => {
            format!("/v2/{}/manifests/{}", REPOSITORIES[repository], catalogue.images[image].digest())
        }
        Ask::Blob(repository, blob, _) => format!("/v2/{}/blobs/{}", REPOSITORIES[repository], catalogue.blobs[blob].0),
        Ask::Referrers(repository, image) => {
            format!("/v2/{}/referrers/{}", REPOSITORIES[repository], catalogue.images[image].digest())
        }
        Ask::Tags(repository) => format!("/v2/{}/tags/list", REPOSITORIES[repository]),
        Ask::Signatures(repository, image) => {
            let hex = catalogue.images[image].digest().hex().clone();
            format!("/v2/{}/manifests/sha256-{hex}.sig", REPOSITORIES[repository])
        }
    };
    let range = match request.ask {
        Ask::Blob(_, _, Range::Part(first, last)) => Some(format!("bytes={first}-{last}")),
        Ask::Blob(_, _, Range::Last(count)) => Some(format!("bytes=-{count}")),
        _ => None,
    };
    let known = request.known.map(|digest| ("If-None-Match", format!("\"{digest}\"")));
    let headers = range.map(|range| ("Range", range)).into_iter().chain(known).collect();
    (if request.head { "HEAD" } else { "GET" }, target, headers)
}
