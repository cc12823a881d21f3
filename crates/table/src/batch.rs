//! Batches of writes.

use bytes::Bytes;

use crate::view::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::{TableError, range::joined};

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value of a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key, if it exists.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Operation {
    /// The key that is written.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn under(self, prefix: &[u8]) -> Self {
        if prefix.is_empty() {
            return self;
        }
        match self {
            Self::Put { key, value } => Self::Put { key: joined(prefix, &key), value },
            Self::Delete { key } => Self::Delete { key: joined(prefix, &key) },
        }
    }
}

/// Writes that take effect together, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    parts: Vec<Part>,
    len: usize,
    bytes: usize,
}

/// Writes whose keys all lie under the same prefix. It is put in front of them once, where they are
/// written, however many spaces are around them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) prefix: Bytes,
    pub(crate) operations: Vec<Operation>,
}

impl Batch {
    /// A batch that writes nothing yet.
    pub const fn new() -> Self {
        Self { parts: Vec::new(), len: 0, bytes: 0 }
    }

    /// Sets the value of a key.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(Operation::Put { key: key.into(), value: value.into() });
    }

    /// Removes a key, if it exists. A range is deleted by its owner, in steps of bounded size.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.push(Operation::Delete { key: key.into() });
    }

    /// Adds the writes of another batch after those of this one.
    pub fn append(&mut self, other: Self) {
        self.len += other.len;
        self.bytes += other.bytes;
        self.parts.extend(other.parts);
    }

    /// The writes, in order, each with its whole key.
    pub fn operations(&self) -> impl Iterator<Item = Operation> + '_ {
        self.parts.iter().flat_map(|part| {
            let whole = |operation: &Operation| operation.clone().under(&part.prefix);
            part.operations.iter().map(whole)
        })
    }

    /// The writes, in order, by value.
    pub fn into_operations(self) -> impl Iterator<Item = Operation> {
        self.parts.into_iter().flat_map(|Part { prefix, operations }| {
            operations.into_iter().map(move |operation| operation.under(&prefix))
        })
    }

    /// The writes, in order, with their prefixes apart.
    pub(crate) fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    /// How many writes it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all its keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same writes with `prefix` in front of each key.
    #[must_use]
    pub fn under(mut self, prefix: &[u8]) -> Self {
        for part in &mut self.parts {
            part.prefix = joined(prefix, &part.prefix);
        }
        self.bytes += prefix.len() * self.len;
        self
    }

    fn push(&mut self, operation: Operation) {
        self.len += 1;
        self.bytes += match &operation {
            Operation::Put { key, value } => key.len() + value.len(),
            Operation::Delete { key } => key.len(),
        };
        match self.parts.last_mut() {
            Some(part) if part.prefix.is_empty() => part.operations.push(operation),
            _ => self.parts.push(Part { prefix: Bytes::new(), operations: vec![operation] }),
        }
    }

    /// Refuses keys and values that a table can't hold.
    pub(crate) fn check_sizes(&self) -> Result<(), TableError> {
        for Part { prefix, operations } in &self.parts {
            for operation in operations {
                let key_bytes = prefix.len() + operation.key().len();
                if key_bytes > KEY_BYTES_MAX {
                    return Err(TableError::KeyTooLong { bytes: key_bytes });
                }
                if let Operation::Put { value, .. } = operation
                    && value.len() > VALUE_BYTES_MAX
                {
                    return Err(TableError::ValueTooLong { bytes: value.len() });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_go_in_front_of_what_is_there_and_of_nothing_that_comes_later() {
        let mut inner = Batch::new();
        inner.put("a", "1");
        let mut batch = inner.under(b"x/");
        batch.delete("b");
        let mut batch = batch.under(b"y/");
        batch.put("c", "");
        let keys: Vec<_> = batch.operations().map(|operation| operation.key().clone()).collect();
        assert_eq!(keys, ["y/x/a", "y/b", "c"]);
        assert_eq!(batch.len(), 3);
        assert_eq!(batch.bytes(), "y/x/a1".len() + "y/b".len() + "c".len());
        let operations: Vec<_> = batch.operations().collect();
        assert!(batch.into_operations().eq(operations));
    }
}
