//! Bounds that users of files meet. Sizes carry their unit in their name.

/// Most bytes in a key (S3: "object key names … up to 1,024 bytes long").
pub const KEY_BYTES_MAX: usize = 1024;

/// Most bytes in one file (S3's bound on an object).
pub const FILE_BYTES_MAX: u64 = 5 << 40;

/// Most bytes in one part of a multipart upload (S3's bound).
pub const PART_BYTES_MAX: u64 = 5 << 30;

/// Fewest bytes in each part but the last of a multipart upload (S3's bound).
pub const PART_BYTES_MIN: u64 = 5 << 20;

/// Highest part number, and most parts of one multipart upload (S3's bound).
pub const PART_NUMBER_MAX: u16 = 10_000;

/// Most bytes of attributes (metadata, headers, content type) of one file. S3 allows 2 KiB of user
/// metadata; the rest is for system headers.
pub const ATTRIBUTE_BYTES_MAX: usize = 16 << 10;

/// Most entries in one page of any listing.
pub const PAGE_ENTRIES_MAX: usize = 1000;

/// Most keys that one `remove_many` takes (S3's bound on DeleteObjects).
pub const REMOVE_KEYS_MAX: usize = 1000;

/// Files up to this size live in the namespace itself and use no chunk.
pub const INLINE_BYTES_MAX: usize = 4 << 10;

/// Most bytes that one item of a read stream holds.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// Most bytes in one setting of a bucket.
pub const SETTING_BYTES_MAX: usize = 128 << 10;
