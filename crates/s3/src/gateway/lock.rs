//! Object lock: retention and legal holds, which keep versions from being removed. The namespace
//! enforces them; this is where they are set and shown.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use onefold_files::lock::{COMPLIANCE, GOVERNANCE, HOLD_HEADER, MODE_HEADER, ON, UNTIL_HEADER};
use onefold_files::{Attributes, FilesError, HeaderChanges, Setting, Versioning, lock};
use onefold_types::Timestamp as Time;
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use serde::{Deserialize, Serialize};

use super::Gateway;
use super::convert::epoch_seconds;
use super::versions::{asked, from_read};
use crate::errors::from_files;
use crate::settings;

const DAY_S: u64 = 24 * 60 * 60;
/// Longest default retention (S3's bound: 100 years).
const DAYS_MAX: u64 = 36_500;
/// How often a change starts again because another one came between.
const ATTEMPTS_MAX: usize = 4;

/// What a bucket whose versions can be locked says of new ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LockSetting {
    default: Option<DefaultLock>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DefaultLock {
    mode: String,
    days: Option<i32>,
    years: Option<i32>,
}

impl DefaultLock {
    fn from_document(retention: DefaultRetention) -> S3Result<Self> {
        let DefaultRetention { days, mode, years } = retention;
        let mode = mode.ok_or_else(|| s3_error!(MalformedXML, "DefaultRetention needs a Mode"))?;
        let default = Self { mode: known_mode(mode.as_str())?, days, years };
        let is_one = days.is_some() != years.is_some();
        if !is_one || !(1..=DAYS_MAX).contains(&default.days_long()) {
            return Err(s3_error!(
                MalformedXML,
                "DefaultRetention has Days or Years, of at least 1 day and at most 100 years"
            ));
        }
        Ok(default)
    }

    fn days_long(&self) -> u64 {
        let days = self.days.map(i64::from).or(self.years.map(|years| i64::from(years) * 365));
        days.and_then(|days| u64::try_from(days).ok()).unwrap_or_default()
    }
}

fn known_mode(mode: &str) -> S3Result<String> {
    match mode {
        COMPLIANCE | GOVERNANCE => Ok(mode.to_owned()),
        _ => Err(s3_error!(MalformedXML, "a retention's mode is GOVERNANCE or COMPLIANCE")),
    }
}

fn now() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

fn date(seconds: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn future_seconds(date: &Timestamp) -> S3Result<u64> {
    let seconds = epoch_seconds(date)?;
    if seconds <= now().0 / 1000 {
        return Err(s3_error!(InvalidArgument, "the retain until date must be in the future"));
    }
    Ok(seconds)
}

/// Retention and hold as the headers of an answer show them.
pub(super) struct Shown {
    pub(super) mode: Option<ObjectLockMode>,
    pub(super) until: Option<Timestamp>,
    pub(super) hold: Option<ObjectLockLegalHoldStatus>,
}

pub(super) fn shown(attributes: &Attributes) -> Shown {
    let header = |name: &str| attributes.headers.get(name).cloned();
    Shown {
        mode: header(MODE_HEADER).map(ObjectLockMode::from),
        until: header(UNTIL_HEADER).and_then(|text| text.parse().ok()).map(date),
        hold: header(HOLD_HEADER).map(ObjectLockLegalHoldStatus::from),
    }
}

/// What a request that makes a version asks for.
pub(super) struct Asked {
    pub(super) mode: Option<ObjectLockMode>,
    pub(super) until: Option<Timestamp>,
    pub(super) hold: Option<ObjectLockLegalHoldStatus>,
}

impl Gateway {
    /// The headers that lock a new version: what was asked for, else what the bucket says.
    pub(super) async fn lock_headers(
        &self,
        bucket: &str,
        asked: Asked,
    ) -> S3Result<BTreeMap<String, String>> {
        let Asked { mode, until, hold } = asked;
        let asks = mode.is_some() || until.is_some() || hold.is_some();
        let setting: Option<LockSetting> =
            settings::load(&*self.files, bucket, Setting::ObjectLock).await?;
        let Some(setting) = setting else {
            if asks {
                return Err(missing_configuration());
            }
            return Ok(BTreeMap::new());
        };
        let mut headers = BTreeMap::new();
        match (mode, until, setting.default) {
            (Some(mode), Some(until), _) => {
                headers.insert(MODE_HEADER.to_owned(), known_mode(mode.as_str())?);
                headers.insert(UNTIL_HEADER.to_owned(), future_seconds(&until)?.to_string());
            }
            (None, None, Some(default)) => {
                let until_s = now().0 / 1000 + default.days_long() * DAY_S;
                headers.insert(MODE_HEADER.to_owned(), default.mode);
                headers.insert(UNTIL_HEADER.to_owned(), until_s.to_string());
            }
            (None, None, None) => {}
            _ => {
                return Err(s3_error!(
                    InvalidArgument,
                    "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be \
                     supplied"
                ));
            }
        }
        if let Some(hold) = hold {
            headers.insert(HOLD_HEADER.to_owned(), known_hold(&hold)?);
        }
        Ok(headers)
    }

    /// Makes the versions of a bucket lockable, for good.
    pub(super) async fn enable_lock(&self, bucket: &str) -> S3Result<()> {
        let enabled = self.files.set_versioning(bucket, Versioning::Enabled).await;
        enabled.map_err(|error| from_files(&error))?;
        let setting = LockSetting::default();
        settings::store(&*self.files, bucket, Setting::ObjectLock, Some(&setting)).await
    }

    /// Whether the versions of a bucket can be locked.
    pub(super) async fn is_lockable(&self, bucket: &str) -> S3Result<bool> {
        let setting: Option<LockSetting> =
            settings::load(&*self.files, bucket, Setting::ObjectLock).await?;
        Ok(setting.is_some())
    }

    /// Changes headers of a version as long as `decide` allows it, of what is there at that moment.
    async fn change_lock(
        &self,
        (bucket, key, version): (&str, &str, Option<&str>),
        decide: impl Fn(&Attributes) -> S3Result<HeaderChanges> + Send + Sync,
    ) -> S3Result<()> {
        if !self.is_lockable(bucket).await? {
            return Err(missing_configuration());
        }
        let version = asked(version)?;
        let mut attempts = 1;
        loop {
            let found = self.files.open_version(bucket, key, version).await;
            let found = found.map_err(|error| from_read(&error, version))?;
            let attributes = &found.info().attributes;
            let changes = decide(attributes)?;
            let current = |name: &str| (name.to_owned(), attributes.headers.get(name).cloned());
            let expected = [MODE_HEADER, UNTIL_HEADER, HOLD_HEADER].map(current).to_vec();
            match self.files.change_headers(bucket, key, version, expected, changes).await {
                Ok(_) => return Ok(()),
                Err(FilesError::PreconditionFailed { .. }) if attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                }
                Err(error) => return Err(from_read(&error, version)),
            }
        }
    }
}

fn missing_configuration() -> S3Error {
    s3_error!(InvalidRequest, "bucket is missing Object Lock Configuration")
}

fn known_hold(hold: &ObjectLockLegalHoldStatus) -> S3Result<String> {
    match hold.as_str() {
        ObjectLockLegalHoldStatus::ON => Ok(ON.to_owned()),
        ObjectLockLegalHoldStatus::OFF => Ok(ObjectLockLegalHoldStatus::OFF.to_owned()),
        _ => Err(s3_error!(MalformedXML, "a legal hold is ON or OFF")),
    }
}

pub(super) async fn get_object_lock_configuration(
    gateway: &Gateway,
    request: S3Request<GetObjectLockConfigurationInput>,
) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
    let setting: Option<LockSetting> =
        settings::load(&*gateway.files, &request.input.bucket, Setting::ObjectLock).await?;
    let setting = setting.ok_or_else(|| {
        let mut error = s3_error!(
            ObjectLockConfigurationNotFoundError,
            "Object Lock configuration does not exist for this bucket"
        );
        error.set_status_code(StatusCode::NOT_FOUND);
        error
    })?;
    let rule = setting.default.map(|default| ObjectLockRule {
        default_retention: Some(DefaultRetention {
            days: default.days,
            mode: Some(ObjectLockRetentionMode::from(default.mode)),
            years: default.years,
        }),
    });
    Ok(S3Response::new(GetObjectLockConfigurationOutput {
        object_lock_configuration: Some(ObjectLockConfiguration {
            object_lock_enabled: Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED)),
            rule,
        }),
    }))
}

pub(super) async fn put_object_lock_configuration(
    gateway: &Gateway,
    request: S3Request<PutObjectLockConfigurationInput>,
) -> S3Result<S3Response<PutObjectLockConfigurationOutput>> {
    let input = request.input;
    let asked = input.object_lock_configuration.unwrap_or_default();
    let enabled = asked.object_lock_enabled.as_ref().map(ObjectLockEnabled::as_str);
    if enabled != Some(ObjectLockEnabled::ENABLED) {
        return Err(s3_error!(MalformedXML, "ObjectLockEnabled must be Enabled"));
    }
    let versioning = gateway.files.versioning(&input.bucket).await;
    if versioning.map_err(|error| from_files(&error))? != Versioning::Enabled {
        return Err(s3_error!(
            InvalidBucketState,
            "versioning must be 'Enabled' on the bucket to apply an Object Lock configuration"
        ));
    }
    let retention = asked.rule.and_then(|rule| rule.default_retention);
    let default = retention.map(DefaultLock::from_document).transpose()?;
    let setting = LockSetting { default };
    settings::store(&*gateway.files, &input.bucket, Setting::ObjectLock, Some(&setting)).await?;
    Ok(S3Response::new(PutObjectLockConfigurationOutput::default()))
}

pub(super) async fn get_object_retention(
    gateway: &Gateway,
    request: S3Request<GetObjectRetentionInput>,
) -> S3Result<S3Response<GetObjectRetentionOutput>> {
    let input = request.input;
    let found = find(gateway, (&input.bucket, &input.key, input.version_id.as_deref())).await?;
    let (Some(mode), Some(until)) = (found.mode, found.until) else { return Err(no_lock()) };
    Ok(S3Response::new(GetObjectRetentionOutput {
        retention: Some(ObjectLockRetention {
            mode: Some(ObjectLockRetentionMode::from(mode.as_str().to_owned())),
            retain_until_date: Some(until),
        }),
    }))
}

pub(super) async fn get_object_legal_hold(
    gateway: &Gateway,
    request: S3Request<GetObjectLegalHoldInput>,
) -> S3Result<S3Response<GetObjectLegalHoldOutput>> {
    let input = request.input;
    let found = find(gateway, (&input.bucket, &input.key, input.version_id.as_deref())).await?;
    let status = Some(found.hold.ok_or_else(no_lock)?);
    Ok(S3Response::new(GetObjectLegalHoldOutput {
        legal_hold: Some(ObjectLockLegalHold { status }),
    }))
}

async fn find(
    gateway: &Gateway,
    (bucket, key, version): (&str, &str, Option<&str>),
) -> S3Result<Shown> {
    if !gateway.is_lockable(bucket).await? {
        return Err(missing_configuration());
    }
    let version = asked(version)?;
    let found = gateway.files.open_version(bucket, key, version).await;
    let found = found.map_err(|error| from_read(&error, version))?;
    Ok(shown(&found.info().attributes))
}

fn no_lock() -> S3Error {
    let mut error = s3_error!(
        NoSuchObjectLockConfiguration,
        "the specified object does not have a ObjectLock configuration"
    );
    error.set_status_code(StatusCode::NOT_FOUND);
    error
}

pub(super) async fn put_object_retention(
    gateway: &Gateway,
    request: S3Request<PutObjectRetentionInput>,
) -> S3Result<S3Response<PutObjectRetentionOutput>> {
    let input = request.input;
    let bypass = input.bypass_governance_retention.unwrap_or_default();
    let ObjectLockRetention { mode, retain_until_date } = input.retention.unwrap_or_default();
    let wanted = match (mode, retain_until_date) {
        (Some(mode), Some(until)) => Some((known_mode(mode.as_str())?, future_seconds(&until)?)),
        (None, None) => None,
        _ => return Err(s3_error!(MalformedXML, "a retention has a Mode and a RetainUntilDate")),
    };
    let decide = |attributes: &Attributes| {
        if weakens(attributes, wanted.as_ref(), bypass) {
            return Err(s3_error!(AccessDenied, "the object is protected by its retention"));
        }
        let (mode, until) =
            wanted.clone().map(|(mode, until_s)| (mode, until_s.to_string())).unzip();
        Ok(vec![(MODE_HEADER.to_owned(), mode), (UNTIL_HEADER.to_owned(), until)])
    };
    let path = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
    gateway.change_lock(path, decide).await?;
    Ok(S3Response::new(PutObjectRetentionOutput::default()))
}

/// Whether a new retention would protect less than the one that is there. Nobody may do that in
/// compliance mode, and in governance mode who asks for it.
fn weakens(attributes: &Attributes, wanted: Option<&(String, u64)>, bypass: bool) -> bool {
    let Some((mode, until_s)) = lock::retention(attributes, now()) else { return false };
    if mode == GOVERNANCE && bypass {
        return false;
    }
    match wanted {
        None => true,
        Some((new_mode, new_until_s)) => {
            *new_until_s < until_s || mode == COMPLIANCE && new_mode != COMPLIANCE
        }
    }
}

pub(super) async fn put_object_legal_hold(
    gateway: &Gateway,
    request: S3Request<PutObjectLegalHoldInput>,
) -> S3Result<S3Response<PutObjectLegalHoldOutput>> {
    let input = request.input;
    let status = input.legal_hold.and_then(|hold| hold.status);
    let status = status.ok_or_else(|| s3_error!(MalformedXML, "a legal hold has a Status"))?;
    let hold = known_hold(&status)?;
    let decide = |_: &Attributes| Ok(vec![(HOLD_HEADER.to_owned(), Some(hold.clone()))]);
    let path = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
    gateway.change_lock(path, decide).await?;
    Ok(S3Response::new(PutObjectLegalHoldOutput::default()))
}
