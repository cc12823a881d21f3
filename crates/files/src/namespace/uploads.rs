//! Multipart uploads. Parts own their extents until the upload is completed or aborted.

use onefold_table::{KeyRange, Order, TableError, View};

use super::command::Reply;
use super::files::{check_attributes, check_size};
use super::keys;
use super::records::{
    Content, DirectoryId, FileRecord, PartRecord, UploadId, UploadRecord, corrupt, decode, encode,
};
use super::state::{Applied, Change};
use crate::api::{
    Condition, CreateOptions, FileInfo, FilesError, FinishOptions, limits, validate_key,
};
use crate::etag;

/// Bucket, key and upload id.
pub(super) type UploadPath<'a> = (&'a str, &'a str, &'a str);

pub(super) fn no_such_upload(upload: &str) -> FilesError {
    FilesError::NoSuchUpload { upload: upload.chars().take(64).collect() }
}

pub(super) fn get_upload(
    view: &dyn View,
    root: DirectoryId,
    key: &str,
    upload: UploadId,
) -> Result<Option<UploadRecord>, TableError> {
    let value = view.get(&keys::upload(root, key, upload))?;
    value.map(|bytes| decode("upload", &bytes)).transpose()
}

/// The parts of an upload with numbers greater than `after`.
pub(super) fn parts(
    view: &dyn View,
    upload: UploadId,
    after: u16,
) -> impl Iterator<Item = Result<(u16, PartRecord), TableError>> {
    let range = KeyRange::prefix(&keys::parts(upload)).rest_after(keys::part(upload, after));
    view.scan(range, Order::Ascending).map(|pair| {
        let (key, value) = pair?;
        let (_, number) = key.split_last_chunk::<2>().ok_or_else(|| corrupt("part", "key"))?;
        Ok((u16::from_be_bytes(*number), decode("part", &value)?))
    })
}

fn invalid_part(number: u16, reason: &str) -> FilesError {
    FilesError::InvalidPart { number, reason: reason.to_owned() }
}

impl Change<'_> {
    pub(super) fn has_uploads(&self, root: DirectoryId) -> Applied<bool> {
        let range = KeyRange::prefix(&keys::uploads_under(root, ""));
        Ok(self.table.scan(range, Order::Ascending).next().transpose()?.is_some())
    }

    pub(super) fn create_upload(
        &mut self,
        bucket: &str,
        key: &str,
        options: CreateOptions,
    ) -> Applied<Reply> {
        validate_key(key)?;
        check_attributes(&options.attributes)?;
        let root = self.root(bucket)?;
        let upload = UploadId(self.next_id());
        let record = UploadRecord { created: self.time, options };
        self.table.put(keys::upload(root, key, upload), encode(&record));
        Ok(Reply::Upload(upload.to_string()))
    }

    fn find_upload(
        &self,
        (bucket, key, upload): UploadPath<'_>,
    ) -> Applied<(DirectoryId, UploadId, UploadRecord)> {
        let root = self.root(bucket)?;
        let id = UploadId::parse(upload).ok_or_else(|| no_such_upload(upload))?;
        let record = get_upload(&self.table, root, key, id)?;
        Ok((root, id, record.ok_or_else(|| no_such_upload(upload))?))
    }

    pub(super) fn put_part(
        &mut self,
        path: UploadPath<'_>,
        number: u16,
        content: Content,
        etag: String,
        options: FinishOptions,
    ) -> Applied<Reply> {
        let (_, id, _) = self.find_upload(path)?;
        if !(1..=limits::PART_NUMBER_MAX).contains(&number) {
            return Err(invalid_part(number, "part numbers go from 1 to 10,000").into());
        }
        let size = content.size();
        if size > limits::PART_BYTES_MAX {
            let maximum = limits::PART_BYTES_MAX;
            let what = "the part".to_owned();
            return Err(FilesError::TooLarge { what, bytes: size, maximum }.into());
        }
        if matches!(&content, Content::Inline(data) if !data.is_empty()) {
            return Err(invalid_part(number, "its bytes belong in chunks").into());
        }
        self.reference(&content)?;
        let part_key = keys::part(id, number);
        if let Some(before) = self.table.get(&part_key)? {
            let before: PartRecord = decode("part", &before)?;
            self.unreference(&before.content)?;
        }
        let (modified, headers) = (self.time, options.headers);
        let record = PartRecord { etag: etag.clone(), modified, headers, content };
        self.table.put(part_key, encode(&record));
        let attributes = crate::api::Attributes::default();
        Ok(Reply::File(FileInfo { size, etag, modified, attributes }))
    }

    pub(super) fn complete_upload(
        &mut self,
        path: UploadPath<'_>,
        chosen: &[(u16, String)],
        condition: &Condition,
        options: FinishOptions,
    ) -> Applied<Reply> {
        let (bucket, key, _) = path;
        let bucket_record = self.bucket(bucket)?;
        let (root, id, upload) = self.find_upload(path)?;
        if chosen.is_empty() {
            let reason = "an upload is completed with at least one part".to_owned();
            return Err(FilesError::Invalid { reason }.into());
        }
        if !chosen.is_sorted_by(|left, right| left.0 < right.0) {
            return Err(FilesError::InvalidPartOrder.into());
        }
        let (used, unused) = self.choose_parts(id, chosen)?;
        let etags = chosen.iter().map(|(_, etag)| etag.as_str());
        let etag = options.etag.unwrap_or_else(|| etag::multipart(etags));
        let CreateOptions { mut attributes, condition: created_with } = upload.options;
        attributes.headers.extend(options.headers);
        check_attributes(&attributes)?;
        self.check_target(root, (bucket, key), &[&created_with, condition])?;
        // The references of the parts pass to the file.
        let extents = used.iter().flat_map(|part| part.content.extents()).copied().collect();
        let content = Content::Extents(extents);
        check_size(&content)?;
        for part in &unused {
            self.unreference(&part.content)?;
        }
        self.forget_upload(root, key, id)?;
        let info = FileInfo { size: content.size(), etag, modified: self.time, attributes };
        Ok(Reply::File(self.place(&bucket_record, key, FileRecord { info, content })?))
    }

    /// Splits an upload's parts into those that were chosen, in order, and the others.
    fn choose_parts(
        &self,
        upload: UploadId,
        chosen: &[(u16, String)],
    ) -> Applied<(Vec<PartRecord>, Vec<PartRecord>)> {
        let (mut used, mut unused) = (Vec::with_capacity(chosen.len()), Vec::new());
        for part in parts(&self.table, upload, 0) {
            let (number, record) = part?;
            let Some((_, etag)) = chosen.get(used.len()).filter(|wanted| wanted.0 == number) else {
                unused.push(record);
                continue;
            };
            if record.etag != *etag {
                let reason = format!("its ETag is {}, not {etag}", record.etag);
                return Err(invalid_part(number, &reason).into());
            }
            used.push(record);
        }
        if let Some((missing, _)) = chosen.get(used.len()) {
            return Err(invalid_part(*missing, "it was not uploaded").into());
        }
        let but_last = used.len() - 1;
        for (part, (number, _)) in used[..but_last].iter().zip(chosen) {
            let (bytes, minimum) = (part.content.size(), limits::PART_BYTES_MIN);
            if bytes < minimum {
                return Err(FilesError::PartTooSmall { number: *number, bytes, minimum }.into());
            }
        }
        Ok((used, unused))
    }

    pub(super) fn abort_upload(&mut self, path: UploadPath<'_>) -> Applied<Reply> {
        let (root, id, _) = self.find_upload(path)?;
        let records: Result<Vec<_>, TableError> = parts(&self.table, id, 0).collect();
        for (_, part) in records? {
            self.unreference(&part.content)?;
        }
        self.forget_upload(root, path.1, id)?;
        Ok(Reply::Done)
    }

    fn forget_upload(&mut self, root: DirectoryId, key: &str, upload: UploadId) -> Applied<()> {
        let numbers: Result<Vec<_>, TableError> =
            parts(&self.table, upload, 0).map(|part| part.map(|(number, _)| number)).collect();
        for number in numbers? {
            self.table.delete(keys::part(upload, number));
        }
        self.table.delete(keys::upload(root, key, upload));
        Ok(())
    }
}
