//! ETags as S3 makes them.

use std::fmt::Write;

use md5::{Digest, Md5};

use crate::api::FilesError;

/// Lower-case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string succeeds");
        text
    })
}

/// The ETag of a file written in one go: the MD5 of its bytes.
pub(crate) fn plain(digest: [u8; 16]) -> String {
    hexadecimal(&digest)
}

/// The ETag of a multipart upload: the MD5 of its parts' MD5s, and their number.
pub(crate) fn multipart<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut digest = Md5::new();
    let mut count = 0;
    for part in parts {
        count += 1;
        match bytes_of(part) {
            Some(bytes) => digest.update(bytes),
            // An ETag that the writer chose itself.
            None => digest.update(part.as_bytes()),
        }
    }
    let digest: [u8; 16] = digest.finalize().into();
    format!("{}-{count}", plain(digest))
}

fn bytes_of(etag: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if etag.len() != 32 || !etag.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&etag[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Compares the digest that was announced, if any, with that of what arrived.
pub(crate) fn check(expected: Option<[u8; 16]>, actual: [u8; 16]) -> Result<(), FilesError> {
    match expected {
        Some(expected) if expected != actual => Err(FilesError::BadDigest {
            expected: hexadecimal(&expected),
            actual: hexadecimal(&actual),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etag_of_a_multipart_upload_is_that_of_s3() {
        // printf '' | md5sum, then the binary digest twice | md5sum.
        let empty = "d41d8cd98f00b204e9800998ecf8427e";
        let of_one = multipart([empty].into_iter());
        assert_eq!(of_one, "59adb24ef3cdbe0297f05b395827453f-1");
        assert_eq!(plain(Md5::digest(b"").into()), empty);
    }
}
