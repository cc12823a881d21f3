//! Making a file from sorted pairs, page after page.
//!
//! Leaves are filled in order, and so are the branches above them. What is written is never read or
//! changed again, but for the two meta pages at the start: they name the root, and are written last.

use std::io::{Seek, SeekFrom, Write};

use bytes::BufMut;

use crate::BoltError;
use crate::format::{
    BUCKET, BUCKET_HEAD_BYTES, ELEMENT_BYTES, KEY_BYTES_MAX, Kind, Meta, PAGE_BYTES_WRITTEN,
    PAGE_HEAD_BYTES, PageHead, VALUE_BYTES_MAX,
};

/// Fewest children of a branch: bbolt stops with an assertion when it deletes below a branch that
/// has but one.
const CHILDREN_MIN: usize = 2;

/// A file in the making. Give it a buffered writer.
pub struct Writer<W> {
    out: W,
    /// Where the file begins within `out`.
    start: u64,
    pages: u64,
    /// Names and root pages.
    buckets: Vec<(Vec<u8>, u64)>,
}

/// A bucket in the making.
pub struct BucketWriter<'w, W> {
    writer: &'w mut Writer<W>,
    name: Vec<u8>,
    tree: Tree,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a file at the present place of `out`.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(mut out: W) -> Result<Self, BoltError> {
        let start = out.stream_position()?;
        out.write_all(&[0; 2 * PAGE_BYTES_WRITTEN])?;
        Ok(Self { out, start, pages: 2, buckets: Vec::new() })
    }

    /// Begins a bucket. Buckets may come in any order, their pairs must be sorted.
    pub fn bucket(&mut self, name: &[u8]) -> BucketWriter<'_, W> {
        BucketWriter { writer: self, name: name.to_vec(), tree: Tree::default() }
    }

    /// Ends the file and says how many bytes it has. Flushes `out`, and syncs nothing.
    ///
    /// # Errors
    /// The disk's, and when two buckets have the same name.
    pub fn finish(mut self) -> Result<(u64, W), BoltError> {
        let mut buckets = std::mem::take(&mut self.buckets);
        buckets.sort();
        let mut tree = Tree::default();
        for (name, root) in buckets {
            let mut value = Vec::with_capacity(BUCKET_HEAD_BYTES);
            value.put_u64_le(root);
            value.put_u64_le(0);
            tree.put(&mut self, BUCKET, &name, &value)?;
        }
        let root = tree.finish(&mut self)?;
        let freelist = self.write_page(Kind::Freelist, 0, Vec::new())?;
        self.out.seek(SeekFrom::Start(self.start))?;
        for transaction in 0..2 {
            let head =
                PageHead { page: transaction, kind: Some(Kind::Meta), count: 0, overflow: 0 };
            let page_bytes = PAGE_BYTES_WRITTEN as u32;
            let meta = Meta { page_bytes, root, freelist, pages: self.pages, transaction };
            let mut page = Vec::with_capacity(PAGE_BYTES_WRITTEN);
            head.encode(&mut page);
            meta.encode(&mut page);
            page.resize(PAGE_BYTES_WRITTEN, 0);
            self.out.write_all(&page)?;
        }
        self.out.flush()?;
        Ok((self.pages * PAGE_BYTES_WRITTEN as u64, self.out))
    }

    /// Writes the elements and data of one page, and says which page it is.
    fn write_page(&mut self, kind: Kind, count: u16, body: Vec<u8>) -> Result<u64, BoltError> {
        let page = self.pages;
        let pages = (PAGE_HEAD_BYTES + body.len()).div_ceil(PAGE_BYTES_WRITTEN).max(1);
        let overflow = u32::try_from(pages - 1).map_err(|_| TOO_LARGE)?;
        let mut head = Vec::with_capacity(PAGE_HEAD_BYTES);
        PageHead { page, kind: Some(kind), count, overflow }.encode(&mut head);
        self.out.write_all(&head)?;
        self.out.write_all(&body)?;
        let rest = pages * PAGE_BYTES_WRITTEN - PAGE_HEAD_BYTES - body.len();
        self.out.write_all(&[0; PAGE_BYTES_WRITTEN][..rest])?;
        self.pages += pages as u64;
        Ok(page)
    }
}

impl<W: Write + Seek> BucketWriter<'_, W> {
    /// Adds a pair, whose key must be after the last one.
    ///
    /// # Errors
    /// When it is not, or the pair is larger than the format allows; and the disk's.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), BoltError> {
        self.tree.put(self.writer, 0, key, value)
    }

    /// Ends the bucket.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(self) -> Result<(), BoltError> {
        let root = self.tree.finish(self.writer)?;
        self.writer.buckets.push((self.name, root));
        Ok(())
    }
}

const TOO_LARGE: BoltError = BoltError::BadPair("it is larger than a bbolt file can hold");

/// A tree that grows to the right.
#[derive(Default)]
struct Tree {
    last: Option<Vec<u8>>,
    leaf: Vec<Pair>,
    leaf_bytes: usize,
    /// Children that are in no branch yet, by level from the leaves up.
    levels: Vec<Vec<Child>>,
}

struct Pair {
    flags: u32,
    key: Vec<u8>,
    value: Vec<u8>,
}

struct Child {
    key: Vec<u8>,
    page: u64,
}

impl Child {
    fn bytes(&self) -> usize {
        ELEMENT_BYTES + self.key.len()
    }
}

impl Tree {
    fn put<W: Write + Seek>(
        &mut self,
        writer: &mut Writer<W>,
        flags: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), BoltError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(TOO_LARGE);
        }
        if self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(BoltError::BadPair("its key is not after the last one"));
        }
        let bytes = ELEMENT_BYTES + key.len() + value.len();
        let is_full = PAGE_HEAD_BYTES + self.leaf_bytes + bytes > PAGE_BYTES_WRITTEN;
        if is_full && !self.leaf.is_empty() {
            self.write_leaf(writer)?;
        }
        self.leaf_bytes += bytes;
        self.leaf.push(Pair { flags, key: key.to_vec(), value: value.to_vec() });
        self.last = Some(key.to_vec());
        Ok(())
    }

    /// Writes what is left and answers the root page.
    fn finish<W: Write + Seek>(mut self, writer: &mut Writer<W>) -> Result<u64, BoltError> {
        if !self.leaf.is_empty() || self.levels.is_empty() {
            self.write_leaf(writer)?;
        }
        let mut level = 0;
        loop {
            let children = std::mem::take(&mut self.levels[level]);
            let is_top = level + 1 == self.levels.len();
            if let ([root], true) = (&children[..], is_top) {
                return Ok(root.page);
            }
            let fitting = fitting(&children);
            let cut = match children.len() - fitting {
                0 => fitting,
                // The last branch needs a second child: the one before gives it.
                _ if fitting > CHILDREN_MIN => children.len() - CHILDREN_MIN,
                _ => children.len(),
            };
            let (full, rest) = children.split_at(cut);
            self.write_branch(writer, level, full)?;
            if !rest.is_empty() {
                self.write_branch(writer, level, rest)?;
            }
            level += 1;
        }
    }

    fn write_leaf<W: Write + Seek>(&mut self, writer: &mut Writer<W>) -> Result<(), BoltError> {
        let pairs = std::mem::take(&mut self.leaf);
        self.leaf_bytes = 0;
        let mut body = Vec::new();
        let mut place = pairs.len() * ELEMENT_BYTES;
        for (at, pair) in pairs.iter().enumerate() {
            body.put_u32_le(pair.flags);
            body.put_u32_le(number(place - at * ELEMENT_BYTES)?);
            body.put_u32_le(number(pair.key.len())?);
            body.put_u32_le(number(pair.value.len())?);
            place += pair.key.len() + pair.value.len();
        }
        for pair in &pairs {
            body.put_slice(&pair.key);
            body.put_slice(&pair.value);
        }
        let page = writer.write_page(Kind::Leaf, count(pairs.len())?, body)?;
        let key = pairs.into_iter().next().map(|pair| pair.key).unwrap_or_default();
        self.add(writer, 0, Child { key, page })
    }

    /// Puts a page under the branch that grows at a level, and writes the branch once it is full
    /// and the next one has enough children.
    fn add<W: Write + Seek>(
        &mut self,
        writer: &mut Writer<W>,
        level: usize,
        child: Child,
    ) -> Result<(), BoltError> {
        if level == self.levels.len() {
            self.levels.push(Vec::new());
        }
        let children = &mut self.levels[level];
        children.push(child);
        let fitting = fitting(children);
        if children.len() < fitting + CHILDREN_MIN {
            return Ok(());
        }
        let rest = children.split_off(fitting);
        let full = std::mem::replace(children, rest);
        self.write_branch(writer, level, &full)
    }

    fn write_branch<W: Write + Seek>(
        &mut self,
        writer: &mut Writer<W>,
        level: usize,
        children: &[Child],
    ) -> Result<(), BoltError> {
        let mut body = Vec::new();
        let mut place = children.len() * ELEMENT_BYTES;
        for (at, child) in children.iter().enumerate() {
            body.put_u32_le(number(place - at * ELEMENT_BYTES)?);
            body.put_u32_le(number(child.key.len())?);
            body.put_u64_le(child.page);
            place += child.key.len();
        }
        children.iter().for_each(|child| body.put_slice(&child.key));
        let page = writer.write_page(Kind::Branch, count(children.len())?, body)?;
        let key = children.first().map(|child| child.key.clone()).unwrap_or_default();
        self.add(writer, level + 1, Child { key, page })
    }
}

/// How many children, from the first on, fit one page; at least as many as a branch must have.
fn fitting(children: &[Child]) -> usize {
    let mut bytes = PAGE_HEAD_BYTES;
    let fitting = children.iter().take_while(|child| {
        bytes += child.bytes();
        bytes <= PAGE_BYTES_WRITTEN
    });
    fitting.count().max(CHILDREN_MIN).min(children.len())
}

fn number(value: usize) -> Result<u32, BoltError> {
    u32::try_from(value).map_err(|_| TOO_LARGE)
}

fn count(value: usize) -> Result<u16, BoltError> {
    u16::try_from(value).map_err(|_| TOO_LARGE)
}
