//! Blobs: whole, from an offset, or small and hashed at once.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, StatusCode};

use super::checks::{self, ContentRange};
use super::client::{Answer, AskedRange, Call, Client, Turn};
use super::failover::Endpoint;
use super::{BlobBody, BlobRange, BlobRest, Said, UpstreamError, Validator};
use crate::net::{Body, read_at_most};
use crate::oci::{Digest, RepositoryName};
use crate::telemetry::UpstreamOp;

pub(super) async fn head(
    client: &Endpoint,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<u64>, UpstreamError> {
    let call = call(client, UpstreamOp::BlobHead, name, digest, None);
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
    client: &Endpoint,
    name: &RepositoryName,
    digest: &Digest,
    range: BlobRange,
) -> Result<BlobBody, UpstreamError> {
    let turn = client.blob_turn().await?;
    let asked = asked(client, range, None)?;
    let work = async {
        let answer = open(client, name, digest, asked, turn).await?;
        let length = length(&answer, range).map_err(|reason| client.bad(reason))?;
        Ok((answer, length))
    };
    let (answer, length) = client.within_total(work).await?;
    Ok(body(client, answer, length))
}

/// The rest of a blob of which the first `start` bytes have come: from there on, or once more from the beginning where the
/// registry knows no ranges or has other bytes than before.
pub(super) async fn rest(
    client: &Endpoint,
    name: &RepositoryName,
    digest: &Digest,
    start: u64,
    validator: &Validator,
) -> Result<BlobRest, UpstreamError> {
    let turn = client.blob_turn().await?;
    let tag = validator.of(client.reach.endpoint()).and_then(|said| said.tag.clone());
    let range = if start == 0 { BlobRange::Whole } else { BlobRange::From { start, end: None } };
    let asked = asked(client, range, tag)?;
    let work = async {
        let answer = open(client, name, digest, asked, turn).await?;
        let (start, length) = rest_of(client, &answer, start, validator).map_err(|reason| client.bad(reason))?;
        Ok((answer, start, length))
    };
    let (answer, start, length) = client.within_total(work).await?;
    Ok(BlobRest { start, body: body(client, answer, length) })
}

/// Where the body of such an answer begins, and its length.
fn rest_of(
    client: &Client,
    answer: &Answer,
    start: u64,
    validator: &Validator,
) -> Result<(u64, Option<u64>), &'static str> {
    if answer.status == StatusCode::OK {
        return Ok((0, checks::length(&answer.headers)?));
    }
    let (range, length) = partial(answer).filter(|_| start > 0).ok_or("protocol")?;
    // Who ignores `If-Range` may send a part of something else. Where it said no length before, the whole's must be there now.
    let said = validator.of(client.reach.endpoint());
    let same = match (said.and_then(|said| said.tag.as_ref()), checks::strong_tag(&answer.headers)) {
        (Some(known), Some(tag)) => *known == tag,
        (Some(_) | None, _) => true,
    };
    let whole = match range.total {
        Some(total) => total == validator.size && range.last == validator.size.saturating_sub(1),
        None => said.is_some_and(|said| said.size) && range.last == validator.size.saturating_sub(1),
    };
    if same && whole && range.first == start { Ok((start, Some(length))) } else { Err("protocol") }
}

fn body(client: &Arc<Client>, answer: Answer, length: Option<u64>) -> BlobBody {
    let whole = answer.status == StatusCode::OK && length.is_some();
    let total = checks::content_range(&answer.headers).and_then(|range| range.total);
    let said = Box::new(Said {
        endpoint: client.reach.endpoint().clone(),
        size: whole || total.is_some(),
        tag: checks::strong_tag(&answer.headers),
    });
    let reading = Reading { client: Arc::clone(client), body: answer.body, _turn: answer.turn, received: 0, length };
    BlobBody { length, said, stream: futures_util::stream::unfold(Some(reading), Reading::step).boxed() }
}

/// Small blobs are part of a decision: they do not queue behind transfers.
pub(super) async fn small(
    client: &Endpoint,
    name: &RepositoryName,
    digest: &Digest,
    max: u64,
) -> Result<Bytes, UpstreamError> {
    let work = async {
        let turn = client.turn().await?;
        let answer = open(client, name, digest, None, turn).await?;
        let length = length(&answer, BlobRange::Whole).map_err(|reason| client.bad(reason))?;
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

/// Asks for the blob; what it answers is this blob or a part of it, by what it says.
async fn open(
    client: &Endpoint,
    name: &RepositoryName,
    digest: &Digest,
    range: Option<AskedRange>,
    turn: Turn,
) -> Result<Answer, UpstreamError> {
    let call = call(client, UpstreamOp::BlobGet, name, digest, range);
    let answer = client.answer(&call, turn).await?;
    check_digest(client, &answer, digest)?;
    Ok(answer)
}

fn call<'a>(
    client: &Client,
    op: UpstreamOp,
    name: &'a RepositoryName,
    digest: &Digest,
    range: Option<AskedRange>,
) -> Call<'a> {
    let method = if op == UpstreamOp::BlobHead { Method::HEAD } else { Method::GET };
    let url = client.url(name, &format!("blobs/{digest}"));
    Call { op, method, name, url, accept: HeaderValue::from_static("application/octet-stream, */*"), range }
}

fn asked(
    client: &Client,
    range: BlobRange,
    if_range: Option<HeaderValue>,
) -> Result<Option<AskedRange>, UpstreamError> {
    let text = match range {
        BlobRange::Whole => return Ok(None),
        BlobRange::From { start, end: None } => format!("bytes={start}-"),
        BlobRange::From { start, end: Some(end) } => format!("bytes={start}-{end}"),
    };
    let range = HeaderValue::from_str(&text).map_err(|_| client.bad("protocol"))?;
    Ok(Some(AskedRange { range, if_range }))
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
            let (range, stated) = partial(answer).ok_or("protocol")?;
            let fits = range.first == start && end.is_none_or(|end| range.last <= end);
            if fits { Ok(Some(stated)) } else { Err("protocol") }
        }
        (BlobRange::Whole | BlobRange::From { .. }, _) => Err("protocol"),
    }
}

/// The range and length of a 206, if they agree.
fn partial(answer: &Answer) -> Option<(ContentRange, u64)> {
    let range = checks::content_range(&answer.headers).filter(|_| answer.status == StatusCode::PARTIAL_CONTENT)?;
    let stated = (range.last - range.first).checked_add(1)?;
    let length = checks::length(&answer.headers).ok()?;
    length.is_none_or(|length| length == stated).then_some((range, stated))
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
