//! What is wrong with a file.

use thiserror::Error;

/// Why a file cannot be read or written.
#[derive(Debug, Error)]
pub enum BoltError {
    /// The disk's error.
    #[error("the file cannot be accessed: {0}")]
    Io(#[from] std::io::Error),
    /// No page in the places of the meta pages is one.
    #[error("this is not a bbolt file, or both of its meta pages are damaged")]
    NotBolt,
    /// The file ends before its last page.
    #[error(
        "the file is cut off: it has {bytes} bytes, and its pages take {bytes_expected}; copy it again"
    )]
    CutOff {
        /// What it has.
        bytes: u64,
        /// What its pages take.
        bytes_expected: u64,
    },
    /// A page is not what the file's structure says.
    #[error("the file is damaged: page {page} {reason}; use another copy")]
    Damaged {
        /// The page.
        page: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A pair that cannot be written: it is not after the last one, or too large for the format.
    #[error("the pair cannot be written: {0}")]
    BadPair(&'static str),
}
