//! The signature material of a digest: where it is looked for, how much of it is read, and what counts as an answer.
//!
//! Exactly what policy wants is looked for, at all its places at once: `place` names them, `listing` reads what each one
//! lists, `choose` shares the bounds out among them, and then the payloads are read. A clean 404 is an answer: there is
//! none. Everything else that goes wrong is not (rule "Closed"): what was read may still allow, but it can deny nothing, and
//! [`Discovered::missing`] says why. What a verdict rests on is kept (`stored`), so that it
//! can be verified again offline.

mod choose;
mod listing;
mod place;
mod stored;

pub use stored::{restore_material, stored_material};

pub(super) use stored::Keeping;

pub(super) use place::SIMPLE_SIGNING;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use self::choose::{Chosen, choose};
use self::listing::Listing;
use self::place::Spot;
use super::Puller;
use super::hot::LookedFor;
use super::lookaside::Lookaside;
use super::manifest::UnverifiedManifest;
use super::room::{Level, Room};
use crate::clock::Timestamp;
use crate::limits::MATERIAL_CONCURRENCY;
use crate::oci::{Algorithm, Descriptor, Digest, Host, Repository};
use crate::policy::{LookasideBase, Material, Skipped, Wanted};
use crate::upstream::UpstreamError;
use crate::verify::SignatureMaterial;

/// What was found.
#[derive(Debug)]
pub(super) struct Discovered {
    pub(super) material: Material,
    /// Why it may not be all there is; then it can allow, but not deny.
    pub(super) missing: Option<NoEvidence>,
    /// Why something that is listed was not read, though upstream answered: what must see everything has not.
    unread: Option<NoEvidence>,
    /// When upstream was asked.
    pub(super) at: Timestamp,
    /// The same by the clock that never steps: what upstream said later outranks this.
    pub(super) began: Instant,
    /// The manifests that list the candidates, by the place where they were found.
    places: Vec<FoundPlace>,
    /// There was no room for it: nothing was read.
    pub(super) no_room: bool,
    /// Whose lookaside signatures these are, and their base, when the server named them now.
    lookaside: Option<(Repository, LookasideBase)>,
}

/// What was found, and the room that it takes while it is judged. What is remembered of it takes none: that has bounds of its own.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) found: Arc<Discovered>,
    _rooms: Vec<Room>,
}

impl From<Arc<Discovered>> for Held {
    /// It is in memory already.
    fn from(found: Arc<Discovered>) -> Self {
        Self { found, _rooms: Vec::new() }
    }
}

/// The manifests with candidates that one place had.
#[derive(Debug)]
struct FoundPlace {
    spot: Spot,
    manifests: Vec<Arc<UnverifiedManifest>>,
    /// Upstream did not say it now; it is what it said when the store kept it.
    from_store: bool,
}

impl Discovered {
    /// Why nothing is known: no candidate, and not for sure that there is none.
    pub(super) fn no_evidence(&self) -> Option<&NoEvidence> {
        self.missing.as_ref().filter(|_| self.material.candidates.is_empty())
    }

    /// The digests of the manifests that list the candidates.
    pub(super) fn manifest_digests(&self) -> Vec<Digest> {
        self.manifests().map(|manifest| *manifest.digest()).collect()
    }

    /// Why not everything was read, if it was not.
    pub(super) fn unread(&self) -> Option<&UpstreamError> {
        self.missing.as_ref().or(self.unread.as_ref()).map(|missing| &missing.cause)
    }

    /// What keeping it takes, in bytes.
    pub(super) fn material_bytes(&self) -> u64 {
        let candidates = self.material.candidates.iter().map(|candidate| candidate.bytes().len());
        let manifests = self.manifests().map(|manifest| manifest.bytes().len());
        candidates.chain(manifests).fold(0, |sum, bytes| sum.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX)))
    }

    fn manifests(&self) -> impl Iterator<Item = &Arc<UnverifiedManifest>> {
        self.places.iter().flat_map(|place| &place.manifests)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let manifests = self.manifests().map(|manifest| manifest.memory_bytes());
        let payloads = self.material.candidates.iter().map(|candidate| {
            let annotations = match candidate {
                SignatureMaterial::Legacy(signature) => Some(&signature.annotations),
                SignatureMaterial::Attestation(attestation) => Some(&attestation.annotations),
                SignatureMaterial::Bundle(_) | SignatureMaterial::OpenPgp(_) => None,
            };
            let annotations = annotations.into_iter().flatten();
            let annotations = annotations.map(|(key, value)| key.len().saturating_add(value.len()));
            candidate.bytes().len().saturating_add(annotations.sum::<usize>())
        });
        manifests.chain(payloads).fold(512, usize::saturating_add)
    }
}

/// Something could not be found out.
#[derive(Debug, Clone)]
pub(super) struct NoEvidence {
    /// What was looked for, one line.
    pub(super) looked_for: String,
    pub(super) cause: UpstreamError,
}

impl NoEvidence {
    /// Of signatures that there was no room to read.
    pub(super) fn for_want_of_room(repository: &Repository) -> Self {
        let cause = UpstreamError::Timeout { upstream: repository.host().clone() };
        Self { looked_for: "the signatures (too many large ones are being looked at)".to_owned(), cause }
    }
}

impl Puller {
    /// Finds the signature material of `digest` that `wanted` names.
    ///
    /// Costs, for each place, one manifest or the pages of a list with at most `limits::CANDIDATES_MAX` manifests, and in all at
    /// most `limits::CANDIDATES_MAX` payloads, as far as the store does not have them; nothing when upstream was asked after
    /// `since`. What could not be read by `deadline`, or because upstream is away, is [`Discovered::missing`]; what the
    /// store kept of it stands in. Cancel safe.
    pub(super) async fn discover(
        &self,
        repository: &Repository,
        digest: &Digest,
        wanted: &Wanted,
        since: Timestamp,
        (level, deadline): (Level, Instant),
    ) -> Held {
        let (at, began) = (self.parts.clock.now(), Instant::now());
        // Signatures bind sha256 digests; nothing is found under another.
        if digest.algorithm() != Algorithm::Sha256 {
            return Arc::new(Search::default().finish(at, began).0).into();
        }
        let looked_for = LookedFor { repository: repository.clone(), digest: *digest, wanted: wanted.clone() };
        // Not what was read while the clock was ahead: it would be the newest until the clock is there again.
        let known = self.parts.hot.material(&looked_for, since).filter(|known| known.at <= at);
        if let Some(known) = known {
            return known.into();
        }
        let lookaside = async {
            let base = wanted.lookaside.as_ref()?;
            Some((base, self.search_lookaside(base, repository, digest, (level, deadline)).await))
        };
        // At once, so that neither takes the other's time.
        let (mut search, lookaside) =
            tokio::join!(self.search_registries(repository, digest, wanted, began, (level, deadline)), lookaside);
        if let Some((base, found)) = lookaside {
            search.take_lookaside(repository, base, found);
        }
        let (found, rooms) = search.finish(at, began);
        let found = Arc::new(found);
        if found.missing.is_none() {
            self.parts.hot.keep_material(looked_for, &found);
        }
        Held { found, _rooms: rooms }
    }

    /// What lies in registries.
    async fn search_registries(
        &self,
        repository: &Repository,
        digest: &Digest,
        wanted: &Wanted,
        began: Instant,
        (level, deadline): (Level, Instant),
    ) -> Search {
        let mut search = Search::default();
        let spots = place::spots(repository, digest, wanted, &mut search.material.skipped);
        // What a place that answers has is read also when another one does not.
        let listed_by = began + deadline.saturating_duration_since(began).mul_f32(LISTING_PART);
        let listing = spots.into_iter().map(|spot| self.list_spot(spot, digest, listed_by));
        let listings: Vec<Listing> =
            stream::iter(listing.collect::<Vec<_>>()).buffered(MATERIAL_CONCURRENCY).collect().await;
        let chosen = search.take_listings(listings);
        let bytes = chosen.iter().fold(0_u64, |sum, chosen| sum.saturating_add(chosen.descriptor.size));
        let Ok(room) = self.parts.rooms.registries.take(level, bytes, deadline).await else {
            search.had_no_room(repository);
            return search;
        };
        search.rooms.push(room);
        let reading = chosen.into_iter().map(|chosen| async move {
            let payload = self.payload(&chosen, deadline).await;
            (chosen, payload)
        });
        let mut read = stream::iter(reading.collect::<Vec<_>>()).buffered(MATERIAL_CONCURRENCY);
        while let Some((chosen, payload)) = read.next().await {
            search.take(chosen, payload);
        }
        drop(read);
        search
    }

    /// One payload: from the store, else from upstream; bounded, hashed, of the size that its descriptor states.
    async fn payload(&self, chosen: &Chosen, deadline: Instant) -> Result<Bytes, UpstreamError> {
        let (repository, descriptor) = (&chosen.spot.repository, &chosen.descriptor);
        let bytes = if let Some(bytes) = self.parts.store.content(&descriptor.digest).await {
            bytes
        } else {
            let source = self.source(repository).map_err(|_| not_configured(repository))?;
            let fetch = source.upstream.small_blob(repository.name(), &descriptor.digest, descriptor.size);
            by(deadline, repository.host(), fetch).await?
        };
        has_size(&bytes, descriptor, repository.host())?;
        Ok(bytes)
    }
}

/// A search under way.
#[derive(Debug, Default)]
struct Search {
    material: Material,
    missing: Option<NoEvidence>,
    unread: Option<NoEvidence>,
    places: Vec<FoundPlace>,
    no_room: bool,
    rooms: Vec<Room>,
    lookaside: Option<(Repository, LookasideBase)>,
}

impl Search {
    /// Takes in what the places list, and says which layers are to be read.
    fn take_listings(&mut self, listings: Vec<Listing>) -> Vec<Chosen> {
        for listing in &listings {
            self.material.more |= listing.more;
            self.unread = self.unread.take().or_else(|| listing.unread.clone());
            self.material.skipped.extend(listing.skipped.iter().cloned());
            self.missing = self.missing.take().or_else(|| listing.missing.clone());
        }
        let chosen = choose(&listings, &mut self.material);
        self.places = listings
            .into_iter()
            .map(|listing| FoundPlace { spot: listing.spot, manifests: Vec::new(), from_store: listing.from_store })
            .collect();
        chosen
    }

    /// A payload was read, or not. One that is not what is listed is skipped, and what must see everything has not seen it; one
    /// that could not be read leaves the search without an answer.
    fn take(&mut self, chosen: Chosen, payload: Result<Bytes, UpstreamError>) {
        match payload {
            Ok(payload) => {
                if let Some(place) = self.places.get_mut(chosen.place)
                    && place.manifests.last().is_none_or(|last| last.digest() != chosen.manifest.digest())
                {
                    place.manifests.push(Arc::clone(&chosen.manifest));
                }
                self.material.candidates.push(chosen.into_material(payload));
            }
            Err(cause) => {
                let source = chosen.source().to_string();
                let slot = if is_about_the_content(&cause) { &mut self.unread } else { &mut self.missing };
                slot.get_or_insert_with(|| NoEvidence { looked_for: source.clone(), cause: cause.clone() });
                self.material.skipped.push(Skipped { place: source, why: cause.to_string() });
            }
        }
    }

    /// So that it denies nothing; what did not come to be read could allow.
    fn had_no_room(&mut self, repository: &Repository) {
        self.no_room = true;
        self.missing.get_or_insert_with(|| NoEvidence::for_want_of_room(repository));
    }

    fn take_lookaside(&mut self, repository: &Repository, base: &LookasideBase, found: Lookaside) {
        self.material.more |= found.more;
        self.material.skipped.extend(found.skipped);
        self.missing = self.missing.take().or(found.missing);
        if !found.from_store && !found.signatures.is_empty() {
            self.lookaside = Some((repository.clone(), base.clone()));
        }
        self.rooms.extend(found.room);
        if found.no_room {
            self.had_no_room(repository);
        }
        self.material.candidates.extend(found.signatures.into_iter().map(SignatureMaterial::OpenPgp));
    }

    fn finish(self, at: Timestamp, began: Instant) -> (Discovered, Vec<Room>) {
        let Self { mut material, missing, unread, places, no_room, rooms, lookaside } = self;
        material.incomplete |= missing.is_some() || unread.is_some();
        let places = places.into_iter().filter(|place| !place.manifests.is_empty()).collect();
        (Discovered { material, missing, unread, at, began, places, no_room, lookaside }, rooms)
    }
}

/// Waits for upstream until `deadline`.
async fn by<T>(
    deadline: Instant,
    host: &Host,
    call: impl Future<Output = Result<T, UpstreamError>>,
) -> Result<T, UpstreamError> {
    timeout_at(deadline, call).await.unwrap_or_else(|_| Err(UpstreamError::Timeout { upstream: host.clone() }))
}

fn has_size(bytes: &Bytes, descriptor: &Descriptor, host: &Host) -> Result<(), UpstreamError> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length == descriptor.size) {
        Ok(())
    } else {
        Err(UpstreamError::Bad { upstream: host.clone(), reason: "size_mismatch" })
    }
}

/// Whether upstream answered, and what is listed there is not what it says: whoever pushed it can make it so, and no repetition
/// helps. Bytes of another digest are none of that: registries check what is pushed, so it is the registry, or something between
/// it and us, that is at fault, and what it should have sent may be good.
fn is_about_the_content(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::NotFound { .. } => true,
        UpstreamError::Bad { reason, .. } => matches!(*reason, "size_mismatch" | "too_large"),
        UpstreamError::Refused { .. }
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Resting { .. }
        | UpstreamError::Timeout { .. }
        | UpstreamError::Failed { .. }
        | UpstreamError::Connect { .. } => false,
    }
}

fn not_configured(repository: &Repository) -> UpstreamError {
    UpstreamError::Connect { upstream: repository.host().clone(), reason: "connect" }
}

/// How much of its time a search waits for what the places list; the rest is for the payloads.
const LISTING_PART: f32 = 0.625;

#[cfg(test)]
mod tests;
