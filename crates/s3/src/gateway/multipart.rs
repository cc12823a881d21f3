//! Multipart uploads, but for their parts' bytes.

use onefold_files::limits::PAGE_ENTRIES_MAX;
use onefold_files::{CreateOptions, FileInfo, FilesError, FinishOptions, PartInfo};
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Gateway;
use super::convert::{
    KeyEncoding, etag, owner, page_limit, part_number, set_checksum, size, timestamp,
};
use super::listing::common_prefixes;
use super::lock::Asked;
use super::versions::told;
use crate::attributes::{self, PartSizes};
use crate::checksums::{
    ALGORITHM_HEADER, Algorithm, Announced, FULL_OBJECT, TYPE_HEADER, bad_digest, combine, encode,
};
use crate::conditions::write_condition;
use crate::errors::from_files;
use crate::tags;

pub(super) async fn create_multipart_upload(
    gateway: &Gateway,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let S3Request { input, headers, .. } = request;
    let mut attributes = attributes::from_request(&headers, input.content_type, input.metadata)?;
    if let Some(tags) = attributes::tags(&headers)? {
        attributes.headers.insert(tags::HEADER.to_owned(), tags);
    }
    let asked = Asked {
        mode: input.object_lock_mode,
        until: input.object_lock_retain_until_date,
        hold: input.object_lock_legal_hold_status,
    };
    attributes.headers.extend(gateway.lock_headers(&input.bucket, asked).await?);
    let checksum = Wanted::from_request(
        input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str),
        input.checksum_type.as_ref().map(ChecksumType::as_str),
    )?;
    let wanted = checksum.clone().unwrap_or_else(Wanted::unasked);
    let algorithm = wanted.algorithm.name().to_owned();
    attributes.headers.insert(ALGORITHM_HEADER.to_owned(), algorithm);
    attributes.headers.insert(TYPE_HEADER.to_owned(), wanted.kind);
    let options = CreateOptions { attributes, ..CreateOptions::default() };
    let upload = gateway.files.create_upload(&input.bucket, &input.key, options).await;
    let upload = upload.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload),
        checksum_algorithm: checksum
            .as_ref()
            .map(|wanted| ChecksumAlgorithm::from_static(wanted.algorithm.name())),
        checksum_type: checksum.map(|wanted| ChecksumType::from(wanted.kind)),
        ..CreateMultipartUploadOutput::default()
    }))
}

/// The checksum that an upload's object is to have.
#[derive(Clone)]
struct Wanted {
    algorithm: Algorithm,
    kind: String,
}

impl Wanted {
    /// What an object gets of which nobody said anything.
    fn unasked() -> Self {
        Self { algorithm: Announced::DEFAULT.algorithm, kind: FULL_OBJECT.to_owned() }
    }

    fn from_request(algorithm: Option<&str>, kind: Option<&str>) -> S3Result<Option<Self>> {
        let Some(name) = algorithm else {
            return match kind {
                None => Ok(None),
                Some(_) => Err(s3_error!(
                    InvalidRequest,
                    "x-amz-checksum-type needs x-amz-checksum-algorithm beside it"
                )),
            };
        };
        let algorithm = Algorithm::from_name(name).ok_or_else(|| {
            s3_error!(InvalidRequest, "the checksum algorithm {name} is not supported")
        })?;
        let kind = kind.unwrap_or(algorithm.default_type());
        if !algorithm.allows_type(kind) {
            return Err(s3_error!(
                InvalidRequest,
                "the checksum type {kind} cannot be used with the algorithm {name}"
            ));
        }
        Ok(Some(Self { algorithm, kind: kind.to_owned() }))
    }

    fn from_upload(options: &CreateOptions) -> Option<Self> {
        let header = |name: &str| options.attributes.headers.get(name);
        let algorithm = Algorithm::from_name(header(ALGORITHM_HEADER)?)?;
        Some(Self { algorithm, kind: header(TYPE_HEADER)?.clone() })
    }
}

pub(super) async fn complete_multipart_upload(
    gateway: &Gateway,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let S3Request { input, headers, .. } = request;
    let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    let parts = named_parts(&named)?;
    let target = Target { bucket: &input.bucket, key: &input.key, upload: &input.upload_id };
    let (finish, sizes) = match gateway.uploaded(&target).await {
        Ok((options, uploaded)) => {
            let chosen = chosen_parts(&named, &parts, &uploaded)?;
            check_size(input.mpu_object_size, &chosen)?;
            let announced = Announced::from_headers(&headers)?;
            let wanted = Wanted::from_upload(&options);
            let checksum = object_checksum(wanted.as_ref(), announced.as_ref(), &chosen)?;
            (checksum, PartSizes::new(chosen.iter().map(|part| part.size)))
        }
        Err(error) => return repeated(gateway, &target, &parts, error).await,
    };
    let checksum = finish.as_ref().map(|(algorithm, value)| (*algorithm, value.clone()));
    let options = FinishOptions {
        headers: finish
            .into_iter()
            .map(|(algorithm, value)| (algorithm.header().to_owned(), value))
            .chain(sizes.to_header())
            .collect(),
        ..FinishOptions::default()
    };
    let completed = gateway
        .files
        .complete_upload(target.bucket, target.key, target.upload, &parts, condition, options)
        .await;
    match completed {
        Ok(info) => Ok(completed_output(&target, &info, checksum)),
        Err(error) => repeated(gateway, &target, &parts, error).await,
    }
}

/// What a request about an upload names.
struct Target<'a> {
    bucket: &'a str,
    key: &'a str,
    upload: &'a str,
}

fn completed_output(
    target: &Target<'_>,
    info: &FileInfo,
    checksum: Option<(Algorithm, String)>,
) -> S3Response<CompleteMultipartUploadOutput> {
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(target.bucket.to_owned()),
        key: Some(target.key.to_owned()),
        e_tag: Some(etag(&info.etag)),
        location: Some(format!("/{}/{}", target.bucket, target.key)),
        version_id: told(info),
        ..CompleteMultipartUploadOutput::default()
    };
    if checksum.is_some() {
        let kind = info.attributes.headers.get(TYPE_HEADER).cloned();
        output.checksum_type = kind.map(ChecksumType::from);
    }
    set_checksum!(output, checksum);
    S3Response::new(output)
}

/// A completion whose answer was lost is sent again, and finds its upload gone. If the object is the
/// one that these parts make, the first attempt succeeded, and so does this one.
async fn repeated(
    gateway: &Gateway,
    target: &Target<'_>,
    parts: &[(u16, String)],
    error: FilesError,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    if matches!(error, FilesError::NoSuchUpload { .. })
        && let Some(expected) = multipart_etag(parts)
        && let Ok(info) = gateway.files.stat(target.bucket, target.key).await
        && info.etag == expected
    {
        return Ok(completed_output(target, &info, None));
    }
    Err(from_files(&error))
}

fn multipart_etag(parts: &[(u16, String)]) -> Option<String> {
    let mut md5 = Md5::new();
    for (_, etag) in parts {
        let digits = etag.as_bytes();
        if digits.len() != 32 || !etag.is_ascii() {
            return None;
        }
        for index in (0..32).step_by(2) {
            md5.update(&[u8::from_str_radix(&etag[index..index + 2], 16).ok()?]);
        }
    }
    let hex: String = md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{hex}-{}", parts.len()))
}

/// The parts that the client names: at least one, ascending, each with its tag.
fn named_parts(named: &[CompletedPart]) -> S3Result<Vec<(u16, String)>> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "at least one part must be named"));
    }
    let parts: S3Result<Vec<(u16, String)>> = named
        .iter()
        .map(|part| {
            let number =
                part.part_number.ok_or_else(|| s3_error!(MalformedXML, "PartNumber is missing"))?;
            let etag =
                part.e_tag.as_ref().ok_or_else(|| s3_error!(MalformedXML, "ETag is missing"))?;
            Ok((part_number(number)?, etag.value().to_owned()))
        })
        .collect();
    let parts = parts?;
    if parts.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(from_files(&FilesError::InvalidPartOrder));
    }
    Ok(parts)
}

/// The uploaded parts behind the named ones, in their order.
fn chosen_parts<'a>(
    named: &[CompletedPart],
    parts: &[(u16, String)],
    uploaded: &'a [PartInfo],
) -> S3Result<Vec<&'a PartInfo>> {
    let pairs = named.iter().zip(parts);
    let chosen = pairs.map(|(named, (number, etag))| {
        let index = uploaded.binary_search_by_key(number, |part| part.number).ok();
        let part = index.map(|index| &uploaded[index]).filter(|part| part.etag == *etag);
        let part = part.filter(|part| has_checksums(named, part));
        part.ok_or_else(|| {
            s3_error!(
                InvalidPart,
                "part {number} was not uploaded, or has another ETag or checksum than the one given"
            )
        })
    });
    chosen.collect()
}

fn has_checksums(named: &CompletedPart, part: &PartInfo) -> bool {
    let given = [
        (Algorithm::Crc32, &named.checksum_crc32),
        (Algorithm::Crc32c, &named.checksum_crc32c),
        (Algorithm::Crc64Nvme, &named.checksum_crc64nvme),
        (Algorithm::Sha1, &named.checksum_sha1),
        (Algorithm::Sha256, &named.checksum_sha256),
    ];
    given.into_iter().all(|(algorithm, given)| {
        let kept = part.headers.get(algorithm.header());
        given.is_none() || kept.is_none() || kept == given.as_ref()
    })
}

fn check_size(expected: Option<MpuObjectSize>, parts: &[&PartInfo]) -> S3Result<()> {
    let actual: u64 = parts.iter().map(|part| part.size).sum();
    match expected {
        Some(expected) if u64::try_from(expected) != Ok(actual) => Err(s3_error!(
            InvalidRequest,
            "x-amz-mp-object-size is {expected}, but the parts have {actual} bytes together"
        )),
        _ => Ok(()),
    }
}

/// The object's checksum from those of its parts, compared with the one that the request gives.
/// Without the algorithm announced at the upload's creation, or with a part that came without, the
/// object has none; but an announced value that cannot be verified is refused.
fn object_checksum(
    wanted: Option<&Wanted>,
    announced: Option<&Announced>,
    parts: &[&PartInfo],
) -> S3Result<Option<(Algorithm, String)>> {
    let checksum = wanted.and_then(|wanted| {
        let name = wanted.algorithm.header();
        let values: Option<Vec<(&str, u64)>> =
            parts.iter().map(|part| Some((part.headers.get(name)?.as_str(), part.size))).collect();
        Some((wanted.algorithm, combine(wanted.algorithm, &wanted.kind, &values?)?))
    });
    let Some(Announced { algorithm, value: Some(value), .. }) = announced else {
        return Ok(checksum);
    };
    let expected = encode(value);
    match &checksum {
        Some((actual, text)) if actual == algorithm => {
            // A composite checksum may be given without the number of parts behind it.
            if text.split('-').next() == Some(&expected) {
                Ok(checksum)
            } else {
                Err(bad_digest(*algorithm))
            }
        }
        _ => Err(s3_error!(
            InvalidRequest,
            "{} cannot be verified: the upload and its parts were not made with this algorithm",
            algorithm.header()
        )),
    }
}

impl Gateway {
    /// How the upload was created, and all its parts by number.
    async fn uploaded(
        &self,
        target: &Target<'_>,
    ) -> Result<(CreateOptions, Vec<PartInfo>), FilesError> {
        let Target { bucket, key, upload } = *target;
        let mut page = self.files.list_parts(bucket, key, upload, 0, PAGE_ENTRIES_MAX).await?;
        let mut parts = std::mem::take(&mut page.parts);
        while let Some(after) = page.next {
            page = self.files.list_parts(bucket, key, upload, after, PAGE_ENTRIES_MAX).await?;
            parts.append(&mut page.parts);
        }
        Ok((page.options, parts))
    }
}

pub(super) async fn abort_multipart_upload(
    gateway: &Gateway,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    let aborted = gateway.files.abort_upload(&input.bucket, &input.key, &input.upload_id).await;
    aborted.map_err(|error| from_files(&error))?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

pub(super) async fn list_parts(
    gateway: &Gateway,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    let limit = page_limit(input.max_parts, "max-parts")?;
    let after = input.part_number_marker.unwrap_or(0);
    let after = u16::try_from(after)
        .map_err(|_| s3_error!(InvalidArgument, "part-number-marker is not a part number"))?;
    let page = gateway
        .files
        .list_parts(&input.bucket, &input.key, &input.upload_id, after, limit.max(1))
        .await
        .map_err(|error| from_files(&error))?;
    let wanted = Wanted::from_upload(&page.options);
    let mut parts = page.parts;
    parts.truncate(limit);
    let parts = parts.into_iter().map(|info| {
        let checksum = info
            .headers
            .iter()
            .find_map(|(name, value)| Some((Algorithm::of_header(name)?, value.clone())));
        let mut part = Part {
            e_tag: Some(etag(&info.etag)),
            last_modified: Some(timestamp(info.modified)),
            part_number: Some(i32::from(info.number)),
            size: Some(size(info.size)),
            ..Part::default()
        };
        set_checksum!(part, checksum);
        part
    });
    let next = page.next.filter(|_| limit > 0);
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        is_truncated: Some(next.is_some()),
        max_parts: i32::try_from(limit).ok(),
        part_number_marker: Some(i32::from(after)),
        next_part_number_marker: next.map(i32::from),
        parts: Some(parts.collect()),
        owner: Some(owner()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        checksum_algorithm: wanted
            .as_ref()
            .map(|wanted| ChecksumAlgorithm::from_static(wanted.algorithm.name())),
        checksum_type: wanted.map(|wanted| ChecksumType::from(wanted.kind)),
        ..ListPartsOutput::default()
    }))
}

pub(super) async fn list_multipart_uploads(
    gateway: &Gateway,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    let encoding = KeyEncoding::parse(input.encoding_type.as_ref())?;
    let limit = page_limit(input.max_uploads, "max-uploads")?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().filter(|delimiter| !delimiter.is_empty());
    let marker = input.key_marker.clone().filter(|marker| !marker.is_empty());
    let after = marker.map(|key| (key, input.upload_id_marker.clone()));
    let mut listing = Uploads::default();
    listing.fill(gateway, &input.bucket, &prefix, delimiter.as_deref(), after, limit).await?;
    let uploads = listing.uploads.into_iter().map(|mut upload| {
        upload.key = upload.key.map(|key| encoding.apply(key));
        upload
    });
    let (next_key, next_id) = listing.next.unzip();
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        uploads: Some(uploads.collect()),
        common_prefixes: Some(common_prefixes(listing.prefixes, encoding)),
        prefix: Some(encoding.apply(prefix)),
        delimiter: input.delimiter.map(|delimiter| encoding.apply(delimiter)),
        encoding_type: encoding.name(),
        key_marker: Some(encoding.apply(input.key_marker.unwrap_or_default())),
        upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
        is_truncated: Some(next_key.is_some()),
        next_key_marker: next_key.map(|key| encoding.apply(key)),
        next_upload_id_marker: next_id,
        max_uploads: i32::try_from(limit).ok(),
        ..ListMultipartUploadsOutput::default()
    }))
}

/// A page of uploads, those behind a delimiter rolled up.
#[derive(Default)]
struct Uploads {
    uploads: Vec<MultipartUpload>,
    prefixes: Vec<String>,
    next: Option<(String, String)>,
}

impl Uploads {
    async fn fill(
        &mut self,
        gateway: &Gateway,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        mut after: Option<(String, Option<String>)>,
        limit: usize,
    ) -> S3Result<()> {
        loop {
            let page = gateway
                .files
                .list_uploads(bucket, prefix, after.take(), limit.max(1))
                .await
                .map_err(|error| from_files(&error))?;
            for upload in page.uploads {
                let rolled_up = delimiter.and_then(|delimiter| {
                    let rest = upload.key.strip_prefix(prefix)?;
                    let end = prefix.len() + rest.find(delimiter)? + delimiter.len();
                    Some(&upload.key[..end])
                });
                let is_known =
                    rolled_up.is_some() && rolled_up == self.prefixes.last().map(String::as_str);
                if !is_known && self.uploads.len() + self.prefixes.len() >= limit {
                    return Ok(());
                }
                self.next = Some((upload.key.clone(), upload.upload.clone()));
                match rolled_up {
                    Some(_) if is_known => {}
                    Some(rolled_up) => self.prefixes.push(rolled_up.to_owned()),
                    None => self.uploads.push(MultipartUpload {
                        initiated: Some(timestamp(upload.created)),
                        initiator: None,
                        key: Some(upload.key),
                        owner: Some(owner()),
                        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                        upload_id: Some(upload.upload),
                        ..MultipartUpload::default()
                    }),
                }
            }
            let Some((key, upload)) = page.next else {
                self.next = None;
                return Ok(());
            };
            after = Some((key, Some(upload)));
        }
    }
}
