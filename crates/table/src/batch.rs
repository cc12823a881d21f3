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
}

/// Writes that take effect together, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    operations: Vec<Operation>,
    bytes: usize,
}

impl Batch {
    /// A batch that writes nothing yet.
    pub const fn new() -> Self {
        Self { operations: Vec::new(), bytes: 0 }
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
        self.bytes += other.bytes;
        self.operations.extend(other.operations);
    }

    /// The writes, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The writes, in order, by value.
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    /// How many writes it holds.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of all its keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same writes with `prefix` in front of each key.
    #[must_use]
    pub fn under(self, prefix: &[u8]) -> Self {
        let mut batch = Self { operations: Vec::with_capacity(self.len()), bytes: 0 };
        for operation in self.operations {
            match operation {
                Operation::Put { key, value } => batch.put(joined(prefix, &key), value),
                Operation::Delete { key } => batch.delete(joined(prefix, &key)),
            }
        }
        batch
    }

    fn push(&mut self, operation: Operation) {
        self.bytes += match &operation {
            Operation::Put { key, value } => key.len() + value.len(),
            Operation::Delete { key } => key.len(),
        };
        self.operations.push(operation);
    }

    /// Refuses keys and values that a table can't hold.
    pub(crate) fn check_sizes(&self) -> Result<(), TableError> {
        for operation in &self.operations {
            let key_bytes = operation.key().len();
            if key_bytes > KEY_BYTES_MAX {
                return Err(TableError::KeyTooLong { bytes: key_bytes });
            }
            if let Operation::Put { value, .. } = operation
                && value.len() > VALUE_BYTES_MAX
            {
                return Err(TableError::ValueTooLong { bytes: value.len() });
            }
        }
        Ok(())
    }
}
