//! OpenPGP signatures beside the registry: at `<base>/<path>@sha256=<hex>/signature-<N>`, N from 1 until there is none.
//!
//! The base is http, https or a directory. containers/image gives up after 128 signatures of 4 MiB; here the bounds of all
//! signature material hold: `limits::CANDIDATES_MAX` of at most `limits::SIGNATURE_BYTES_MAX` each. A clean 404, or a file that is
//! not there in a directory that is, ends the list; everything else that goes wrong is no answer.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};

use super::Puller;
use super::discover::NoEvidence;
use super::hot::SaidOf;
use super::room::{Level, Room};
use crate::clock::Timestamp;
use crate::limits::{CANDIDATES_MAX, MATERIAL_BYTES_MAX, MATERIAL_UNCOUNTED_BYTES, SIGNATURE_BYTES_MAX};
use crate::oci::{Digest, Repository, json};
use crate::policy::{LookasideBase, Skipped};
use crate::store::{Store, TagPointer};
use crate::upstream::UpstreamError;
use crate::verify::{OpenPgpSignature, Place, Source};

/// What was found below a base.
#[derive(Debug, Default)]
pub(super) struct Lookaside {
    pub(super) signatures: Vec<OpenPgpSignature>,
    pub(super) skipped: Vec<Skipped>,
    /// There are more than are looked at.
    pub(super) more: bool,
    /// Why it may not be all that lies there.
    pub(super) missing: Option<NoEvidence>,
    /// The last number about which the server has answered.
    answered: usize,
    /// Some of it is what the store kept, since the server did not answer.
    pub(super) from_store: bool,
    /// What they take up, when that is much.
    pub(super) room: Option<Room>,
    /// There was none.
    pub(super) no_room: bool,
}

impl Puller {
    /// The lookaside signatures of `digest`; what the store kept of them, where the server does not answer by `deadline`.
    /// Cancel safe.
    pub(super) async fn search_lookaside(
        &self,
        base: &LookasideBase,
        repository: &Repository,
        digest: &Digest,
        by: (Level, Instant),
    ) -> Lookaside {
        let mut found = self.read_lookaside(base, repository, digest, by).await;
        let store = &self.parts.store;
        if found.missing.is_none() {
            let now = found.signatures.iter().map(|signature| signature.source.manifest);
            self.parts.hot.keep_said(said_of(base, repository, digest), Arc::new(now.collect()));
            forget_withdrawn(store, base, repository, digest, &found.signatures).await;
        } else if !found.no_room {
            // As with tags and referrers: what was there at the last allow may allow again, and nothing more. What the
            // server has just said outranks it, so only those from the first unanswered number on are taken.
            let kept = kept(store, base, repository, digest).await;
            let unanswered = kept.into_iter().filter(|one| one.source.layer >= found.answered);
            let before = found.signatures.len();
            found.signatures.extend(unanswered);
            found.from_store = found.signatures.len() > before;
        }
        found
    }

    async fn read_lookaside(
        &self,
        base: &LookasideBase,
        repository: &Repository,
        digest: &Digest,
        (level, deadline): (Level, Instant),
    ) -> Lookaside {
        let mut found = Lookaside::default();
        let mut bytes_read: u64 = 0;
        // One more than is looked at, to know whether there is more.
        for number in 1..=CANDIDATES_MAX.saturating_add(1) {
            let url = base.signature(repository.name(), digest, number);
            let read = timeout_at(deadline, self.read_signature(base, &url, repository)).await;
            let read = read.unwrap_or_else(|_| Err(UpstreamError::Timeout { upstream: repository.host().clone() }));
            let address = url.to_string();
            if matches!(read, Ok(_) | Err(UpstreamError::Bad { reason: "too_large", .. })) {
                found.answered = number;
            }
            match read {
                Ok(None) => break,
                Ok(Some(_)) | Err(UpstreamError::Bad { reason: "too_large", .. }) if number > CANDIDATES_MAX => {
                    found.more = true;
                }
                Ok(Some(bytes)) => {
                    bytes_read = bytes_read.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                    if bytes_read > MATERIAL_BYTES_MAX {
                        found.more = true;
                        break;
                    }
                    // Nobody says how many there are, so that much is asked for once; and not waited for, since the children of an
                    // index are judged while it is held.
                    if bytes_read > MATERIAL_UNCOUNTED_BYTES && found.room.is_none() {
                        let Ok(room) = self.parts.rooms.lookasides.try_take(level, MATERIAL_BYTES_MAX) else {
                            (found.no_room, found.missing) = (true, Some(NoEvidence::for_want_of_room(repository)));
                            break;
                        };
                        found.room = Some(room);
                    }
                    match unwrapped(bytes) {
                        Ok(signature) => found.signatures.push(candidate(address, number, signature)),
                        Err(why) => found.skipped.push(Skipped { place: address, why: why.to_owned() }),
                    }
                }
                Err(UpstreamError::Bad { reason: "too_large", .. }) => {
                    let why = "the signature is longer than 1 MiB".to_owned();
                    found.skipped.push(Skipped { place: address, why });
                }
                Err(cause) => {
                    found.missing =
                        Some(NoEvidence { looked_for: format!("the lookaside signature {address}"), cause });
                    break;
                }
            }
        }
        if let Some(room) = &mut found.room {
            room.shrink(bytes_read);
        }
        found
    }

    async fn read_signature(
        &self,
        base: &LookasideBase,
        url: &url::Url,
        repository: &Repository,
    ) -> Result<Option<Bytes>, UpstreamError> {
        if let Some(directory) = base.directory() {
            let bad = |reason| UpstreamError::Bad { upstream: repository.host().clone(), reason };
            let file = url.to_file_path().map_err(|()| bad("lookaside_file"))?;
            return read_file(&directory, &file).await.map_err(bad);
        }
        let no_source = || UpstreamError::Connect { upstream: repository.host().clone(), reason: "connect" };
        let source = self.source(repository).map_err(|_| no_source())?;
        source.upstream.lookaside(url, SIGNATURE_BYTES_MAX).await
    }
}

/// A file below `directory`, wherever links lead; `None` when it is not there.
async fn read_file(directory: &Path, file: &Path) -> Result<Option<Bytes>, &'static str> {
    // A directory that is not there, perhaps not mounted, says nothing about signatures.
    let directory = tokio::fs::canonicalize(directory).await.map_err(|_| "lookaside_directory")?;
    let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let file = match tokio::fs::canonicalize(file).await {
        Ok(file) => file,
        Err(error) if missing(&error) => return Ok(None),
        Err(_) => return Err("lookaside_file"),
    };
    if !file.starts_with(&directory) {
        return Err("lookaside_file");
    }
    // The kind first: to open a pipe would wait for ever.
    let metadata = tokio::fs::metadata(&file).await.map_err(|_| "lookaside_file")?;
    if !metadata.is_file() {
        return Err("lookaside_file");
    }
    let opened = tokio::fs::File::open(&file).await.map_err(|_| "lookaside_file")?;
    // It may be another one by now.
    if !opened.metadata().await.is_ok_and(|metadata| metadata.is_file()) {
        return Err("lookaside_file");
    }
    let mut bytes = Vec::new();
    let mut bounded = opened.take(SIGNATURE_BYTES_MAX.saturating_add(1));
    bounded.read_to_end(&mut bytes).await.map_err(|_| "lookaside_file")?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > SIGNATURE_BYTES_MAX) {
        return Err("too_large");
    }
    Ok(Some(bytes.into()))
}

/// The OpenPGP message in a signature as containers/image stores it: as it is, or after `\0simple-signing\n`.
fn unwrapped(bytes: Bytes) -> Result<Bytes, &'static str> {
    match bytes.first() {
        None => Err("it is empty"),
        Some(0) => match bytes.strip_prefix(SIMPLE_SIGNING) {
            Some(message) => Ok(bytes.slice_ref(message)),
            None if bytes.starts_with(SIGSTORE) => {
                Err("it is a signature of cosign, which are looked for in the registry")
            }
            None => Err("unrecognized signature format"),
        },
        // Every OpenPGP packet begins with a byte whose highest bit is set.
        Some(first) if first & 0x80 != 0 => Ok(bytes),
        Some(_) => Err(
            "unrecognized signature format: it is neither a binary OpenPGP message nor one of the formats of containers/image",
        ),
    }
}

fn candidate(address: String, number: usize, signature: Bytes) -> OpenPgpSignature {
    let source = Source {
        repository: None,
        manifest: Digest::sha256(&signature),
        place: Place::Lookaside(address),
        layer: number.saturating_sub(1),
    };
    OpenPgpSignature { signature, source }
}

impl Puller {
    /// Remembers which signatures an allow on `digest` rests on, unless the server has said since the search began that it has
    /// one of them no more; their bytes are kept by whoever keeps all candidates.
    pub(super) async fn keep_lookaside(
        &self,
        base: &LookasideBase,
        repository: &Repository,
        digest: &Digest,
        signatures: &[&OpenPgpSignature],
        (checked, began): (Timestamp, Instant),
    ) {
        let store = &self.parts.store;
        let of = said_of(base, repository, digest);
        let is_gone = || {
            let kept = signatures.iter().map(|signature| &signature.source.manifest);
            self.parts.hot.has_lost(&of, began, kept)
        };
        if is_gone() {
            return;
        }
        let listed = signatures.iter().map(
            |signature| json!({"digest": signature.source.manifest.to_string(), "number": signature.source.layer + 1}),
        );
        let list = json!({ "base": base.as_str(), "signatures": listed.collect::<Vec<Value>>() }).to_string();
        let pointer = TagPointer { digest: Digest::sha256(list.as_bytes()), media_type: None, checked };
        store.keep_content(&pointer.digest, list.into()).await;
        store.put_lookaside_list(repository, digest, &pointer).await;
        if is_gone() {
            let withdrawn = TagPointer { checked: Timestamp::MIN, ..pointer };
            store.put_lookaside_list(repository, digest, &withdrawn).await;
        }
    }
}

fn said_of(base: &LookasideBase, repository: &Repository, digest: &Digest) -> SaidOf {
    SaidOf { repository: repository.clone(), place: format!("signatures of {digest} below {}", base.as_str()) }
}

/// The signatures that were kept.
pub(super) async fn kept(
    store: &Store,
    base: &LookasideBase,
    repository: &Repository,
    digest: &Digest,
) -> Vec<OpenPgpSignature> {
    let mut signatures = Vec::new();
    for (number, of) in listed(store, base, repository, digest).await.into_iter().take(CANDIDATES_MAX) {
        if let Some(bytes) = store.content(&of).await {
            let address = base.signature(repository.name(), digest, number).to_string();
            signatures.push(candidate(address, number, bytes));
        }
    }
    signatures
}

async fn listed(store: &Store, base: &LookasideBase, repository: &Repository, digest: &Digest) -> Vec<(usize, Digest)> {
    let pointer = store.lookaside_list(repository, digest).await.filter(|pointer| pointer.checked > Timestamp::MIN);
    let Some(pointer) = pointer else { return Vec::new() };
    let Some(list) = store.content(&pointer.digest).await.and_then(|bytes| json::parse(&bytes).ok()) else {
        return Vec::new();
    };
    if list.get("base").and_then(Value::as_str) != Some(base.as_str()) {
        return Vec::new();
    }
    let signatures = list.get("signatures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let one = |signature: &Value| {
        let number = usize::try_from(signature.get("number")?.as_u64()?).ok()?;
        Some((number, signature.get("digest")?.as_str()?.parse().ok()?))
    };
    signatures.iter().filter_map(one).collect()
}

/// The server names these signatures now. When one that an allow rested on is not among them, none of the old list counts any
/// more; the next allow makes another.
async fn forget_withdrawn(
    store: &Store,
    base: &LookasideBase,
    repository: &Repository,
    digest: &Digest,
    now: &[OpenPgpSignature],
) {
    let before = listed(store, base, repository, digest).await;
    let withdrawn = |old: &Digest| now.iter().all(|signature| signature.source.manifest != *old);
    if before.iter().any(|(_, old)| withdrawn(old))
        && let Some(pointer) = store.lookaside_list(repository, digest).await
    {
        let pointer = TagPointer { checked: Timestamp::MIN, ..pointer };
        store.put_lookaside_list(repository, digest, &pointer).await;
    }
}

const SIMPLE_SIGNING: &[u8] = b"\0simple-signing\n";
const SIGSTORE: &[u8] = b"\0sigstore-json\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_raw_or_in_its_wrapper_and_everything_else_is_said() {
        let of = |bytes: &'static [u8]| unwrapped(Bytes::from_static(bytes));
        assert_eq!(of(b"\xa3x"), Ok(Bytes::from_static(b"\xa3x")));
        assert_eq!(of(b"\0simple-signing\n\xa3x"), Ok(Bytes::from_static(b"\xa3x")));
        for bad in
            [&b""[..], b"\0", b"\0simple-signing", b"\0other\nx", b"\0sigstore-json\n{}", b"-----BEGIN PGP", b"<html>"]
        {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_below_its_directory_only_and_within_its_bound() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("signatures");
        let image = base.join("team/app@sha256=00");
        std::fs::create_dir_all(&image).unwrap();
        let max = usize::try_from(SIGNATURE_BYTES_MAX).unwrap();
        std::fs::write(root.path().join("secret"), "secret").unwrap();
        std::fs::write(image.join("signature-1"), vec![0x90; max]).unwrap();
        std::fs::write(image.join("signature-2"), vec![0x90; max + 1]).unwrap();
        std::os::unix::fs::symlink(root.path().join("secret"), image.join("signature-3")).unwrap();
        std::os::unix::fs::symlink(image.join("signature-1"), image.join("signature-4")).unwrap();
        std::fs::create_dir(image.join("signature-5")).unwrap();
        let read =
            async |name: &str| read_file(&base, &image.join(name)).await.map(|bytes| bytes.map(|bytes| bytes.len()));
        assert_eq!(read("signature-1").await, Ok(Some(max)));
        assert_eq!(read("signature-2").await, Err("too_large"));
        assert_eq!(read("signature-3").await, Err("lookaside_file"), "a link that leads out");
        assert_eq!(read("signature-4").await, Ok(Some(max)), "a link that stays below");
        assert_eq!(read("signature-5").await, Err("lookaside_file"));
        assert_eq!(read("signature-6").await, Ok(None));
        assert_eq!(read("../../../secret").await, Err("lookaside_file"));
        std::fs::rename(&base, root.path().join("elsewhere")).unwrap();
        assert_eq!(read("signature-1").await, Err("lookaside_directory"), "no directory is no answer");
    }
}
