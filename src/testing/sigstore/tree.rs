//! Merkle trees as transparency logs keep them (RFC 6962, 2.1), and the notes that sign their roots.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::keys::FakeKey;
use crate::oci::Digest;

/// Where an entry stands: its place, and how many leaves the tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: usize,
    pub(super) size: usize,
}

impl Place {
    /// The only entry of its tree.
    pub(super) const ALONE: Self = Self { index: 0, size: 1 };
}

/// Who signs the roots: a name, the first bytes of a log id, and a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notary<'a> {
    pub(super) origin: &'a str,
    pub(super) log_id: &'a [u8],
    pub(super) key: &'a FakeKey,
}

/// The proof that `body` is in a tree, among leaves that nobody asks about, with the signed checkpoint of that tree.
pub(super) fn inclusion_proof(body: &[u8], place: Place, notary: Notary<'_>) -> Value {
    let leaves: Vec<Vec<u8>> = (0..place.size)
        .map(|index| if index == place.index { body.to_vec() } else { format!("leaf {index}").into_bytes() })
        .collect();
    let hashes: Vec<Vec<u8>> = leaves.iter().map(|leaf| hash(&[&[0], leaf])).collect();
    let root = root(&hashes);
    let path: Vec<String> = path(place.index, &hashes).iter().map(|hash| STANDARD.encode(hash)).collect();
    json!({
        "logIndex": place.index.to_string(),
        "rootHash": STANDARD.encode(&root),
        "treeSize": place.size.to_string(),
        "hashes": path,
        "checkpoint": {"envelope": checkpoint(&root, place.size, notary)},
    })
}

/// The signed note: origin, size, root, and the line with the signature.
fn checkpoint(root: &[u8], size: usize, notary: Notary<'_>) -> String {
    let note = format!("{}\n{size}\n{}\n", notary.origin, STANDARD.encode(root));
    let mut signature = notary.log_id.first_chunk::<4>().unwrap().to_vec();
    signature.extend(notary.key.sign(note.as_bytes()));
    // A signer's name has no space; Rekor v1 appends its tree's id to the origin.
    let name = notary.origin.split(' ').next().unwrap();
    format!("{note}\n\u{2014} {name} {}\n", STANDARD.encode(signature))
}

/// RFC 6962, 2.1: the hash of a tree.
fn root(leaves: &[Vec<u8>]) -> Vec<u8> {
    if let [leaf] = leaves {
        return leaf.clone();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    hash(&[&[1], &root(left), &root(right)])
}

/// RFC 6962, 2.1.1: the hashes that lead from a leaf to the root.
fn path(index: usize, leaves: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut hashes, other) = match index.checked_sub(left.len()) {
        None => (path(index, left), right),
        Some(index) => (path(index, right), left),
    };
    hashes.push(root(other));
    hashes
}

/// The largest power of two below the size.
fn split(size: usize) -> usize {
    size.next_power_of_two() / 2
}

fn hash(parts: &[&[u8]]) -> Vec<u8> {
    Digest::sha256(&parts.concat()).as_bytes().to_vec()
}
