//! What the table keeps of users and roles: a format version byte, then postcard.

use std::collections::BTreeSet;

use bytes::Bytes;
use onefold_table::TableError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::stored::damaged;
use crate::Permission;

/// The format of all records of this file.
const FORMAT: u8 = 1;

/// The auth revision of a store whose users were never changed, as etcd counts.
const REVISION_FIRST: u64 = 1;

/// Whether authentication is on, and what belongs to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Switch {
    pub(crate) is_enabled: bool,
    /// Counts the changes to users, roles and this.
    pub(crate) revision: u64,
    /// The revision at which authentication was turned on last. Proofs of before are void.
    pub(crate) since: u64,
    /// Signs tokens. A new one each time that authentication is turned on.
    pub(crate) key: [u8; 32],
}

impl Default for Switch {
    fn default() -> Self {
        Self { is_enabled: false, revision: REVISION_FIRST, since: 0, key: [0; 32] }
    }
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// The revision at which the password became the user's. Proofs of before are void.
    pub(crate) since: u64,
    /// The password as bcrypt hashed it; none if the user cannot log in with one.
    pub(crate) hash: Option<String>,
    pub(crate) roles: BTreeSet<String>,
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Role {
    /// In the order of their keys and ends, of which no two are the same.
    pub(crate) permissions: Vec<Permission>,
}

macro_rules! record {
    ($type:ty, $name:literal) => {
        impl $type {
            /// The record.
            pub(crate) fn encode(&self) -> Bytes {
                encode(self)
            }

            /// Reads what [`encode`](Self::encode) wrote.
            pub(crate) fn decode(stored: &[u8]) -> Result<Self, TableError> {
                decode(stored).ok_or_else(|| damaged($name))
            }
        }
    };
}

record!(Switch, "the switch of authentication");
record!(User, "a user");
record!(Role, "a role");

fn encode<T: Serialize>(record: &T) -> Bytes {
    postcard::to_extend(record, vec![FORMAT]).expect("plain data always serializes").into()
}

fn decode<T: DeserializeOwned>(stored: &[u8]) -> Option<T> {
    postcard::from_bytes(stored.strip_prefix(&[FORMAT])?).ok()
}
