//! The operations, each over [`VersionedFiles`]. One file a family; this one is the table of contents.
//!
//! Nothing in here knows of signatures, sockets or limits on time: the layers above did that.

pub(crate) mod acl;
mod buckets;
pub(crate) mod convert;
mod copy;
mod cors;
mod delete;
mod describe;
mod download;
mod lifecycle;
mod listing;
mod lock;
mod multipart;
mod read;
mod tagging;
mod upload;
mod versions;

use std::sync::Arc;

use async_trait::async_trait;
use onefold_files::VersionedFiles;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use crate::admission::Admission;

/// S3 over a file system. What is not listed below answers `NotImplemented`.
#[derive(Clone)]
pub(crate) struct Gateway {
    files: Arc<dyn VersionedFiles>,
    admission: Arc<Admission>,
}

impl Gateway {
    pub(crate) fn new(files: Arc<dyn VersionedFiles>, admission: Arc<Admission>) -> Self {
        Self { files, admission }
    }
}

macro_rules! operations {
    ($($name:ident: $input:ident -> $output:ident = $module:ident;)*) => {
        #[async_trait]
        impl S3 for Gateway {
            $(async fn $name(
                &self,
                request: S3Request<$input>,
            ) -> S3Result<S3Response<$output>> {
                $module::$name(self, request).await
            })*
        }
    };
}

operations! {
    list_buckets: ListBucketsInput -> ListBucketsOutput = buckets;
    create_bucket: CreateBucketInput -> CreateBucketOutput = buckets;
    delete_bucket: DeleteBucketInput -> DeleteBucketOutput = buckets;
    head_bucket: HeadBucketInput -> HeadBucketOutput = buckets;
    get_bucket_location: GetBucketLocationInput -> GetBucketLocationOutput = buckets;
    get_bucket_versioning: GetBucketVersioningInput -> GetBucketVersioningOutput = versions;
    put_bucket_versioning: PutBucketVersioningInput -> PutBucketVersioningOutput = versions;
    list_object_versions: ListObjectVersionsInput -> ListObjectVersionsOutput = versions;
    get_object_lock_configuration:
        GetObjectLockConfigurationInput -> GetObjectLockConfigurationOutput = lock;
    put_object_lock_configuration:
        PutObjectLockConfigurationInput -> PutObjectLockConfigurationOutput = lock;
    get_object_retention: GetObjectRetentionInput -> GetObjectRetentionOutput = lock;
    put_object_retention: PutObjectRetentionInput -> PutObjectRetentionOutput = lock;
    get_object_legal_hold: GetObjectLegalHoldInput -> GetObjectLegalHoldOutput = lock;
    put_object_legal_hold: PutObjectLegalHoldInput -> PutObjectLegalHoldOutput = lock;
    get_bucket_cors: GetBucketCorsInput -> GetBucketCorsOutput = cors;
    put_bucket_cors: PutBucketCorsInput -> PutBucketCorsOutput = cors;
    delete_bucket_cors: DeleteBucketCorsInput -> DeleteBucketCorsOutput = cors;
    get_bucket_lifecycle_configuration:
        GetBucketLifecycleConfigurationInput -> GetBucketLifecycleConfigurationOutput = lifecycle;
    put_bucket_lifecycle_configuration:
        PutBucketLifecycleConfigurationInput -> PutBucketLifecycleConfigurationOutput = lifecycle;
    delete_bucket_lifecycle: DeleteBucketLifecycleInput -> DeleteBucketLifecycleOutput = lifecycle;
    get_bucket_tagging: GetBucketTaggingInput -> GetBucketTaggingOutput = tagging;
    put_bucket_tagging: PutBucketTaggingInput -> PutBucketTaggingOutput = tagging;
    delete_bucket_tagging: DeleteBucketTaggingInput -> DeleteBucketTaggingOutput = tagging;
    get_bucket_acl: GetBucketAclInput -> GetBucketAclOutput = acl;
    put_bucket_acl: PutBucketAclInput -> PutBucketAclOutput = acl;
    get_object_acl: GetObjectAclInput -> GetObjectAclOutput = acl;
    put_object_acl: PutObjectAclInput -> PutObjectAclOutput = acl;
    list_objects: ListObjectsInput -> ListObjectsOutput = listing;
    list_objects_v2: ListObjectsV2Input -> ListObjectsV2Output = listing;
    get_object: GetObjectInput -> GetObjectOutput = read;
    get_object_attributes: GetObjectAttributesInput -> GetObjectAttributesOutput = describe;
    head_object: HeadObjectInput -> HeadObjectOutput = read;
    get_object_tagging: GetObjectTaggingInput -> GetObjectTaggingOutput = tagging;
    put_object_tagging: PutObjectTaggingInput -> PutObjectTaggingOutput = tagging;
    delete_object_tagging: DeleteObjectTaggingInput -> DeleteObjectTaggingOutput = tagging;
    put_object: PutObjectInput -> PutObjectOutput = upload;
    copy_object: CopyObjectInput -> CopyObjectOutput = copy;
    delete_object: DeleteObjectInput -> DeleteObjectOutput = delete;
    delete_objects: DeleteObjectsInput -> DeleteObjectsOutput = delete;
    create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput = multipart;
    upload_part: UploadPartInput -> UploadPartOutput = upload;
    upload_part_copy: UploadPartCopyInput -> UploadPartCopyOutput = copy;
    complete_multipart_upload:
        CompleteMultipartUploadInput -> CompleteMultipartUploadOutput = multipart;
    abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput = multipart;
    list_parts: ListPartsInput -> ListPartsOutput = multipart;
    list_multipart_uploads: ListMultipartUploadsInput -> ListMultipartUploadsOutput = multipart;
}
