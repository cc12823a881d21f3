//! One branch or leaf page, checked before anything of it is used.

use bytes::{Buf, Bytes};

use crate::BoltError;
use crate::format::{
    BUCKET, ELEMENT_BYTES, KEY_BYTES_MAX, Kind, PAGE_HEAD_BYTES, PageHead, VALUE_BYTES_MAX,
};

/// A branch or leaf page with all its overflow.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) page: u64,
    bytes: Bytes,
    pub(crate) is_branch: bool,
    pub(crate) count: usize,
}

/// One element of a leaf.
#[derive(Clone, Debug)]
pub(crate) struct LeafElement {
    pub(crate) is_bucket: bool,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

impl Node {
    /// Reads a page's bytes, of which there are as many as its head says.
    pub(crate) fn parse(page: u64, bytes: Bytes) -> Result<Self, BoltError> {
        let damaged = |reason| BoltError::Damaged { page, reason };
        let head = PageHead::decode(&bytes).ok_or_else(|| damaged("is too short"))?;
        let is_branch = match head.kind {
            Some(Kind::Branch) => true,
            Some(Kind::Leaf) => false,
            _ => return Err(damaged("is neither a branch nor a leaf")),
        };
        let count = usize::from(head.count);
        if bytes.len() < PAGE_HEAD_BYTES + count * ELEMENT_BYTES {
            return Err(damaged("is shorter than its elements"));
        }
        Ok(Self { page, bytes, is_branch, count })
    }

    /// The pair of a leaf's element.
    pub(crate) fn leaf(&self, at: usize) -> Result<LeafElement, BoltError> {
        debug_assert!(!self.is_branch && at < self.count);
        let (place, mut element) = self.element(at);
        let flags = element.get_u32_le();
        let start = place + element.get_u32_le() as usize;
        let key_bytes = element.get_u32_le() as usize;
        let value_bytes = element.get_u32_le() as usize;
        if flags & !BUCKET != 0 {
            return Err(self.damaged("has an element of an unknown kind"));
        }
        if value_bytes > VALUE_BYTES_MAX {
            return Err(self.damaged("has a value larger than 32 MiB"));
        }
        let key = self.part(start, key_bytes)?;
        let value = self.part(start + key_bytes, value_bytes)?;
        self.check_key(&key)?;
        Ok(LeafElement { is_bucket: flags & BUCKET != 0, key, value })
    }

    /// The page that a branch's element leads to.
    pub(crate) fn child(&self, at: usize) -> Result<u64, BoltError> {
        debug_assert!(self.is_branch && at < self.count);
        let (place, mut element) = self.element(at);
        let start = place + element.get_u32_le() as usize;
        let key_bytes = element.get_u32_le() as usize;
        self.part(start, key_bytes)?;
        Ok(element.get_u64_le())
    }

    fn element(&self, at: usize) -> (usize, &[u8]) {
        let place = PAGE_HEAD_BYTES + at * ELEMENT_BYTES;
        (place, &self.bytes[place..place + ELEMENT_BYTES])
    }

    fn check_key(&self, key: &Bytes) -> Result<(), BoltError> {
        match key.len() {
            0 => Err(self.damaged("has an empty key")),
            1..=KEY_BYTES_MAX => Ok(()),
            _ => Err(self.damaged("has a key longer than 32 KiB")),
        }
    }

    /// Lengths have 32 bits, so that their sums do not overflow.
    fn part(&self, start: usize, count: usize) -> Result<Bytes, BoltError> {
        let end = start + count;
        if end > self.bytes.len() {
            return Err(self.damaged("has an element that lies outside of it"));
        }
        Ok(self.bytes.slice(start..end))
    }

    pub(crate) fn damaged(&self, reason: &'static str) -> BoltError {
        BoltError::Damaged { page: self.page, reason }
    }
}
