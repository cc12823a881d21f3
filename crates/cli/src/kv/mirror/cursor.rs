//! How far a mirror is, as it stands in a key of the target.

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// How far a mirror is. Stored as JSON, so that a person can read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The source's cluster, in hexadecimal.
    pub source: String,
    /// What is mirrored.
    pub prefix: String,
    /// The revision of the source that the target is at; none while it is copied.
    pub revision: Option<i64>,
}

impl Cursor {
    pub fn encode(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    pub fn decode(key: &str, value: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(value).with_context(|| {
            format!("the key {key:?} holds no mirror's cursor; choose another with --cursor-key")
        })
    }
}
