//! Files of [bbolt](https://github.com/etcd-io/bbolt), the store under etcd: read and written whole.
//!
//! ```text
//! page 0, 1   meta    the root bucket, the freelist, the number of pages; two, the newer one counts
//! page …      branch  keys and the pages below them
//! page …      leaf    keys with values, or with buckets: the root page of another tree
//! ```
//!
//! A page that is too small for what it holds goes on in the ones that follow it. Numbers are
//! little-endian. [`Database`] walks such a file in key order and trusts nothing in it; [`Writer`]
//! makes one from sorted pairs. Neither holds more than a few pages in memory, and neither changes
//! a file in place: that is bbolt's own business.
//!
//! Bbolt does not protect its pages with checksums. A flipped bit in a value is not noticed here.

mod error;
mod format;
mod node;
mod read;
mod source;
mod write;

pub use error::BoltError;
pub use read::{Bucket, Database, Entries, Entry};
pub use source::Source;
pub use write::{BucketWriter, Writer};
