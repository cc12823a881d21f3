//! The `x-amz-checksum-…` family: what a client announces, what the bytes really have, and what a
//! multipart object gets ("Checking object integrity", S3 user guide).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use hyper::HeaderMap;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::{S3Error, S3Result, s3_error};

use crate::errors;

/// The prefix of the headers that carry a checksum.
const PREFIX: &str = "x-amz-checksum-";
/// Header under which the kind of a multipart object's checksum is kept and returned.
pub(crate) const TYPE_HEADER: &str = "x-amz-checksum-type";
/// Header under which an upload's algorithm is kept until it is completed.
pub(crate) const ALGORITHM_HEADER: &str = "x-amz-checksum-algorithm";
/// The checksum covers the object's bytes.
pub(crate) const FULL_OBJECT: &str = "FULL_OBJECT";
/// The checksum covers the checksums of the parts.
pub(crate) const COMPOSITE: &str = "COMPOSITE";

/// Hashing more bytes than this at once leaves the asynchronous thread, but for CRCs, which run at
/// memory speed.
const INLINE_HASH_BYTES_MAX: usize = 64 << 10;

/// A checksum that S3 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As requests name it: `CRC32`, …
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header that carries it.
    pub(crate) const fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The algorithm whose checksum the header carries.
    pub(crate) fn of_header(header: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.header() == header)
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The CRC behind it, whose values of adjacent ranges combine.
    const fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// The kind of checksum that a multipart object gets when the client does not choose.
    pub(crate) const fn default_type(self) -> &'static str {
        match self {
            Self::Crc64Nvme => FULL_OBJECT,
            _ => COMPOSITE,
        }
    }

    /// Whether a multipart object can have this kind of checksum.
    pub(crate) fn allows_type(self, kind: &str) -> bool {
        match kind {
            FULL_OBJECT => self.crc().is_some(),
            COMPOSITE => self != Self::Crc64Nvme,
            _ => false,
        }
    }

    fn decode(self, value: &str) -> S3Result<Vec<u8>> {
        let decoded = STANDARD.decode(value).ok().filter(|bytes| bytes.len() == self.bytes());
        decoded.ok_or_else(|| {
            s3_error!(InvalidRequest, "the value of {} is not a valid checksum", self.header())
        })
    }
}

/// The checksum that a request says its body has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) algorithm: Algorithm,
    /// `None`: it comes as a trailer behind the body.
    pub(crate) value: Option<Vec<u8>>,
    /// Nobody announced it: the object gets it all the same.
    is_default: bool,
}

impl Announced {
    /// What S3 computes for an object that came without a checksum.
    pub(crate) const DEFAULT: Self =
        Self { algorithm: Algorithm::Crc64Nvme, value: None, is_default: true };

    /// What the headers announce, if anything.
    ///
    /// # Errors
    /// `InvalidRequest` for a malformed value, an unknown algorithm, or more than one.
    pub(crate) fn from_headers(headers: &HeaderMap) -> S3Result<Option<Self>> {
        let mut found: Option<Self> = None;
        for (name, value) in headers {
            let announced = match name.as_str() {
                ALGORITHM_HEADER | TYPE_HEADER | "x-amz-checksum-mode" => continue,
                "x-amz-trailer" => Self::from_trailer_names(text(value)?)?,
                name if name.starts_with(PREFIX) => Some(Self::from_value(name, text(value)?)?),
                _ => continue,
            };
            let Some(announced) = announced else { continue };
            if found.replace(announced).is_some() {
                return Err(s3_error!(InvalidRequest, "expecting a single x-amz-checksum- header"));
            }
        }
        Ok(found)
    }

    fn from_value(name: &str, value: &str) -> S3Result<Self> {
        let algorithm = Algorithm::of_header(name).ok_or_else(|| {
            s3_error!(InvalidRequest, "{name} names a checksum that is not supported")
        })?;
        Ok(Self { algorithm, value: Some(algorithm.decode(value)?), is_default: false })
    }

    fn from_trailer_names(names: &str) -> S3Result<Option<Self>> {
        let mut found = None;
        for name in names.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            let algorithm = Algorithm::of_header(&name).ok_or_else(|| {
                s3_error!(InvalidRequest, "x-amz-trailer names {name}, which is not supported")
            })?;
            if found.replace(Self { algorithm, value: None, is_default: false }).is_some() {
                return Err(s3_error!(InvalidRequest, "expecting a single x-amz-checksum- header"));
            }
        }
        Ok(found)
    }

    /// The announced value, if one was, from the trailers when it is there.
    pub(crate) fn resolve(&self, trailers: Option<&HeaderMap>) -> S3Result<Option<Vec<u8>>> {
        if self.value.is_some() || self.is_default {
            return Ok(self.value.clone());
        }
        let value = trailers.and_then(|trailers| trailers.get(self.algorithm.header()));
        let value = value.ok_or_else(|| {
            errors::custom(
                "MalformedTrailerError",
                hyper::StatusCode::BAD_REQUEST,
                format!("the announced trailer {} did not arrive", self.algorithm.header()),
            )
        })?;
        self.algorithm.decode(text(value)?).map(Some)
    }
}

fn text(value: &hyper::header::HeaderValue) -> S3Result<&str> {
    value.to_str().map_err(|_| s3_error!(InvalidRequest, "a checksum header is not ASCII"))
}

/// A checksum being computed.
pub(crate) enum Hasher {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Crc64Nvme(Crc64Nvme),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32 => Self::Crc32(Crc32::new()),
            Algorithm::Crc32c => Self::Crc32c(Crc32c::new()),
            Algorithm::Crc64Nvme => Self::Crc64Nvme(Crc64Nvme::new()),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32(hasher) => hasher.update(bytes),
            Self::Crc32c(hasher) => hasher.update(bytes),
            Self::Crc64Nvme(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The same for a large piece: what is slow runs on a blocking thread.
    pub(crate) async fn update_large(mut self, bytes: Bytes) -> S3Result<Self> {
        let is_slow = matches!(self, Self::Sha1(_) | Self::Sha256(_));
        if !is_slow || bytes.len() <= INLINE_HASH_BYTES_MAX {
            self.update(&bytes);
            return Ok(self);
        }
        let hashing = tokio::task::spawn_blocking(move || {
            self.update(&bytes);
            self
        });
        hashing.await.map_err(S3Error::internal_error)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc32(hasher) => hasher.finalize().to_vec(),
            Self::Crc32c(hasher) => hasher.finalize().to_vec(),
            Self::Crc64Nvme(hasher) => hasher.finalize().to_vec(),
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
        }
    }
}

/// The error for bytes that do not have the announced checksum.
pub(crate) fn bad_digest(algorithm: Algorithm) -> S3Error {
    s3_error!(
        BadDigest,
        "the {} you specified did not match what we received; nothing was stored",
        algorithm.name()
    )
}

/// Base 64, as checksum headers have it.
pub(crate) fn encode(value: &[u8]) -> String {
    STANDARD.encode(value)
}

/// Parses `Content-MD5`.
pub(crate) fn content_md5(value: &str) -> S3Result<[u8; 16]> {
    let decoded = STANDARD.decode(value).ok().and_then(|bytes| bytes.try_into().ok());
    decoded.ok_or_else(|| s3_error!(InvalidDigest, "Content-MD5 is not the base 64 of an MD5"))
}

/// The checksum of the object that consists of the parts with these checksums (base 64) and sizes:
/// the checksum of all bytes, or the checksum of the checksums with the number of parts behind it.
/// `None` when a part's checksum is malformed.
pub(crate) fn combine(algorithm: Algorithm, kind: &str, parts: &[(&str, u64)]) -> Option<String> {
    let decoded: Option<Vec<(Vec<u8>, u64)>> =
        parts.iter().map(|(value, size)| Some((algorithm.decode(value).ok()?, *size))).collect();
    let decoded = decoded?;
    if kind == COMPOSITE {
        let mut hasher = Hasher::new(algorithm);
        decoded.iter().for_each(|(value, _)| hasher.update(value));
        return Some(format!("{}-{}", encode(&hasher.finish()), parts.len()));
    }
    let crc = algorithm.crc()?;
    let mut whole: Option<u64> = None;
    for (value, size) in &decoded {
        let part = value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        whole = Some(match whole {
            None => part,
            Some(whole) => crc_fast::checksum_combine(crc, whole, part, *size),
        });
    }
    Some(encode(&whole?.to_be_bytes()[8 - algorithm.bytes()..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(algorithm: Algorithm, bytes: &[u8]) -> String {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        encode(&hasher.finish())
    }

    #[test]
    fn checksums_are_the_published_ones() {
        assert_eq!(of(Algorithm::Crc32, b"123456789"), "y/Q5Jg==");
        assert_eq!(of(Algorithm::Crc32c, b"123456789"), "4waSgw==");
        assert_eq!(of(Algorithm::Crc64Nvme, b"123456789"), "rosUhgp5mIg=");
        assert_eq!(of(Algorithm::Sha1, b"abc"), "qZk+NkcGgWq6PiVxeFDCbJzQ2J0=");
    }

    #[test]
    fn crcs_of_parts_combine_to_that_of_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).map(|n| (n * 7 % 251) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts: Vec<(String, u64)> = [&bytes[..3], &bytes[3..7777], &bytes[7777..]]
                .iter()
                .map(|part| (of(algorithm, part), part.len() as u64))
                .collect();
            let parts: Vec<(&str, u64)> =
                parts.iter().map(|(value, size)| (value.as_str(), *size)).collect();
            assert_eq!(combine(algorithm, FULL_OBJECT, &parts), Some(of(algorithm, &bytes)));
        }
        assert_eq!(combine(Algorithm::Sha1, FULL_OBJECT, &[("", 0)]), None);
    }

    #[test]
    fn a_request_announces_at_most_one_checksum() {
        let mut headers = HeaderMap::new();
        assert_eq!(Announced::from_headers(&headers).unwrap(), None);
        headers.insert("x-amz-checksum-algorithm", "CRC32".parse().unwrap());
        assert_eq!(Announced::from_headers(&headers).unwrap(), None);
        headers.insert("x-amz-checksum-crc32", "y/Q5Jg==".parse().unwrap());
        let announced = Announced::from_headers(&headers).unwrap().unwrap();
        assert_eq!(announced.value, Some(vec![0xcb, 0xf4, 0x39, 0x26]));
        headers.insert("x-amz-trailer", "x-amz-checksum-sha1".parse().unwrap());
        assert!(Announced::from_headers(&headers).is_err());
        headers.remove("x-amz-trailer");
        headers.insert("x-amz-checksum-crc32", "AAAA".parse().unwrap());
        assert!(Announced::from_headers(&headers).is_err());
    }
}
