//! Conditional requests (RFC 9110, section 13.2.2, as S3 applies it).

use onefold_files::{Condition, FileInfo};
use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};

use crate::errors::not_implemented;
use crate::gateway::convert::http_date;

/// The conditions of one request on the object it reads.
#[derive(Debug, Default)]
pub(crate) struct ReadConditions {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
    pub(crate) if_modified_since: Option<Timestamp>,
    pub(crate) if_unmodified_since: Option<Timestamp>,
}

/// What the conditions say about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed,
    NotModified,
    PreconditionFailed,
}

impl ReadConditions {
    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.if_match.is_none()
            && self.if_none_match.is_none()
            && self.if_modified_since.is_none()
            && self.if_unmodified_since.is_none()
    }

    /// Judges the object. Entity tags take precedence over dates.
    pub(crate) fn judge(&self, info: &FileInfo) -> Verdict {
        let matches = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == info.etag,
        };
        let modified = http_date(info.modified);
        if let Some(condition) = &self.if_match {
            if !matches(condition) {
                return Verdict::PreconditionFailed;
            }
        } else if self.if_unmodified_since.as_ref().is_some_and(|since| modified > *since) {
            return Verdict::PreconditionFailed;
        }
        if let Some(condition) = &self.if_none_match {
            if matches(condition) {
                return Verdict::NotModified;
            }
        } else if self.if_modified_since.as_ref().is_some_and(|since| modified <= *since) {
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }

    /// The same for a source of a copy, where nothing can be answered "not modified".
    pub(crate) fn require(&self, info: &FileInfo) -> S3Result<()> {
        match self.judge(info) {
            Verdict::Proceed => Ok(()),
            Verdict::NotModified | Verdict::PreconditionFailed => Err(s3_error!(
                PreconditionFailed,
                "at least one of the conditions on the source does not hold"
            )),
        }
    }
}

/// The condition of a request on the object that it writes.
///
/// # Errors
/// `NotImplemented` for what S3 does not implement either: `If-None-Match` with a tag, `If-Match`
/// with `*`, or both.
pub(crate) fn write_condition(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Always),
        (None, Some(ETagCondition::Any)) => Ok(Condition::IfAbsent),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::IfMatch(etag.value().to_owned())),
        _ => Err(not_implemented("this combination of If-Match and If-None-Match")),
    }
}

#[cfg(test)]
mod tests {
    use onefold_files::Attributes;
    use onefold_types::Timestamp as Time;
    use s3s::dto::ETag;

    use super::*;

    fn info() -> FileInfo {
        FileInfo {
            size: 1,
            etag: "aa".to_owned(),
            modified: Time(1_500_700),
            attributes: Attributes::default(),
        }
    }

    fn tag(text: &str) -> Option<ETagCondition> {
        Some(ETagCondition::ETag(ETag::Strong(text.to_owned())))
    }

    #[test]
    fn entity_tags_take_precedence_over_dates() {
        let earlier = Some(http_date(Time(1_000_000)));
        let conditions = ReadConditions {
            if_match: tag("aa"),
            if_unmodified_since: earlier.clone(),
            ..ReadConditions::default()
        };
        assert_eq!(conditions.judge(&info()), Verdict::Proceed);
        let conditions = ReadConditions {
            if_none_match: tag("aa"),
            if_modified_since: earlier,
            ..ReadConditions::default()
        };
        assert_eq!(conditions.judge(&info()), Verdict::NotModified);
    }

    #[test]
    fn dates_count_in_whole_seconds() {
        let shown = Some(http_date(Time(1_500_000)));
        let conditions =
            ReadConditions { if_modified_since: shown.clone(), ..ReadConditions::default() };
        assert_eq!(conditions.judge(&info()), Verdict::NotModified);
        let conditions = ReadConditions { if_unmodified_since: shown, ..ReadConditions::default() };
        assert_eq!(conditions.judge(&info()), Verdict::Proceed);
    }

    #[test]
    fn a_write_condition_is_one_that_the_namespace_can_check_atomically() {
        assert_eq!(
            write_condition(None, Some(&ETagCondition::Any)).ok(),
            Some(Condition::IfAbsent)
        );
        assert_eq!(
            write_condition(tag("aa").as_ref(), None).ok(),
            Some(Condition::IfMatch("aa".to_owned()))
        );
        assert!(write_condition(None, tag("aa").as_ref()).is_err());
    }
}
