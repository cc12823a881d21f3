//! Access keys of the S3 API.

use onefold_transport::methods;
use serde::{Deserialize, Serialize};

methods! {
    /// Creates a key, or replaces the one of that name.
    323 pub CreateS3Key "s3.key_create" NewS3Key => S3Key;
    /// Lists the keys, without their secrets.
    324 pub ListS3Keys "s3.key_list" () => Vec<S3KeyName>;
    /// Removes a key; says whether there was one.
    325 pub RemoveS3Key "s3.key_remove" String => bool;
}

/// A key to be created. What is not given is drawn at random.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewS3Key {
    /// The access key: 3 to 128 letters, digits, `-` or `_`.
    pub access_key: Option<String>,
    /// The secret: 8 to 128 printable characters.
    pub secret_key: Option<String>,
    /// Whether the key is valid for connections from the node's own machine only.
    pub loopback_only: bool,
}

/// A key with its secret. It is shown once, when it is created.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Key {
    /// The access key.
    pub access_key: String,
    /// The secret.
    pub secret_key: String,
    /// Whether it is valid for connections from the node's own machine only.
    pub loopback_only: bool,
}

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3KeyName {
    /// The access key.
    pub access_key: String,
    /// Whether it is valid for connections from the node's own machine only.
    pub loopback_only: bool,
}
