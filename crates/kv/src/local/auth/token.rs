//! Tokens: a signed statement that somebody knew a user's password.
//!
//! ```text
//! version 1 byte, issued 8 bytes (seconds since 1970), auth revision 8 bytes, user, MAC 32 bytes
//! ```
//!
//! in URL-safe base64. Every node has the key, so that every node takes every token and none has to
//! remember them. A token lives for a while after it was issued, and on a node that it is shown to,
//! for a while after it was shown last.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::Proof;

/// How long a token lives after it was issued or used last, in seconds; etcd's default.
const TOKEN_SECONDS: u64 = 300;

/// Most tokens whose last use a node remembers. Further ones live from their issue on only.
const USES_MAX: usize = 100_000;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
const HEAD_BYTES: usize = 17;

/// A genuine token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) proof: Proof,
    issued_seconds: u64,
    mac: [u8; MAC_BYTES],
}

/// The token of a proof.
pub(super) fn sign(key: &[u8; 32], proof: &Proof, now_seconds: u64) -> String {
    let mut token = vec![VERSION];
    token.extend(now_seconds.to_be_bytes());
    token.extend(proof.revision.to_be_bytes());
    token.extend(proof.name.as_bytes());
    let mac = mac(key, &token).finalize().into_bytes();
    token.extend(mac);
    URL_SAFE_NO_PAD.encode(token)
}

/// What [`sign`] made with this key.
pub(super) fn verify(key: &[u8; 32], token: &str) -> Option<Token> {
    let token = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (signed, mac_found) = token.split_last_chunk::<MAC_BYTES>()?;
    mac(key, signed).verify_slice(mac_found).ok()?;
    let (head, name) = signed.split_first_chunk::<HEAD_BYTES>()?;
    let (version, numbers) = head.split_first()?;
    let (issued, revision) = numbers.split_first_chunk::<8>()?;
    let proof = Proof {
        name: String::from_utf8(name.to_vec()).ok()?,
        revision: u64::from_be_bytes(revision.try_into().ok()?),
    };
    (*version == VERSION).then(|| Token {
        proof,
        issued_seconds: u64::from_be_bytes(*issued),
        mac: *mac_found,
    })
}

fn mac(key: &[u8; 32], signed: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(signed);
    mac
}

/// Seconds since 1970 by this node's clock.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// When tokens were shown to this node last.
#[derive(Default)]
pub(crate) struct Uses {
    last_seconds: Mutex<BTreeMap<[u8; MAC_BYTES], u64>>,
}

impl Uses {
    /// Whether a token that is shown now is still alive. If so, it is for a while from now on.
    pub(super) fn is_alive(&self, token: &Token, now_seconds: u64) -> bool {
        // Nothing under the lock panics half-way through a change.
        let mut uses = self.last_seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let last = uses.get(&token.mac).copied().unwrap_or(0).max(token.issued_seconds);
        let is_alive = now_seconds <= last.saturating_add(TOKEN_SECONDS);
        if !is_alive {
            uses.remove(&token.mac);
            return false;
        }
        if uses.len() >= USES_MAX && !uses.contains_key(&token.mac) {
            uses.retain(|_, last| now_seconds <= last.saturating_add(TOKEN_SECONDS));
        }
        if uses.len() < USES_MAX || uses.contains_key(&token.mac) {
            uses.insert(token.mac, now_seconds);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NOW: u64 = 1_800_000_000;

    fn proof() -> Proof {
        Proof { name: "alice".to_owned(), revision: 9 }
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let token = sign(&KEY, &proof(), NOW);
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()), "{token}");
        let token = verify(&KEY, &token).expect("it is genuine");
        assert_eq!((token.proof, token.issued_seconds), (proof(), NOW));
    }

    #[test]
    fn a_token_with_any_byte_changed_is_nobodys() {
        let token = sign(&KEY, &proof(), NOW);
        assert_eq!(verify(&[8; 32], &token), None);
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(verify(&KEY, &changed), None, "{place}");
        }
        for nonsense in ["", "x", "Bearer", &"A".repeat(100)] {
            assert_eq!(verify(&KEY, nonsense), None);
        }
    }

    proptest! {
        #[test]
        fn nonsense_is_nobodys_token(token in ".*", bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(verify(&KEY, &token), None);
            prop_assert_eq!(verify(&KEY, &URL_SAFE_NO_PAD.encode(bytes)), None);
        }

        #[test]
        fn every_name_comes_back(name in ".*", revision in any::<u64>(), now in any::<u64>()) {
            let proof = Proof { name, revision };
            let token = verify(&KEY, &sign(&KEY, &proof, now)).expect("it is genuine");
            prop_assert_eq!((token.proof, token.issued_seconds), (proof, now));
        }
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let uses = Uses::default();
        let token = verify(&KEY, &sign(&KEY, &proof(), NOW)).expect("it is genuine");
        assert!(uses.is_alive(&token, NOW + TOKEN_SECONDS));
        assert!(uses.is_alive(&token, NOW + 2 * TOKEN_SECONDS));
        assert!(!uses.is_alive(&token, NOW + 3 * TOKEN_SECONDS + 1));
        assert!(!uses.is_alive(&token, NOW + 3 * TOKEN_SECONDS + 1), "it does not come back");
    }

    #[test]
    fn a_token_of_a_clock_that_is_ahead_is_alive() {
        let token = verify(&KEY, &sign(&KEY, &proof(), NOW)).expect("it is genuine");
        assert!(Uses::default().is_alive(&token, NOW - 10));
    }
}
