//! What the body of a command (an XML document) must match before anybody acts on it. Bodies of
//! objects are checked where they are stored.

use hyper::HeaderMap;
use s3s::S3Result;
use s3s::crypto::{Checksum as _, Md5};

use super::Fault;
use crate::checksums::{Algorithm, Announced, Hasher, bad_digest, content_md5};
use crate::errors;

/// Digests being computed, and what they must be.
#[derive(Default)]
pub(crate) struct BodyChecks {
    sha256: Option<(Hasher, [u8; 32])>,
    md5: Option<(Md5, [u8; 16])>,
    checksum: Option<(Hasher, Algorithm, Vec<u8>)>,
}

impl BodyChecks {
    /// The checks that the headers ask for. The checksum headers of CompleteMultipartUpload are about
    /// the object, so the caller says whether they are `about_body`.
    pub(crate) fn from_headers(headers: &HeaderMap, about_body: bool) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let sha256 = text("x-amz-content-sha256").and_then(parse_sha256);
        let md5 = text("content-md5").map(content_md5).transpose()?;
        let announced = if about_body { Announced::from_headers(headers)? } else { None };
        let checksum = announced.and_then(|announced| {
            let value = announced.value?;
            Some((Hasher::new(announced.algorithm), announced.algorithm, value))
        });
        Ok(Self {
            sha256: sha256.map(|expected| (Hasher::new(Algorithm::Sha256), expected)),
            md5: md5.map(|expected| (Md5::new(), expected)),
            checksum,
        })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some((hasher, _)) = &mut self.sha256 {
            hasher.update(bytes);
        }
        if let Some((hasher, _)) = &mut self.md5 {
            hasher.update(bytes);
        }
        if let Some((hasher, ..)) = &mut self.checksum {
            hasher.update(bytes);
        }
    }

    /// Judges the whole body. Later calls find nothing left to judge.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        let Self { sha256, md5, checksum } = std::mem::take(self);
        if let Some((hasher, expected)) = sha256
            && hasher.finish() != expected
        {
            return Err(errors::content_sha256_mismatch().into());
        }
        if let Some((hasher, expected)) = md5
            && hasher.finalize() != expected
        {
            return Err(errors::content_md5_mismatch().into());
        }
        if let Some((hasher, algorithm, expected)) = checksum
            && hasher.finish() != expected
        {
            return Err(bad_digest(algorithm).into());
        }
        Ok(())
    }
}

fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    let bytes = hex.as_bytes();
    if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, index) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[index..index + 2], 16).ok()?;
    }
    Some(digest)
}
