//! Keys and values as text.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use bytes::Bytes;
use onefold_kv::{KeyValue, LeaseId};
use onefold_types::Revision;
use serde::{Serialize, Serializer};

/// Bytes that are text as they are, and others in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub Bytes);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.contains('\0') => f.write_str(text),
            _ => {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Text that only looks like hexadecimal must not be taken for bytes.
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => BTreeMap::from([("hex", self.to_string())]).serialize(serializer),
        }
    }
}

/// A record as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub key: Text,
    pub value: Text,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: u64,
    pub lease: String,
}

impl From<KeyValue> for Record {
    fn from(kv: KeyValue) -> Self {
        Self {
            key: Text(kv.key),
            value: Text(kv.value),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease.to_string(),
        }
    }
}

impl Record {
    /// Prints key and value on a line each, unchanged.
    pub fn print(&self, key_only: bool, value_only: bool) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if !value_only {
            out.write_all(&self.key.0)?;
            writeln!(out)?;
        }
        if !key_only {
            out.write_all(&self.value.0)?;
            writeln!(out)?;
        }
        Ok(())
    }
}

/// A lease id as it is printed: hexadecimal.
pub fn parse_lease(text: &str) -> Result<LeaseId, String> {
    match i64::from_str_radix(text, 16) {
        Ok(id) if id > 0 => Ok(LeaseId(id)),
        _ => Err("a lease is a hexadecimal number, as `onefold kv lease grant` prints it".into()),
    }
}
