//! Access keys of the S3 API.

use onefold_transport::{Method, MethodId};
use serde::{Deserialize, Serialize};

/// Creates a key, or replaces the one of that name.
pub struct CreateS3Key;

impl Method for CreateS3Key {
    const ID: MethodId = MethodId(323);
    const NAME: &'static str = "s3.key_create";
    type Request = NewS3Key;
    type Response = S3Key;
}

/// Lists the keys, without their secrets.
pub struct ListS3Keys;

impl Method for ListS3Keys {
    const ID: MethodId = MethodId(324);
    const NAME: &'static str = "s3.key_list";
    type Request = ();
    type Response = Vec<S3KeyName>;
}

/// Removes a key; says whether there was one.
pub struct RemoveS3Key;

impl Method for RemoveS3Key {
    const ID: MethodId = MethodId(325);
    const NAME: &'static str = "s3.key_remove";
    type Request = String;
    type Response = bool;
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
