//! What a verdict rests on, kept so that an allow can be verified again while upstream is away, and that it can be told what
//! another policy would say.
//!
//! Manifests and payloads lie in the content, by digest. Where they lie is told by the pointers of their tags, and for
//! referrers by a list of our own: an index of those that had bundles. What upstream has taken away is forgotten at its next
//! clean answer: it must not allow when upstream is down later.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::listing::{Listing, Rank};
use super::place::{self, At, Spot};
use super::{Discovered, FoundPlace, Search, has_size};
use crate::clock::Timestamp;
use crate::oci::{Algorithm, Digest, Manifest, ManifestKind, MediaType, Repository, Tag, json};
use crate::policy::{Material, Wanted};
use crate::pull::Puller;
use crate::pull::hot::SaidOf;
use crate::pull::lookaside;
use crate::pull::manifest::{UnverifiedManifest, stored_manifest};
use crate::store::{Store, TagPointer};
use crate::verify::{OpenPgpSignature, SignatureMaterial};

/// The signature material of `digest` that the store keeps, without asking anybody; `None` when it has none.
///
/// It is what the last verdict on that digest rested on, as far as it was kept, and no more: `None` does not mean that there
/// is no signature.
pub async fn stored_material(
    store: &Store,
    repository: &Repository,
    digest: &Digest,
    wanted: &Wanted,
) -> Option<Material> {
    if digest.algorithm() != Algorithm::Sha256 {
        return None;
    }
    let mut search = Search::default();
    let mut listings = Vec::new();
    for spot in place::spots(repository, digest, wanted, &mut search.material.skipped) {
        let mut listing = Listing::empty(spot);
        add_to(store, &mut listing, digest).await;
        listings.push(listing);
    }
    for chosen in search.take_listings(listings) {
        let payload = store.content(&chosen.descriptor.digest).await;
        if let Some(payload) = payload
            && has_size(&payload, &chosen.descriptor, chosen.spot.repository.host()).is_ok()
        {
            search.take(chosen, Ok(payload));
        } else {
            search.material.incomplete = true;
        }
    }
    if let Some(base) = &wanted.lookaside {
        let kept = lookaside::kept(store, base, repository, digest).await;
        search.material.candidates.extend(kept.into_iter().map(SignatureMaterial::OpenPgp));
    }
    Some(search.material).filter(|material| !material.candidates.is_empty())
}

/// Puts signature manifests that lie elsewhere where [`stored_material`] finds them; their layers are kept by the caller.
/// What is no signature manifest is left out.
pub async fn restore_material(store: &Store, repository: &Repository, subject: &Digest, manifests: Vec<Bytes>) {
    let mut referrers = Vec::new();
    for bytes in manifests {
        let digest = Digest::sha256(&bytes);
        store.keep_content(&digest, bytes).await;
        let Some(manifest) = stored_manifest(store, &digest).await else { continue };
        let ManifestKind::Image(image) = &manifest.parsed().kind else { continue };
        let has = |media_type: &str| image.layers.iter().any(|layer| layer.media_type == media_type);
        let suffix = if has(super::SIMPLE_SIGNING) {
            "sig"
        } else if has(place::DSSE) {
            "att"
        } else {
            referrers.push(Arc::new(manifest));
            continue;
        };
        let pointer = TagPointer { digest, media_type: Some(manifest.parsed().media_type), checked: Timestamp::MAX };
        if let Ok(tag) = format!("{}-{}.{suffix}", subject.algorithm().as_str(), subject.hex()).parse::<Tag>() {
            store.put_tag(repository, &tag, pointer).await;
        }
    }
    if !referrers.is_empty() {
        let bytes = list_document(&referrers, Keeping::Report);
        let digest = Digest::sha256(bytes.as_bytes());
        store.keep_content(&digest, bytes.into()).await;
        let pointer = TagPointer { digest, media_type: Some(MediaType::OciIndex), checked: Timestamp::MAX };
        store.put_referrers_list(repository, subject, pointer).await;
    }
}

/// Adds what the store keeps of a place to what was found there.
pub(super) async fn add_to(store: &Store, listing: &mut Listing, subject: &Digest) {
    let repository = listing.spot.repository.clone();
    match listing.spot.at.clone() {
        At::Signatures(tag) | At::Attestations(tag) => {
            if let Some(pointer) = store.tag(&repository, &tag).await.filter(is_in_force)
                && let Some(manifest) = stored_manifest(store, &pointer.digest).await
            {
                listing.add_tagged(&tag, Arc::new(manifest));
            }
        }
        At::Referrers => {
            let found: HashSet<Digest> = listing.manifests.iter().map(|listed| *listed.manifest.digest()).collect();
            for digest in list(store, &repository, subject).await {
                if !found.contains(&digest)
                    && let Some(manifest) = stored_manifest(store, &digest).await
                {
                    listing.add_referrer(subject, Arc::new(manifest), Rank::Sure);
                }
            }
        }
    }
}

/// For what material is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pull) enum Keeping {
    /// An allow rests on it.
    Allow,
    /// A denial rests on it.
    Denial,
    /// No answer rests on it.
    Report,
}

impl Puller {
    /// Upstream has that manifest at the tag now, or none; what an allow rested on there, if it was another one, does not count
    /// any more.
    pub(super) async fn forget_tag(&self, spot: &Spot, tag: &Tag, now: Option<Digest>) {
        let (store, repository) = (&self.parts.store, &spot.repository);
        self.parts.hot.keep_said(said_at_tag(repository, tag), Arc::new(now.into_iter().collect()));
        if let Some(pointer) = store.tag(repository, tag).await
            && now != Some(pointer.digest)
        {
            store.put_tag(repository, tag, withdrawn(&pointer)).await;
        }
    }

    /// Upstream names these referrers now. When one that an allow rested on is not among them, none of the old list counts any
    /// more; the next allow makes another.
    pub(super) async fn forget_unlisted(&self, spot: &Spot, subject: &Digest, listed: HashSet<Digest>) {
        let (store, repository) = (&self.parts.store, &spot.repository);
        let listed = Arc::new(listed);
        self.parts.hot.keep_said(said_of_referrers(repository, subject), Arc::clone(&listed));
        let kept = store.referrers_list(repository, subject).await.filter(is_in_force);
        let unlisted = match &kept {
            Some(pointer) => {
                !list_at(store, &pointer.digest).await.is_some_and(|kept| kept.iter().all(|one| listed.contains(one)))
            }
            None => false,
        };
        if let Some(pointer) = kept.filter(|_| unlisted) {
            store.put_referrers_list(repository, subject, withdrawn(&pointer)).await;
        }
    }

    /// Keeps what was found for a verdict on `subject`.
    pub(in crate::pull) async fn keep_material(&self, subject: &Digest, found: &Discovered, keeping: Keeping) {
        for candidate in &found.material.candidates {
            let digest = Digest::sha256(candidate.bytes());
            self.parts.store.keep_content(&digest, candidate.bytes().clone()).await;
        }
        // What was read from the store is kept already, and upstream has not said it again.
        for place in found.places.iter().filter(|place| !place.from_store) {
            for manifest in &place.manifests {
                self.parts.store.keep_content(manifest.digest(), manifest.bytes().clone()).await;
            }
            self.keep_place(subject, place, found, keeping).await;
        }
        if let Some((repository, base)) = &found.lookaside {
            let signatures: Vec<&OpenPgpSignature> = found.material.candidates.iter().filter_map(openpgp).collect();
            self.keep_lookaside(base, repository, subject, &signatures, (found.at, found.began)).await;
        }
    }

    /// An answer was no, whatever a list of referrers had that was good before: it is not looked at first any more.
    pub(in crate::pull) async fn doubt(&self, subject: &Digest, found: &Discovered) {
        let store = &self.parts.store;
        for place in found.places.iter().filter(|place| place.spot.at == At::Referrers) {
            let repository = &place.spot.repository;
            if good_list(store, repository, subject).await.is_empty() {
                continue;
            }
            let bytes = list_document(&place.manifests, Keeping::Denial);
            let digest = Digest::sha256(bytes.as_bytes());
            for manifest in &place.manifests {
                store.keep_content(manifest.digest(), manifest.bytes().clone()).await;
            }
            store.keep_content(&digest, bytes.into()).await;
            let pointer = TagPointer { digest, media_type: Some(MediaType::OciIndex), checked: found.at };
            store.put_referrers_list(repository, subject, pointer).await;
        }
    }

    /// Whether the list that is kept has all of these.
    async fn lists_all(&self, subject: &Digest, place: &FoundPlace) -> bool {
        let listed = list(&self.parts.store, &place.spot.repository, subject).await;
        place.manifests.iter().all(|manifest| listed.contains(manifest.digest()))
    }

    /// Points at what a place had, unless upstream has said since the search began that it has it no more: another search may
    /// have been faster.
    async fn keep_place(&self, subject: &Digest, place: &FoundPlace, found: &Discovered, keeping: Keeping) {
        let (store, hot, repository) = (&self.parts.store, &self.parts.hot, &place.spot.repository);
        let is_gone = |said| hot.has_lost(&said, found.began, place.manifests.iter().map(|manifest| manifest.digest()));
        match &place.spot.at {
            At::Signatures(tag) | At::Attestations(tag) => {
                let Some(manifest) = place.manifests.first() else { return };
                let media_type = Some(manifest.parsed().media_type);
                let pointer = TagPointer { digest: *manifest.digest(), media_type, checked: found.at };
                if is_gone(said_at_tag(repository, tag)) {
                    return;
                }
                store.put_tag(repository, tag, pointer.clone()).await;
                if is_gone(said_at_tag(repository, tag)) {
                    store.put_tag(repository, tag, withdrawn(&pointer)).await;
                }
            }
            At::Referrers => {
                if keeping == Keeping::Report && self.lists_all(subject, place).await {
                    return;
                }
                let bytes = list_document(&place.manifests, keeping);
                let digest = Digest::sha256(bytes.as_bytes());
                let pointer = TagPointer { digest, media_type: Some(MediaType::OciIndex), checked: found.at };
                if is_gone(said_of_referrers(repository, subject)) {
                    return;
                }
                store.keep_content(&digest, bytes.into()).await;
                store.put_referrers_list(repository, subject, pointer.clone()).await;
                if is_gone(said_of_referrers(repository, subject)) {
                    store.put_referrers_list(repository, subject, withdrawn(&pointer)).await;
                }
            }
        }
    }
}

fn said_at_tag(repository: &Repository, tag: &Tag) -> SaidOf {
    SaidOf { repository: repository.clone(), place: tag.to_string() }
}

fn said_of_referrers(repository: &Repository, subject: &Digest) -> SaidOf {
    SaidOf { repository: repository.clone(), place: format!("referrers of {subject}") }
}

fn openpgp(candidate: &SignatureMaterial) -> Option<&OpenPgpSignature> {
    match candidate {
        SignatureMaterial::OpenPgp(signature) => Some(signature),
        SignatureMaterial::Legacy(_) | SignatureMaterial::Attestation(_) | SignatureMaterial::Bundle(_) => None,
    }
}

fn is_in_force(pointer: &TagPointer) -> bool {
    pointer.checked > Timestamp::MIN
}

fn withdrawn(pointer: &TagPointer) -> TagPointer {
    TagPointer { checked: Timestamp::MIN, ..pointer.clone() }
}

/// The referrers that the last verdict on `subject` rested on, if it was an allow.
pub(super) async fn good_list(store: &Store, repository: &Repository, subject: &Digest) -> HashSet<Digest> {
    let Some(pointer) = store.referrers_list(repository, subject).await.filter(is_in_force) else {
        return HashSet::new();
    };
    let document = store.content(&pointer.digest).await.and_then(|bytes| json::parse(&bytes).ok());
    let is_good =
        document.is_some_and(|document| document.get(ANNOTATIONS).is_some_and(|notes| notes.get(GOOD).is_some()));
    let listed = if is_good { list_at(store, &pointer.digest).await } else { None };
    listed.unwrap_or_default().into_iter().collect()
}

async fn list(store: &Store, repository: &Repository, subject: &Digest) -> Vec<Digest> {
    match store.referrers_list(repository, subject).await.filter(is_in_force) {
        Some(pointer) => list_at(store, &pointer.digest).await.unwrap_or_default(),
        None => Vec::new(),
    }
}

async fn list_at(store: &Store, digest: &Digest) -> Option<Vec<Digest>> {
    let bytes = store.content(digest).await?;
    let index = Manifest::parse(&bytes, Some(MediaType::OciIndex.as_str())).ok()?;
    Some(index.children().iter().map(|listed| listed.digest).collect())
}

/// Only the list of an allow says that it is good: another one may be full of what others pushed.
fn list_document(manifests: &[Arc<UnverifiedManifest>], keeping: Keeping) -> String {
    let descriptors: Vec<Value> = manifests
        .iter()
        .map(|manifest| {
            let media_type = manifest.parsed().media_type.as_str();
            json!({ "mediaType": media_type, "digest": manifest.digest().to_string(), "size": manifest.size() })
        })
        .collect();
    let mut list = json!({ "schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "manifests": descriptors });
    if let (Keeping::Allow, Value::Object(members)) = (keeping, &mut list) {
        members.insert(ANNOTATIONS.to_owned(), json!({ GOOD: "true" }));
    }
    list.to_string()
}

const ANNOTATIONS: &str = "annotations";
const GOOD: &str = "sealgate.good";
