//! Secrets that the server gives out, made from the system's randomness and kept only as a hash; and what others are
//! proved with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use protocol::Digest;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// A secret that was just made. It is shown once and never stored.
pub struct Secret(String);

impl Secret {
    /// 256 random bits as `<prefix>_` and 43 characters of base64url.
    ///
    /// # Panics
    /// Where the system has no randomness: nothing can be kept secret there.
    #[must_use]
    pub fn generate(prefix: &str) -> Self {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).expect("the system gives randomness");
        Self(format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The text to show or send, once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored.
    #[must_use]
    pub fn hash(&self) -> Digest {
        hash(&self.0)
    }
}

/// The stored form of a secret: plain SHA-256 is enough for 256 random bits.
#[must_use]
pub fn hash(secret: &str) -> Digest {
    Digest::of(secret)
}

/// The HMAC-SHA256 of these parts, one after the other.
#[must_use]
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("it takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Compares in a time that does not tell where the difference is.
#[must_use]
pub fn equal(a: impl AsRef<[u8]>, b: impl AsRef<[u8]>) -> bool {
    a.as_ref().ct_eq(b.as_ref()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_only_their_hash_is_stored() {
        let (a, b) = (Secret::generate("ty"), Secret::generate("ty"));
        assert!(a.reveal().starts_with("ty_") && a.reveal().len() == 46);
        assert_ne!(a.reveal(), b.reveal());
        assert_eq!(a.hash(), hash(a.reveal()));
        assert!(equal("abc", "abc") && !equal("abc", "abd") && !equal("abc", "ab"));
    }
}
