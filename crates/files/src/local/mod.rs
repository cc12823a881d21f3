//! The file system on a node.

mod files;
mod node;
mod splits;
mod versions;

pub use files::LocalFiles;
pub use node::{FilesConfig, FilesNode};
