//! The one seam between files and everything above it: gateways, mapreduce and the command line see
//! these types and traits, and never where or how they run.

mod error;
mod info;
pub mod limits;
mod path;
mod system;
mod versions;

pub use error::{ErrorKind, FilesError};
pub use info::{
    Attributes, BucketInfo, Condition, CopyOptions, CreateOptions, FileInfo, FinishOptions,
    ListEntry, ListPage, ListRequest, PartInfo, PartPage, ServerUsage, Split, SplitPage,
    SplitRequest, UploadInfo, UploadPage, Usage,
};
pub use path::{FilePath, validate_bucket_name, validate_key};
pub use system::{ByteStream, FileReader, FileSystem, FileWriter, RangeSource};
pub use versions::{
    HeaderChanges, RemoveCondition, RemoveTarget, Removed, Setting, VERSION_HEADER, Version,
    VersionEntry, VersionPage, VersionedFiles, Versioning, VersionsRequest, lock,
};
