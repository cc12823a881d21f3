//! Access control lists, as far as S3 keeps them when the bucket's owner owns every object ("Bucket
//! owner enforced", S3 user guide): they can be read, and set to what they are.

use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use super::convert::{OWNER, owner};
use super::versions::{asked, from_read};
use crate::errors::from_files;

/// Everything to the owner, nothing to others.
fn grants() -> Grants {
    let grantee = Grantee {
        display_name: Some(OWNER.to_owned()),
        email_address: None,
        id: Some(OWNER.to_owned()),
        type_: Type::from_static(Type::CANONICAL_USER),
        uri: None,
    };
    let permission = Permission::from_static(Permission::FULL_CONTROL);
    vec![Grant { grantee: Some(grantee), permission: Some(permission) }]
}

/// The answer to any other list.
pub(crate) fn not_supported() -> S3Error {
    s3_error!(AccessControlListNotSupported, "the bucket does not allow ACLs")
}

/// A canned list in a header was judged before; a list in the body may say only what is so.
fn check(policy: Option<AccessControlPolicy>) -> S3Result<()> {
    let Some(grants) = policy.and_then(|policy| policy.grants) else { return Ok(()) };
    let is_owners = |grant: &Grant| {
        let permission = grant.permission.as_ref().map(Permission::as_str);
        let grantee = grant.grantee.as_ref().and_then(|grantee| grantee.id.as_deref());
        permission == Some(Permission::FULL_CONTROL) && grantee == Some(OWNER)
    };
    if grants.iter().all(is_owners) { Ok(()) } else { Err(not_supported()) }
}

pub(super) async fn get_bucket_acl(
    gateway: &Gateway,
    request: S3Request<GetBucketAclInput>,
) -> S3Result<S3Response<GetBucketAclOutput>> {
    let found = gateway.files.head_bucket(&request.input.bucket).await;
    found.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(GetBucketAclOutput { grants: Some(grants()), owner: Some(owner()) }))
}

pub(super) async fn put_bucket_acl(
    gateway: &Gateway,
    request: S3Request<PutBucketAclInput>,
) -> S3Result<S3Response<PutBucketAclOutput>> {
    let found = gateway.files.head_bucket(&request.input.bucket).await;
    found.map_err(|error| from_files(&error))?;
    check(request.input.access_control_policy)?;
    Ok(S3Response::new(PutBucketAclOutput::default()))
}

pub(super) async fn get_object_acl(
    gateway: &Gateway,
    request: S3Request<GetObjectAclInput>,
) -> S3Result<S3Response<GetObjectAclOutput>> {
    let input = request.input;
    find(gateway, &input.bucket, &input.key, input.version_id.as_deref()).await?;
    Ok(S3Response::new(GetObjectAclOutput {
        grants: Some(grants()),
        owner: Some(owner()),
        ..GetObjectAclOutput::default()
    }))
}

pub(super) async fn put_object_acl(
    gateway: &Gateway,
    request: S3Request<PutObjectAclInput>,
) -> S3Result<S3Response<PutObjectAclOutput>> {
    let input = request.input;
    find(gateway, &input.bucket, &input.key, input.version_id.as_deref()).await?;
    check(input.access_control_policy)?;
    Ok(S3Response::new(PutObjectAclOutput::default()))
}

async fn find(gateway: &Gateway, bucket: &str, key: &str, version: Option<&str>) -> S3Result<()> {
    let version = asked(version)?;
    let found = gateway.files.open_version(bucket, key, version).await;
    found.map(drop).map_err(|error| from_read(&error, version))
}
