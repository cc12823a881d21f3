//! The fixed parts of the format: heads of pages, elements and buckets, and the meta page.

use bytes::{Buf, BufMut};

/// Bytes in front of what a page holds.
pub(crate) const PAGE_HEAD_BYTES: usize = 16;

/// Bytes of an element: what a page says about one pair, or about one page below it.
pub(crate) const ELEMENT_BYTES: usize = 16;

/// Bytes in front of a bucket's pages within a value: its root page and its sequence.
pub(crate) const BUCKET_HEAD_BYTES: usize = 16;

/// Bytes of a meta page that mean something, behind its head.
pub(crate) const META_BYTES: usize = 64;

/// Smallest and largest pages that bbolt looks for.
pub(crate) const PAGE_BYTES: std::ops::RangeInclusive<u32> = 1 << 10..=16 << 20;

/// The size of pages in files that are written here.
pub(crate) const PAGE_BYTES_WRITTEN: usize = 4096;

/// Most bytes of a key.
pub(crate) const KEY_BYTES_MAX: usize = 32_768;

/// Most bytes of a value that is written or read here: far beyond any request of etcd.
pub(crate) const VALUE_BYTES_MAX: usize = 32 << 20;

/// Marks a leaf's element whose value is a bucket.
pub(crate) const BUCKET: u32 = 1;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Branch,
    Leaf,
    Meta,
    Freelist,
}

impl Kind {
    const ALL: [(u16, Self); 4] =
        [(1, Self::Branch), (2, Self::Leaf), (4, Self::Meta), (16, Self::Freelist)];

    fn parse(flags: u16) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(number, kind)| (number == flags).then_some(kind))
    }

    fn flags(self) -> u16 {
        Self::ALL
            .into_iter()
            .find_map(|(number, kind)| (kind == self).then_some(number))
            .unwrap_or(0)
    }
}

/// The head of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHead {
    pub(crate) page: u64,
    /// None for a kind that does not exist.
    pub(crate) kind: Option<Kind>,
    /// Elements in it.
    pub(crate) count: u16,
    /// Pages in which it goes on.
    pub(crate) overflow: u32,
}

impl PageHead {
    /// Reads a head; nothing if there are not enough bytes for one.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= PAGE_HEAD_BYTES).then(|| Self {
            page: bytes.get_u64_le(),
            kind: Kind::parse(bytes.get_u16_le()),
            count: bytes.get_u16_le(),
            overflow: bytes.get_u32_le(),
        })
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        into.put_u64_le(self.page);
        into.put_u16_le(self.kind.map_or(0, Kind::flags));
        into.put_u16_le(self.count);
        into.put_u32_le(self.overflow);
    }
}

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_bytes: u32,
    /// The root page of the root bucket.
    pub(crate) root: u64,
    pub(crate) freelist: u64,
    /// Pages in use, from page 0 on; the file may be longer.
    pub(crate) pages: u64,
    /// The transaction that wrote it: of two meta pages the later one counts.
    pub(crate) transaction: u64,
}

impl Meta {
    /// Reads what stands behind a meta page's head, if it is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.get(..META_BYTES)?;
        let (mut fields, mut checksum) = body.split_at(META_BYTES - 8);
        let is_whole = checksum.get_u64_le() == fnv1a(fields);
        let is_known = fields.get_u32_le() == MAGIC && fields.get_u32_le() == VERSION;
        let page_bytes = fields.get_u32_le();
        let _flags = fields.get_u32_le();
        let root = fields.get_u64_le();
        let _sequence = fields.get_u64_le();
        let (freelist, pages) = (fields.get_u64_le(), fields.get_u64_le());
        let transaction = fields.get_u64_le();
        let is_sound = page_bytes.is_power_of_two() && PAGE_BYTES.contains(&page_bytes);
        (is_whole && is_known && is_sound).then_some(Self {
            page_bytes,
            root,
            freelist,
            pages,
            transaction,
        })
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        into.put_u32_le(MAGIC);
        into.put_u32_le(VERSION);
        into.put_u32_le(self.page_bytes);
        into.put_u32_le(0);
        into.put_u64_le(self.root);
        into.put_u64_le(0);
        into.put_u64_le(self.freelist);
        into.put_u64_le(self.pages);
        into.put_u64_le(self.transaction);
        let checksum = fnv1a(&into[start..]);
        into.put_u64_le(checksum);
    }
}

/// The 64-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_meta_page_survives_and_a_flipped_bit_in_it_does_not() {
        let meta = Meta { page_bytes: 4096, root: 3, freelist: 2, pages: 9, transaction: 7 };
        let mut bytes = Vec::new();
        meta.encode(&mut bytes);
        assert_eq!(bytes.len(), META_BYTES);
        assert_eq!(Meta::decode(&bytes), Some(meta));
        for place in 0..bytes.len() {
            bytes[place] ^= 1;
            assert_eq!(Meta::decode(&bytes), None, "byte {place}");
            bytes[place] ^= 1;
        }
        assert_eq!(Meta::decode(&bytes[1..]), None);
    }
}
