//! Blobs: whole, from an offset, or small and hashed at once.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, StatusCode};

use super::client::{Answer, Call, Client, Turn};
use super::{BlobBody, BlobRange, UpstreamError, checks};
use crate::net::{Body, read_at_most};
use crate::oci::{Digest, RepositoryName};
use crate::telemetry::UpstreamOp;

pub(super) async fn head(
    client: &Arc<Client>,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<u64>, UpstreamError> {
    let call = call(client, UpstreamOp::BlobHead, name, digest, BlobRange::Whole)?;
    let work = async {
        let turn = client.turn().await?;
        client.answer(&call, turn).await
    };
    let answer = client.within_total(work).await?;
    if answer.status != StatusCode::OK {
        return Err(client.bad("protocol"));
    }
    check_digest(client, &answer, digest)?;
    checks::length(&answer.headers).map_err(|reason| client.bad(reason))
}

pub(super) async fn get(
    client: &Arc<Client>,
    name: &RepositoryName,
    digest: &Digest,
    range: BlobRange,
) -> Result<BlobBody, UpstreamError> {
    let turn = client.blob_turn().await?;
    let (answer, length) = client.within_total(open(client, name, digest, range, turn)).await?;
    let reading = Reading { client: Arc::clone(client), body: answer.body, _turn: answer.turn, received: 0, length };
    Ok(BlobBody { length, stream: futures_util::stream::unfold(Some(reading), Reading::step).boxed() })
}

/// Small blobs are part of a decision: they do not queue behind transfers.
pub(super) async fn small(
    client: &Arc<Client>,
    name: &RepositoryName,
    digest: &Digest,
    max: u64,
) -> Result<Bytes, UpstreamError> {
    let work = async {
        let turn = client.turn().await?;
        let (answer, length) = open(client, name, digest, BlobRange::Whole, turn).await?;
        if length.is_some_and(|length| length > max) {
            return Err(client.bad("too_large"));
        }
        let bytes = read_at_most(answer.body, max).await;
        drop(answer.turn);
        bytes.map_err(|error| UpstreamError::of(&client.host, error))
    };
    let bytes = client.within_total(work).await?;
    client.telemetry.upstream_bytes(&client.host, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    if !digest.matches(&bytes) {
        return Err(client.bad("digest_mismatch"));
    }
    Ok(bytes)
}

/// Asks for the blob, and checks the headers against the range.
async fn open(
    client: &Arc<Client>,
    name: &RepositoryName,
    digest: &Digest,
    range: BlobRange,
    turn: Turn,
) -> Result<(Answer, Option<u64>), UpstreamError> {
    let call = call(client, UpstreamOp::BlobGet, name, digest, range)?;
    let answer = client.answer(&call, turn).await?;
    check_digest(client, &answer, digest)?;
    let length = length(&answer, range).map_err(|reason| client.bad(reason))?;
    Ok((answer, length))
}

fn call<'a>(
    client: &Client,
    op: UpstreamOp,
    name: &'a RepositoryName,
    digest: &Digest,
    range: BlobRange,
) -> Result<Call<'a>, UpstreamError> {
    let method = if op == UpstreamOp::BlobHead { Method::HEAD } else { Method::GET };
    let range = match range {
        BlobRange::Whole => None,
        BlobRange::From { start, end: None } => Some(format!("bytes={start}-")),
        BlobRange::From { start, end: Some(end) } => Some(format!("bytes={start}-{end}")),
    };
    let range = range.map(|text| HeaderValue::from_str(&text)).transpose().map_err(|_| client.bad("protocol"))?;
    let url = client.url(name, &format!("blobs/{digest}"));
    Ok(Call { op, method, name, url, accept: HeaderValue::from_static("application/octet-stream, */*"), range })
}

/// The registry may say which blob it sends; a storage that it redirects to does not.
fn check_digest(client: &Client, answer: &Answer, digest: &Digest) -> Result<(), UpstreamError> {
    match checks::stated_digest(&answer.headers) {
        Ok(Some(stated)) if stated.algorithm() == digest.algorithm() && stated != *digest => {
            Err(client.bad("digest_mismatch"))
        }
        Ok(_) => Ok(()),
        Err(reason) => Err(client.bad(reason)),
    }
}

/// The length of the body, after status and range have been checked: 200 for all of it, 206 for exactly the range.
fn length(answer: &Answer, range: BlobRange) -> Result<Option<u64>, &'static str> {
    let length = checks::length(&answer.headers)?;
    match (range, answer.status) {
        (BlobRange::Whole, StatusCode::OK) => Ok(length),
        (BlobRange::From { start, end }, StatusCode::PARTIAL_CONTENT) => {
            let (first, last) = checks::content_range(&answer.headers).ok_or("protocol")?;
            let stated = (last - first).checked_add(1).ok_or("protocol")?;
            let fits =
                first == start && end.is_none_or(|end| last <= end) && length.is_none_or(|length| length == stated);
            if fits { Ok(Some(stated)) } else { Err("protocol") }
        }
        (BlobRange::Whole | BlobRange::From { .. }, _) => Err("protocol"),
    }
}

/// A body on its way, with the turn that it holds.
struct Reading {
    client: Arc<Client>,
    body: Body,
    _turn: Turn,
    received: u64,
    length: Option<u64>,
}

impl Reading {
    /// The next item. After an error, and at the end, there is no next state: the connection and the turn are given back.
    async fn step(reading: Option<Self>) -> Option<(Result<Bytes, UpstreamError>, Option<Self>)> {
        let mut reading = reading?;
        let end = |reading: &Self, reason| Some((Err(reading.client.bad(reason)), None));
        match reading.body.next().await {
            Err(error) => Some((Err(UpstreamError::of(&reading.client.host, error)), None)),
            Ok(None) if reading.length.is_some_and(|length| reading.received < length) => end(&reading, "truncated"),
            Ok(None) => None,
            Ok(Some(bytes)) => {
                let arrived = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                reading.received = reading.received.saturating_add(arrived);
                reading.client.telemetry.upstream_bytes(&reading.client.host, arrived);
                if reading.length.is_some_and(|length| reading.received > length) {
                    return end(&reading, "size_mismatch");
                }
                Some((Ok(bytes), Some(reading)))
            }
        }
    }
}
