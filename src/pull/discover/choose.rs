//! Which of the candidates are read, where there are more than are looked at.
//!
//! All places share the bounds: nobody's spam at one of them can crowd out what lies at another. Within a place those that
//! say that they are signatures come first, and of too many some of the oldest, some of the newest and some from between are
//! read, other ones at each look: signers append, and so do spammers, and nobody can tell which ones are looked at.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;

use super::listing::{Listed, Listing};
use super::place::{At, Layer, Spot};
use crate::limits::{CANDIDATES_MAX, MATERIAL_BYTES_MAX, SIGNATURE_BYTES_MAX};
use crate::oci::{Descriptor, ManifestKind};
use crate::policy::{Material, Skipped};
use crate::pull::manifest::UnverifiedManifest;
use crate::verify::{BundleMaterial, LegacyAttestation, LegacySignature, Place, SignatureMaterial, Source};

/// A layer that is read.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The number of its place among those that were looked at.
    pub(super) place: usize,
    pub(super) spot: Arc<Spot>,
    pub(super) manifest: Arc<UnverifiedManifest>,
    layer: usize,
    pub(super) descriptor: Descriptor,
}

impl Chosen {
    pub(super) fn source(&self) -> Source {
        source(&self.spot, &self.manifest, self.layer)
    }

    pub(super) fn into_material(self, bytes: Bytes) -> SignatureMaterial {
        let source = self.source();
        let annotations = self.descriptor.annotations;
        match self.spot.at {
            At::Signatures(_) => SignatureMaterial::Legacy(LegacySignature { payload: bytes, annotations, source }),
            At::Attestations(_) => {
                SignatureMaterial::Attestation(LegacyAttestation { envelope: bytes, annotations, source })
            }
            At::Referrers => SignatureMaterial::Bundle(BundleMaterial { bundle: bytes, source }),
        }
    }
}

fn source(spot: &Spot, manifest: &UnverifiedManifest, layer: usize) -> Source {
    let place = match &spot.at {
        At::Signatures(tag) | At::Attestations(tag) => Place::Tag(tag.to_string()),
        At::Referrers => Place::Referrer,
    };
    let repository = spot.is_alternate.then(|| spot.repository.clone());
    Source { repository, manifest: *manifest.digest(), place, layer }
}

/// The candidates that are read, by place, in the order in which they were listed.
pub(super) fn choose(listings: &[Listing], material: &mut Material) -> Vec<Chosen> {
    let places: Vec<Vec<Candidate<'_>>> = listings.iter().map(|listing| candidates(listing, material)).collect();
    let counts: Vec<u64> = places.iter().map(|place| number(place.len())).collect();
    let sizes: Vec<u64> =
        places.iter().map(|place| place.iter().map(|candidate| candidate.descriptor.size).sum()).collect();
    let rooms = shares(number(CANDIDATES_MAX), &counts).into_iter().zip(shares(MATERIAL_BYTES_MAX, &sizes));
    let mut chosen = Vec::new();
    for (place, ((listing, candidates), (count, bytes))) in listings.iter().zip(places).zip(rooms).enumerate() {
        let spot = Arc::new(listing.spot.clone());
        let picked = pick(&candidates, count, bytes);
        material.more |= picked.len() < candidates.len();
        chosen.extend(picked.into_iter().map(|candidate| Chosen {
            place,
            spot: Arc::clone(&spot),
            manifest: Arc::clone(&candidate.listed.manifest),
            layer: candidate.layer,
            descriptor: candidate.descriptor.clone(),
        }));
    }
    chosen
}

/// A layer that may be a signature.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    listed: &'a Listed,
    layer: usize,
    /// It is not the first one of its manifest.
    is_further: bool,
    descriptor: &'a Descriptor,
}

/// All layers at a place that are of its type and not too long; the others are reported or counted.
fn candidates<'a>(listing: &'a Listing, material: &mut Material) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    let mut too_long = 0_usize;
    for listed in &listing.manifests {
        let ManifestKind::Image(image) = &listed.manifest.parsed().kind else { continue };
        let mut is_further = false;
        for (layer, descriptor) in image.layers.iter().enumerate() {
            match (listing.spot.layer(descriptor), &listing.spot.at) {
                (Layer::Candidate, _) if descriptor.size > SIGNATURE_BYTES_MAX => {
                    // It may be good, and say what a rule must hear.
                    material.incomplete = true;
                    too_long = too_long.saturating_add(1);
                    if too_long <= CANDIDATES_MAX {
                        let place = source(&listing.spot, &listed.manifest, layer).to_string();
                        material.skipped.push(Skipped { place, why: "the payload is longer than 1 MiB".to_owned() });
                    }
                }
                (Layer::Candidate, _) => {
                    candidates.push(Candidate { listed, layer, is_further, descriptor });
                    is_further = true;
                }
                // They count in containers/image's message, which knows this place alone.
                (Layer::Other, At::Signatures(_)) => {
                    material.other_attachments = material.other_attachments.saturating_add(1);
                }
                (Layer::Other, At::Attestations(_) | At::Referrers) => {}
            }
        }
    }
    candidates
}

/// At most `count` candidates of together at most `bytes`, in their order: by the rank of their manifests, and one of each manifest
/// before the others, so that one that is full of layers takes nobody's place.
fn pick<'a>(candidates: &[Candidate<'a>], count: u64, bytes: u64) -> Vec<Candidate<'a>> {
    let (mut picked, mut left) = (Vec::new(), bytes);
    let ranks = candidates.iter().map(|candidate| (candidate.listed.rank, candidate.is_further));
    for index in in_order(ranks) {
        let Some(candidate) = candidates.get(index) else { continue };
        if number(picked.len()) == count {
            break;
        }
        if let Some(rest) = left.checked_sub(candidate.descriptor.size) {
            left = rest;
            picked.push(index);
        }
    }
    picked.sort_unstable();
    picked.into_iter().filter_map(|index| candidates.get(index).copied()).collect()
}

/// The places in a list in the order in which they are looked at: rank by rank, and within a rank as [`spread`] says.
pub(super) fn in_order<R: Ord>(ranks: impl Iterator<Item = R>) -> Vec<usize> {
    let mut by_rank: BTreeMap<R, Vec<usize>> = BTreeMap::new();
    for (place, rank) in ranks.enumerate() {
        by_rank.entry(rank).or_default().push(place);
    }
    let chance = RandomState::new();
    by_rank.into_values().flat_map(|places| spread(&places, |place| chance.hash_one(place))).collect()
}

/// The first, the last, two from anywhere, the second, the last but one, two from anywhere, and so on: who appends is found at an
/// end, and whoever fills both ends has not filled all places. `rank` says what "anywhere" is: the lowest come first.
fn spread<T: Copy>(list: &[T], rank: impl Fn(&T) -> u64) -> Vec<T> {
    let mut by_rank: Vec<usize> = (0..list.len()).collect();
    by_rank.sort_by_cached_key(|index| list.get(*index).map(&rank));
    let (mut front, mut back, mut anywhere) = (0..list.len(), (0..list.len()).rev(), by_rank.into_iter());
    let mut taken = HashSet::new();
    let mut order = Vec::new();
    while taken.len() < list.len() {
        order.extend(front.find(|index| taken.insert(*index)));
        order.extend(back.find(|index| taken.insert(*index)));
        for _ in 0..2 {
            order.extend(anywhere.find(|index| taken.insert(*index)));
        }
    }
    order.into_iter().filter_map(|index| list.get(index).copied()).collect()
}

/// How much of `room` each gets who wants so much: an equal share, of which what one leaves over goes to the others.
pub(super) fn shares(room: u64, wants: &[u64]) -> Vec<u64> {
    let mut order: Vec<(u64, usize)> = wants.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let mut shares = vec![0; wants.len()];
    let (mut left, mut waiting) = (room, number(wants.len()));
    for (want, index) in order {
        let share = want.min(left.checked_div(waiting).unwrap_or(0));
        left = left.saturating_sub(share);
        waiting = waiting.saturating_sub(1);
        if let Some(slot) = shares.get_mut(index) {
            *slot = share;
        }
    }
    shares
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::listing::Rank;
    use super::super::place::SIMPLE_SIGNING;
    use super::*;
    use crate::oci::{Digest, MediaType};
    use crate::upstream::FetchedManifest;

    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

    fn layers(media_type: &str, count: usize, size: u64) -> Vec<Value> {
        let layer = |number: usize| {
            let digest = Digest::sha256(number.to_string().as_bytes()).to_string();
            json!({ "mediaType": media_type, "digest": digest, "size": size })
        };
        (0..count).map(layer).collect()
    }

    fn listed(layers: &[Value], rank: Rank) -> Listed {
        let config = json!({ "mediaType": "a/b", "digest": Digest::sha256(b"{}").to_string(), "size": 2 });
        let document = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
        let fetched = FetchedManifest {
            digest: Digest::sha256(document.as_bytes()),
            bytes: document.into(),
            content_type: MediaType::OciManifest.as_str().to_owned(),
        };
        Listed { manifest: Arc::new(UnverifiedManifest::parse(fetched, None).unwrap()), rank }
    }

    fn place(at: At, manifests: Vec<Listed>) -> Listing {
        let repository = "quay.io/a/b:1".parse::<crate::oci::ImageReference>().unwrap().repository;
        Listing { manifests, ..Listing::empty(Spot { repository, is_alternate: false, at }) }
    }

    fn signatures(layers: &[Value]) -> Listing {
        place(At::Signatures("t".parse().unwrap()), vec![listed(layers, Rank::Sure)])
    }

    fn chosen(listings: &[Listing]) -> (Vec<(usize, usize)>, Material) {
        let mut material = Material::default();
        let chosen = choose(listings, &mut material);
        (chosen.iter().map(|chosen| (chosen.place, chosen.layer)).collect(), material)
    }

    #[test]
    fn as_many_candidates_as_allowed_are_all_looked_at() {
        let (chosen, material) = chosen(&[signatures(&layers(SIMPLE_SIGNING, CANDIDATES_MAX, 1))]);
        assert_eq!(chosen.len(), CANDIDATES_MAX);
        assert!(!material.more);
    }

    #[test]
    fn of_more_candidates_the_oldest_and_the_newest_are_looked_at() {
        let (chosen, material) = chosen(&[signatures(&layers(SIMPLE_SIGNING, 1000, 1))]);
        assert_eq!(chosen.len(), CANDIDATES_MAX);
        let quarter = CANDIDATES_MAX / 4;
        let ends = (0..quarter).chain(1000 - quarter..1000).map(|layer| (0, layer));
        assert!(ends.into_iter().all(|end| chosen.contains(&end)), "{chosen:?}");
        assert!(material.more && chosen.is_sorted());
    }

    #[test]
    fn payloads_are_bounded_one_by_one_and_together() {
        let signatures = |count, size| [signatures(&layers(SIMPLE_SIGNING, count, size))];
        let (one_too_long, material) = chosen(&signatures(1, SIGNATURE_BYTES_MAX + 1));
        assert!(one_too_long.is_empty() && !material.more);
        assert_eq!(material.skipped.len(), 1);
        let fits = usize::try_from(MATERIAL_BYTES_MAX / SIGNATURE_BYTES_MAX).unwrap();
        let (all, material) = chosen(&signatures(fits, SIGNATURE_BYTES_MAX));
        assert!(all.len() == fits && !material.more);
        let (all, material) = chosen(&signatures(fits + 1, SIGNATURE_BYTES_MAX));
        assert!(all.len() == fits && material.more);
        assert_eq!(all.last(), Some(&(0, fits)), "the newest is among them");
    }

    #[test]
    fn layers_that_are_no_signatures_are_counted_and_do_not_crowd_out_one() {
        let mut list = layers("text/plain", 200, 1);
        list.extend(layers(SIMPLE_SIGNING, 1, 1));
        let (chosen, material) = chosen(&[signatures(&list)]);
        assert_eq!(chosen, [(0, 200)]);
        assert!(material.other_attachments == 200 && !material.more);
    }

    #[test]
    fn spam_at_one_place_does_not_crowd_out_another() {
        let good = || place(At::Referrers, vec![listed(&layers(BUNDLE, 1, SIGNATURE_BYTES_MAX), Rank::Sure)]);
        for spam in [layers(SIMPLE_SIGNING, 1000, 1), layers(SIMPLE_SIGNING, 1000, SIGNATURE_BYTES_MAX)] {
            let (of_first, material) = chosen(&[signatures(&spam), good()]);
            assert!(of_first.contains(&(1, 0)) && material.more);
            let (of_second, material) = chosen(&[good(), signatures(&spam)]);
            assert!(of_second.contains(&(0, 0)) && material.more);
            assert!(of_second.len() <= CANDIDATES_MAX);
        }
    }

    #[test]
    fn those_that_say_what_they_are_come_first() {
        let (sure, unsure) =
            (listed(&layers(BUNDLE, 1, 1), Rank::Sure), || listed(&layers(BUNDLE, 2, 1), Rank::Unsure));
        let manifests: Vec<Listed> = (0..50).map(|_| unsure()).chain([sure]).chain((0..50).map(|_| unsure())).collect();
        let of_spam = place(At::Referrers, manifests);
        let mut material = Material::default();
        let sure = *of_spam.manifests[50].manifest.digest();
        let chosen = choose(&[of_spam], &mut material);
        assert_eq!(chosen.len(), CANDIDATES_MAX);
        assert!(chosen.iter().any(|chosen| *chosen.manifest.digest() == sure) && material.more);
    }

    #[test]
    fn one_manifest_full_of_layers_or_of_bytes_takes_nobodys_place() {
        let manifest = |seed: usize, count, size| {
            let mut all = layers(BUNDLE, seed + count, size);
            listed(&all.split_off(seed), Rank::Sure)
        };
        let place_of = |manifests: Vec<Listed>, wanted: &Digest| {
            let chosen = choose(&[place(At::Referrers, manifests)], &mut Material::default());
            chosen.iter().any(|chosen| chosen.manifest.digest() == wanted)
        };
        let good = || manifest(5000, 1, 1);
        let wanted = *good().manifest.digest();
        for _look in 0..10 {
            assert!(place_of(vec![manifest(0, 900, 1), good(), manifest(1000, 900, 1)], &wanted));
        }
        // A known one comes before all that are as large as may be.
        let known = Listed { rank: Rank::Known, ..good() };
        let large = |seed| manifest(seed, 1, SIGNATURE_BYTES_MAX);
        let manifests = (0..40).map(large).chain([known]).chain((40..80).map(large));
        assert!(place_of(manifests.collect(), &wanted));
    }

    #[test]
    fn what_one_leaves_over_goes_to_the_others() {
        assert_eq!(shares(64, &[100, 1]), [63, 1]);
        assert_eq!(shares(64, &[100, 100]), [32, 32]);
        assert_eq!(shares(64, &[100, 5, 100]), [29, 5, 30]);
        assert_eq!(shares(64, &[1, 2]), [1, 2]);
        assert!(shares(64, &[]).is_empty());
    }

    #[test]
    fn a_list_is_taken_from_both_ends_and_from_anywhere() {
        let last_first = |number: &u32| u64::from(u32::MAX - number);
        assert_eq!(spread(&[1, 2, 3, 4, 5, 6, 7, 8, 9], last_first), [1, 9, 8, 7, 2, 6, 5, 4, 3]);
        assert_eq!(spread(&[1, 2, 3], last_first), [1, 3, 2]);
        assert!(spread(&[], last_first).is_empty());
    }

    #[test]
    fn nobody_fills_all_places_that_are_looked_at() {
        let seed = 20_260_731_u64;
        let list: Vec<u64> = (0..1000).collect();
        let mut times = vec![0_u32; list.len()];
        for look in 0..1000_u64 {
            let rank = |place: &u64| {
                let bytes = [seed, look, *place].map(u64::to_be_bytes).concat();
                u64::from_be_bytes(Digest::sha256(&bytes).as_bytes()[..8].try_into().unwrap())
            };
            let picked = &spread(&list, rank)[..CANDIDATES_MAX];
            for place in picked {
                times[usize::try_from(*place).unwrap()] += 1;
            }
        }
        assert!(
            times.iter().all(|times| *times > 5),
            "about 33 of 1000 looks see each place between the ends: {times:?}"
        );
    }
}
