//! Who may do what, and which headers must not be ignored.
//!
//! Every key of the cluster may do everything. What remains to check after the signature: that it
//! covers what it must, and that nobody asks for a guarantee that we would silently not give.

use async_trait::async_trait;
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, Uri};
use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Error, S3Result, s3_error};

use crate::errors::not_implemented;
use crate::gateway::acl;
use crate::gateway::convert::OWNER;

/// The checks behind the signature.
pub(crate) struct Policy;

#[async_trait]
impl S3Access for Policy {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(
                AccessDenied,
                "the request is not signed; anonymous access is off"
            ));
        }
        refuse_unsigned(context.headers(), &signed_headers(context.headers(), context.uri())?)?;
        refuse_unsupported(context.headers())?;
        refuse_query(context.method(), context.uri())
    }
}

/// One query parameter, decoded; empty when it has no value.
fn query(uri: &Uri, name: &str) -> Option<String> {
    uri.query()?.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(found) == name).then(|| percent_decode(value))
    })
}

fn percent_decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let mut digit = || char::from(ahead.next()?).to_digit(16);
        match (byte, digit(), digit()) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                bytes.nth(1);
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The names that the (already verified) signature covers, in lower case.
///
/// # Errors
/// `InvalidRequest` for Signature Version 2, which covers neither body nor time well, and for two
/// signatures at once, of which only one was verified.
fn signed_headers(headers: &HeaderMap, uri: &Uri) -> S3Result<Vec<String>> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let in_query = query(uri, "X-Amz-SignedHeaders");
    if authorization.is_some() && (in_query.is_some() || query(uri, "X-Amz-Signature").is_some()) {
        return Err(s3_error!(
            InvalidRequest,
            "the request carries two signatures; only one is allowed"
        ));
    }
    let in_header = authorization
        .and_then(|text| text.split_once("SignedHeaders="))
        .map(|(_, rest)| rest.split(',').next().unwrap_or(rest).trim().to_owned());
    let names = in_header.or(in_query).ok_or_else(|| {
        s3_error!(
            InvalidRequest,
            "the authorization mechanism is not supported; please use AWS4-HMAC-SHA256"
        )
    })?;
    Ok(names.split(';').map(str::to_ascii_lowercase).collect())
}

/// A signature must cover the host and every `x-amz-` header ("Signature calculation", S3 API
/// reference): otherwise whoever holds a signed URL could add, say, a copy source of his own. The
/// payload's hash is bound by the signature itself.
fn refuse_unsigned(headers: &HeaderMap, signed: &[String]) -> S3Result<()> {
    let is_signed = |name: &str| signed.iter().any(|signed| signed == name);
    let must_be = |name: &str| name.starts_with("x-amz-") && name != "x-amz-content-sha256";
    let mut names = headers.keys().map(|name| name.as_str());
    let missing = names.find(|name| must_be(name) && !is_signed(name));
    match missing.or((!is_signed("host")).then_some("host")) {
        None => Ok(()),
        Some(name) => Err(s3_error!(
            AccessDenied,
            "there were headers present in the request which were not signed: {name}"
        )),
    }
}

/// Headers that ask for what Onefold does not do. To store an object and drop its encryption or its
/// lock without a word would be worse than to refuse it.
fn refuse_unsupported(headers: &HeaderMap) -> S3Result<()> {
    for (name, value) in headers {
        let value = value.to_str().unwrap_or("?").trim();
        if let Some(error) = refusal(name.as_str(), value) {
            return Err(error);
        }
    }
    Ok(())
}

fn refusal(name: &str, value: &str) -> Option<S3Error> {
    const UNSUPPORTED: [(&str, &str); 5] = [
        ("x-amz-server-side-encryption", "server-side encryption"),
        ("x-amz-copy-source-server-side-encryption", "server-side encryption"),
        ("x-amz-website-redirect-location", "website hosting"),
        ("x-amz-write-offset-bytes", "appending with a write offset"),
        ("x-amz-rename-source", "renaming through S3"),
    ];
    if let Some((_, what)) = UNSUPPORTED.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return Some(not_implemented(what));
    }
    match name {
        "x-amz-expected-bucket-owner" | "x-amz-source-expected-bucket-owner" if value != OWNER => {
            Some(s3_error!(AccessDenied, "the bucket is owned by {OWNER}, not by {value}"))
        }
        "x-amz-acl" if value != "private" && value != "bucket-owner-full-control" => {
            Some(acl::not_supported())
        }
        name if name.starts_with("x-amz-grant-") => Some(acl::not_supported()),
        "x-amz-storage-class" if value != "STANDARD" => {
            Some(s3_error!(InvalidStorageClass, "the only storage class is STANDARD"))
        }
        _ => None,
    }
}

/// A part must not be taken for an object.
fn refuse_query(method: &Method, uri: &Uri) -> S3Result<()> {
    let has = |name| query(uri, name).is_some();
    if method == Method::PUT && has("partNumber") != has("uploadId") {
        return Err(s3_error!(
            InvalidRequest,
            "an upload of a part needs both partNumber and uploadId"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_amz_header_must_be_signed() {
        let mut headers = HeaderMap::new();
        headers.insert(
            AUTHORIZATION,
            "AWS4-HMAC-SHA256 Credential=k/20260101/r/s3/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=00"
                .parse()
                .unwrap(),
        );
        headers.insert("x-amz-date", "20260101T000000Z".parse().unwrap());
        headers.insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
        let uri = Uri::from_static("/b/k");
        let signed = signed_headers(&headers, &uri).unwrap();
        assert!(refuse_unsigned(&headers, &signed).is_ok());
        headers.insert("x-amz-copy-source", "/secret/key".parse().unwrap());
        assert!(refuse_unsigned(&headers, &signed).is_err());
        assert!(refuse_unsigned(&HeaderMap::new(), &["x-amz-date".to_owned()]).is_err());
        let presigned = Uri::from_static("/b/k?X-Amz-SignedHeaders=host%3Bx-amz-acl");
        assert_eq!(signed_headers(&HeaderMap::new(), &presigned).unwrap(), ["host", "x-amz-acl"]);
        assert!(signed_headers(&headers, &presigned).is_err(), "two signatures");
        let hidden = Uri::from_static("/b/k?X-Amz-Signatur%65=00");
        assert!(signed_headers(&headers, &hidden).is_err(), "two signatures, one hidden");
        assert!(signed_headers(&HeaderMap::new(), &uri).is_err());
    }

    #[test]
    fn a_part_is_never_taken_for_an_object() {
        for query in ["partNumber=1", "uploadId=u"] {
            let uri: Uri = format!("/b/k?{query}").parse().unwrap();
            assert!(refuse_query(&Method::PUT, &uri).is_err());
        }
        assert!(refuse_query(&Method::PUT, &Uri::from_static("/b/k")).is_ok());
    }
}
