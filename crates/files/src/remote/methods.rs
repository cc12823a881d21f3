//! The calls of a client of the file system. Numbers 160 to 175.

use onefold_transport::methods;
use serde::{Deserialize, Serialize};

use crate::api::{
    BucketInfo, Condition, CopyOptions, CreateOptions, FileInfo, FilePath, FilesError,
    FinishOptions, ListPage, ListRequest, PartPage, SplitPage, SplitRequest, UploadPage, Usage,
};
use crate::namespace::{Content, Extent};

/// Most bytes of a piece that travels between client and node.
pub(super) const TRANSFER_BYTES_MAX: usize = 4 << 20;

/// A small request: see [`FileSystem`](crate::FileSystem) for what each does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    CreateBucket {
        bucket: String,
    },
    DeleteBucket {
        bucket: String,
    },
    ListBuckets,
    HeadBucket {
        bucket: String,
    },
    Open {
        bucket: String,
        key: String,
    },
    Stat {
        bucket: String,
        key: String,
    },
    List(ListRequest),
    Remove {
        bucket: String,
        keys: Vec<String>,
    },
    RemoveSome {
        bucket: String,
        prefix: String,
    },
    Rename {
        from: FilePath,
        to: FilePath,
        condition: Condition,
    },
    Copy {
        from: FilePath,
        to: FilePath,
        options: CopyOptions,
    },
    MakeDirectory {
        bucket: String,
        key: String,
    },
    CreateUpload {
        bucket: String,
        key: String,
        options: CreateOptions,
    },
    CompleteUpload {
        bucket: String,
        key: String,
        upload: String,
        parts: Vec<(u16, String)>,
        condition: Condition,
        options: FinishOptions,
    },
    AbortUpload {
        bucket: String,
        key: String,
        upload: String,
    },
    ListParts {
        bucket: String,
        key: String,
        upload: String,
        after: u16,
        limit: usize,
    },
    ListUploads {
        bucket: String,
        prefix: String,
        after: Option<(String, Option<String>)>,
        limit: usize,
    },
    Splits(SplitRequest),
    Usage,
}

impl Request {
    /// Whether asking twice is the same as asking once.
    pub(super) fn is_read(&self) -> bool {
        match self {
            Self::ListBuckets
            | Self::HeadBucket { .. }
            | Self::Open { .. }
            | Self::Stat { .. }
            | Self::List(_)
            | Self::ListParts { .. }
            | Self::ListUploads { .. }
            | Self::Splits(_)
            | Self::Usage => true,
            Self::CreateBucket { .. }
            | Self::DeleteBucket { .. }
            | Self::Remove { .. }
            | Self::RemoveSome { .. }
            | Self::Rename { .. }
            | Self::Copy { .. }
            | Self::MakeDirectory { .. }
            | Self::CreateUpload { .. }
            | Self::CompleteUpload { .. }
            | Self::AbortUpload { .. } => false,
        }
    }
}

/// What a request answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Done,
    Buckets(Vec<BucketInfo>),
    Bucket(BucketInfo),
    Opened(FileInfo, Content),
    File(FileInfo),
    List(ListPage),
    Removed(Vec<bool>),
    RemovedSome(u64, bool),
    Upload(String),
    Parts(PartPage),
    Uploads(UploadPage),
    Splits(SplitPage),
    Usage(Usage),
}

/// What a client writes through a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum WriteTarget {
    File { bucket: String, key: String, options: CreateOptions },
    Part { bucket: String, key: String, upload: String, number: u16 },
}

/// One piece of a file being written; its bytes are the body.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Which file, as the node named it.
    pub(super) writer: u64,
    /// 0, 1, 2, …: a repeated piece is recognised by it.
    pub(super) sequence: u64,
}

methods! {
    /// Everything that carries no file content.
    160 pub(crate) Call "files.call" Request => Result<Response, FilesError>;
    /// Starts a file; answers the writer's number.
    161 pub(crate) OpenWriter "files.open_writer" WriteTarget => Result<u64, FilesError>;
    /// Appends the body to a file being written.
    162 pub(crate) WritePiece "files.write" Piece => Result<(), FilesError>;
    /// Makes the file visible.
    163 pub(crate) FinishWriter "files.finish" (u64, FinishOptions) => Result<FileInfo, FilesError>;
    /// Gives a file up.
    164 pub(crate) AbortWriter "files.abort" u64 => ();
    /// The bytes of these extents, at most `TRANSFER_BYTES_MAX`, as the body.
    165 pub(crate) ReadExtents "files.read" Vec<Extent> => Result<(), FilesError>;
}
