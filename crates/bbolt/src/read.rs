//! Walking a file in key order.

use bytes::{Buf, Bytes};

use crate::format::{BUCKET_HEAD_BYTES, META_BYTES, Meta, PAGE_BYTES, PAGE_HEAD_BYTES, PageHead};
use crate::node::Node;
use crate::{BoltError, Source};

/// Levels of a tree. With two children to a branch this is more pages than fit 64 bits.
const DEPTH_MAX: usize = 64;

/// Most bytes of one page and its overflow, which are read at once. The largest value fits.
const NODE_BYTES_MAX: u64 = 64 << 20;

/// Most bytes of a branch and its overflow: one is held for each level.
const BRANCH_BYTES_MAX: u64 = 1 << 20;

/// A file that is not written to while it is read.
#[derive(Debug)]
pub struct Database<S> {
    source: S,
    meta: Meta,
}

/// A named tree of pairs.
#[derive(Clone, Debug)]
pub struct Bucket {
    root: Root,
}

#[derive(Clone, Debug)]
enum Root {
    /// A page of the file.
    Page(u64),
    /// A small leaf in the value that names the bucket, on this page.
    Inline { page: u64, leaf: Bytes },
}

/// A pair of a bucket, or a bucket within it.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A pair. It shares the memory of its page.
    Pair {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// A bucket.
    Bucket {
        /// Its name.
        name: Bytes,
        /// The bucket.
        bucket: Bucket,
    },
}

impl<S: Source> Database<S> {
    /// Opens a file.
    ///
    /// # Errors
    /// When it is no such file, or ends before its last page.
    pub fn open(source: S) -> Result<Self, BoltError> {
        let bytes = source.bytes()?;
        let meta = find_meta(&source, bytes)?.ok_or(BoltError::NotBolt)?;
        let bytes_expected = meta.pages.saturating_mul(u64::from(meta.page_bytes));
        if bytes < bytes_expected {
            return Err(BoltError::CutOff { bytes, bytes_expected });
        }
        Ok(Self { source, meta })
    }

    /// Bytes that the file's pages take. What stands behind them is not bbolt's.
    pub fn bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_bytes)
    }

    /// The bucket that holds all others.
    pub fn root(&self) -> Bucket {
        Bucket { root: Root::Page(self.meta.root) }
    }

    /// A bucket of the root by its name.
    ///
    /// # Errors
    /// When the file is damaged or cannot be read.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, BoltError> {
        for entry in self.entries(&self.root()) {
            match entry? {
                Entry::Bucket { name: found, bucket } if found == name => return Ok(Some(bucket)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// What a bucket holds, in the order of its keys. After an error nothing more comes.
    pub fn entries(&self, bucket: &Bucket) -> Entries<'_, S> {
        let root = Some(bucket.root.clone());
        Entries { database: self, root, path: Vec::new(), last: None }
    }

    fn node(&self, page: u64) -> Result<Node, BoltError> {
        let damaged = |reason| BoltError::Damaged { page, reason };
        if page < 2 || page >= self.meta.pages {
            return Err(damaged("is referred to and is no page of the file"));
        }
        let page_bytes = u64::from(self.meta.page_bytes);
        let mut head = [0; PAGE_HEAD_BYTES];
        self.source.read_at(&mut head, page * page_bytes)?;
        let head = PageHead::decode(&head).ok_or_else(|| damaged("has no head"))?;
        if head.page != page {
            return Err(damaged("has the number of another page"));
        }
        let pages = u64::from(head.overflow) + 1;
        if pages > self.meta.pages - page {
            return Err(damaged("goes on beyond the end of the file"));
        }
        let bytes = pages * page_bytes;
        let is_leaf = head.kind == Some(crate::format::Kind::Leaf);
        if bytes > if is_leaf { NODE_BYTES_MAX } else { BRANCH_BYTES_MAX.max(page_bytes) } {
            return Err(damaged("is larger than any page of etcd"));
        }
        // At most the bound above, which fits any machine's memory.
        let mut buffer = vec![0; bytes as usize];
        self.source.read_at(&mut buffer, page * page_bytes)?;
        Node::parse(page, buffer.into())
    }

    fn root_node(&self, root: &Root) -> Result<Node, BoltError> {
        match root {
            Root::Page(page) => self.node(*page),
            Root::Inline { page, leaf } => {
                let node = Node::parse(*page, leaf.clone())?;
                if node.is_branch {
                    return Err(node.damaged("has a bucket within it that is no leaf"));
                }
                Ok(node)
            }
        }
    }
}

/// The newer of the two meta pages that are whole. The second lies where the size of pages says,
/// which is tried out if the first is not whole.
fn find_meta(source: &impl Source, bytes: u64) -> Result<Option<Meta>, BoltError> {
    let first = meta_at(source, bytes, 0)?;
    if let Some(first) = first {
        let second = meta_at(source, bytes, u64::from(first.page_bytes))?;
        let second = second.filter(|second| second.page_bytes == first.page_bytes);
        return Ok([Some(first), second].into_iter().flatten().max_by_key(|meta| meta.transaction));
    }
    let mut page_bytes = *PAGE_BYTES.start();
    while PAGE_BYTES.contains(&page_bytes) {
        let second = meta_at(source, bytes, u64::from(page_bytes))?;
        if let Some(second) = second.filter(|second| second.page_bytes == page_bytes) {
            return Ok(Some(second));
        }
        page_bytes *= 2;
    }
    Ok(None)
}

fn meta_at(source: &impl Source, bytes: u64, place: u64) -> Result<Option<Meta>, BoltError> {
    let mut page = [0; PAGE_HEAD_BYTES + META_BYTES];
    if place + page.len() as u64 > bytes {
        return Ok(None);
    }
    source.read_at(&mut page, place)?;
    Ok(Meta::decode(&page[PAGE_HEAD_BYTES..]))
}

/// The entries of a bucket. Holds one page for each level of its tree.
#[derive(Debug)]
pub struct Entries<'a, S> {
    database: &'a Database<S>,
    /// Where to begin; none once begun.
    root: Option<Root>,
    /// From the root down to a leaf, with the element of each that is next.
    path: Vec<(Node, usize)>,
    /// The last key. Keys must ascend: so no page is walked twice, wherever its elements lead.
    last: Option<Bytes>,
}

impl<S: Source> Entries<'_, S> {
    fn step(&mut self) -> Result<Option<Entry>, BoltError> {
        if let Some(root) = self.root.take() {
            let node = self.database.root_node(&root)?;
            self.path.push((node, 0));
        }
        loop {
            let depth = self.path.len();
            let Some((node, next)) = self.path.last_mut() else { return Ok(None) };
            let at = *next;
            if at == node.count {
                self.path.pop();
                continue;
            }
            *next += 1;
            if node.is_branch {
                let child = node.child(at)?;
                let below = self.database.node(child)?;
                if below.count == 0 {
                    return Err(below.damaged("is empty within a tree"));
                }
                if depth == DEPTH_MAX {
                    return Err(below.damaged("lies in a loop of pages"));
                }
                self.path.push((below, 0));
                continue;
            }
            let element = node.leaf(at)?;
            if self.last.as_ref().is_some_and(|last| *last >= element.key) {
                return Err(node.damaged("has keys out of order"));
            }
            self.last = Some(element.key.clone());
            return Ok(Some(if element.is_bucket {
                let bucket = parse_bucket(node, element.value)?;
                Entry::Bucket { name: element.key, bucket }
            } else {
                Entry::Pair { key: element.key, value: element.value }
            }));
        }
    }
}

fn parse_bucket(node: &Node, mut value: Bytes) -> Result<Bucket, BoltError> {
    if value.len() < BUCKET_HEAD_BYTES {
        return Err(node.damaged("has a bucket without a root"));
    }
    let root = value.get_u64_le();
    let _sequence = value.get_u64_le();
    let root =
        if root == 0 { Root::Inline { page: node.page, leaf: value } } else { Root::Page(root) };
    Ok(Bucket { root })
}

impl<S: Source> Iterator for Entries<'_, S> {
    type Item = Result<Entry, BoltError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.path.clear();
        }
        step.transpose()
    }
}
