//! Digests: `sha256:` with 64 hexadecimal digits, `sha512:` with 128, nothing else (image-spec, "Digests").

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest as algorithms;

/// A hash algorithm that digests may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the one that signatures bind.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn bytes_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn implementation(self) -> &'static algorithms::Algorithm {
        match self {
            Self::Sha256 => &algorithms::SHA256,
            Self::Sha512 => &algorithms::SHA512,
        }
    }
}

/// The digest of some bytes; safe to use as a file name.
///
/// Two digests of the same bytes by different algorithms are different digests, and nothing trusted under one is
/// trusted under the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// The hash, followed by zeros where the algorithm's is shorter.
    bytes: [u8; 64],
}

impl Digest {
    /// The digest of `content`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        Self::from_hash(algorithm, algorithms::digest(algorithm.implementation(), content).as_ref())
    }

    /// The SHA-256 digest of `content`.
    pub fn sha256(content: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, content)
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash: 32 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.split_at(self.algorithm.bytes_len()).0
    }

    /// The hash in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// Whether this is the digest of `content`, by its own algorithm.
    pub fn matches(&self, content: &[u8]) -> bool {
        Self::of(self.algorithm, content) == *self
    }

    fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        let mut bytes = [0; 64];
        for (to, from) in bytes.iter_mut().zip(hash) {
            *to = *from;
        }
        Self { algorithm, bytes }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without an allocation: digests are written for every request.
        let mut digits = [0; 128];
        let hash = self.as_bytes();
        let (digits, _) = digits.split_at_mut(hash.len().saturating_mul(2));
        hex::encode_to_slice(hash, &mut *digits).map_err(|_| fmt::Error)?;
        formatter.write_str(self.algorithm.as_str())?;
        formatter.write_str(":")?;
        formatter.write_str(std::str::from_utf8(digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The part before the colon names no algorithm that is supported.
    #[error("the digest's algorithm is not sha256 or sha512")]
    Algorithm,
    /// The part after the colon has the wrong length or other characters than `0-9a-f`.
    #[error("the digest is not {expected} lower-case hexadecimal digits after the colon")]
    Hex {
        /// How many digits the algorithm needs.
        expected: usize,
    },
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, digits) = text.split_once(':').ok_or(DigestError::Algorithm)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm),
        };
        let expected = algorithm.bytes_len() * 2;
        let lower_case = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() != expected || !lower_case {
            return Err(DigestError::Hex { expected });
        }
        let hash = hex::decode(digits).map_err(|_| DigestError::Hex { expected })?;
        Ok(Self::from_hash(algorithm, &hash))
    }
}

/// Hashes bytes as they come.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: algorithms::Context,
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, context: algorithms::Context::new(algorithm.implementation()) }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Digest {
        Digest::from_hash(self.algorithm, self.context.finish().as_ref())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hasher").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_survives_its_text() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::sha256(b"")));
        let long = Digest::of(Algorithm::Sha512, b"x");
        assert_eq!(long.to_string().parse(), Ok(long));
        assert_eq!(long.as_bytes().len(), 64);
    }

    #[test]
    fn anything_but_the_two_forms_is_refused() {
        let (_, hex) = EMPTY.split_once(':').unwrap();
        let bad = [
            String::new(),
            hex.to_owned(),
            format!("SHA256:{hex}"),
            format!("md5:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", hex.get(1..).unwrap()),
            format!("sha256:{hex}0"),
            format!("sha256:{}/..", hex.get(3..).unwrap()),
            format!("sha512:{hex}"),
            "sha256:../../x".to_owned(),
            format!("sha256:{}é", hex.get(2..).unwrap()),
        ];
        for text in bad {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn hashing_in_pieces_gives_the_digest_of_the_whole() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish(), Digest::sha256(b"abc"));
    }

    #[test]
    fn the_same_bytes_by_another_algorithm_are_another_digest() {
        let (short, long) = (Digest::sha256(b"x"), Digest::of(Algorithm::Sha512, b"x"));
        assert_ne!(short, long);
        assert!(short.matches(b"x") && long.matches(b"x") && !short.matches(b"y"));
    }
}
