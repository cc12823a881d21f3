//! The rules of a bucket, and what they say of a version or an upload.

use s3s::dto::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus,
    LifecycleExpiration, LifecycleRule, LifecycleRuleAndOperator, LifecycleRuleFilter,
    NoncurrentVersionExpiration, Tag, Timestamp,
};
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};

use crate::gateway::convert::epoch_seconds;

/// Most rules of a bucket.
const RULES_MAX: usize = 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The rules of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    id: Option<String>,
    enabled: bool,
    /// The document had `Prefix` beside the rule's actions and no `Filter`.
    is_old_form: bool,
    prefix: Option<String>,
    tags: Vec<(String, String)>,
    larger_than: Option<i64>,
    smaller_than: Option<i64>,
    days: Option<i32>,
    date_s: Option<u64>,
    expired_markers: bool,
    noncurrent_days: Option<i32>,
    noncurrent_kept: Option<i32>,
    abort_days: Option<i32>,
}

/// One version, as far as rules look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) key: &'a str,
    pub(crate) tags: &'a [(String, String)],
    /// Bytes; `None` for a delete marker.
    pub(crate) size: Option<u64>,
    /// Milliseconds since the epoch at which it was made.
    pub(crate) modified_ms: u64,
    /// `None` for the latest version; else when it was replaced.
    pub(crate) noncurrent: Option<Noncurrent>,
    /// Whether it is the only version of its key.
    pub(crate) is_alone: bool,
}

/// How a version lost its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noncurrent {
    /// Milliseconds since the epoch at which the next version was made.
    pub(crate) since_ms: u64,
    /// Noncurrent versions of the key that are newer.
    pub(crate) newer: usize,
}

fn malformed(why: &'static str) -> S3Error {
    s3_error!(MalformedXML, "{why}")
}

fn days(days: Option<i32>) -> S3Result<Option<i32>> {
    match days {
        Some(days) if days < 1 => {
            Err(s3_error!(InvalidArgument, "a number of days must be a positive integer"))
        }
        days => Ok(days),
    }
}

fn pair(tag: Tag) -> S3Result<(String, String)> {
    tag.key.zip(tag.value).ok_or_else(|| malformed("a tag needs Key and Value"))
}

impl Rules {
    /// # Errors
    /// `MalformedXML`, `InvalidArgument`; `NotImplemented` for transitions to other storage classes.
    pub(crate) fn from_document(document: BucketLifecycleConfiguration) -> S3Result<Self> {
        let rules = document.rules;
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(malformed("a bucket has 1 to 1,000 lifecycle rules"));
        }
        let rules: Vec<Rule> =
            rules.into_iter().map(Rule::from_document).collect::<S3Result<_>>()?;
        for (at, rule) in rules.iter().enumerate() {
            if rule.id.is_some() && rules[..at].iter().any(|earlier| earlier.id == rule.id) {
                return Err(s3_error!(InvalidArgument, "rule ID must be unique"));
            }
        }
        Ok(Self(rules))
    }

    pub(crate) fn into_document(self) -> Vec<LifecycleRule> {
        self.0.into_iter().map(Rule::into_document).collect()
    }

    /// Whether a version has expired. Of the latest version that means that it is removed as its
    /// bucket's versioning says; of others, and of delete markers, that they go for good.
    pub(crate) fn has_expired(&self, candidate: &Candidate<'_>, now_ms: u64) -> bool {
        self.0
            .iter()
            .any(|rule| rule.enabled && rule.fits(candidate) && rule.has_expired(candidate, now_ms))
    }

    /// Whether an upload that was begun then has been going on for too long.
    pub(crate) fn has_ended(&self, key: &str, created_ms: u64, now_ms: u64) -> bool {
        self.0.iter().any(|rule| {
            let prefix = rule.prefix.as_deref().unwrap_or_default();
            rule.enabled
                && key.starts_with(prefix)
                && rule.abort_days.is_some_and(|days| is_due(created_ms, days, now_ms))
        })
    }
}

/// Whether the midnight after so many days has come.
fn is_due(since_ms: u64, days: i32, now_ms: u64) -> bool {
    let days = u64::try_from(days).unwrap_or(u64::MAX);
    let due = since_ms.saturating_add(days.saturating_mul(DAY_MS));
    let midnight = due.div_ceil(DAY_MS).saturating_mul(DAY_MS);
    now_ms >= midnight
}

impl Rule {
    fn from_document(rule: LifecycleRule) -> S3Result<Self> {
        if rule.transitions.is_some_and(|list| !list.is_empty())
            || rule.noncurrent_version_transitions.is_some_and(|list| !list.is_empty())
        {
            return Err(crate::errors::not_implemented("a transition to another storage class"));
        }
        let mut read = Self { id: rule.id, ..Self::default() };
        read.enabled = match rule.status.as_str() {
            ExpirationStatus::ENABLED => true,
            ExpirationStatus::DISABLED => false,
            _ => return Err(malformed("Status must be Enabled or Disabled")),
        };
        match (rule.filter, rule.prefix) {
            (Some(_), Some(_)) => return Err(malformed("a rule has Filter or Prefix, not both")),
            (None, None) => return Err(malformed("a rule needs a Filter")),
            (None, Some(prefix)) => (read.prefix, read.is_old_form) = (Some(prefix), true),
            (Some(filter), None) => read.read_filter(filter)?,
        }
        if let Some(expiration) = rule.expiration {
            read.read_expiration(expiration)?;
        }
        if let Some(NoncurrentVersionExpiration { newer_noncurrent_versions, noncurrent_days }) =
            rule.noncurrent_version_expiration
        {
            read.noncurrent_days = days(noncurrent_days)?;
            read.noncurrent_kept = newer_noncurrent_versions;
            if read.noncurrent_days.is_none() {
                return Err(malformed("NoncurrentVersionExpiration needs NoncurrentDays"));
            }
        }
        if let Some(abort) = rule.abort_incomplete_multipart_upload {
            read.abort_days = days(abort.days_after_initiation)?;
            if !read.tags.is_empty() || read.larger_than.or(read.smaller_than).is_some() {
                return Err(malformed("uploads have no tags and no size yet"));
            }
        }
        if !read.acts() {
            return Err(malformed("a rule needs at least one action"));
        }
        Ok(read)
    }

    fn acts(&self) -> bool {
        self.days.is_some()
            || self.date_s.is_some()
            || self.expired_markers
            || self.noncurrent_days.is_some()
            || self.abort_days.is_some()
    }

    fn read_filter(&mut self, filter: LifecycleRuleFilter) -> S3Result<()> {
        let LifecycleRuleFilter {
            and,
            object_size_greater_than,
            object_size_less_than,
            prefix,
            tag,
            ..
        } = filter;
        let and = and.unwrap_or_default();
        self.prefix = prefix.or(and.prefix);
        self.larger_than = object_size_greater_than.or(and.object_size_greater_than);
        self.smaller_than = object_size_less_than.or(and.object_size_less_than);
        let tags = tag.into_iter().chain(and.tags.unwrap_or_default());
        self.tags = tags.map(pair).collect::<S3Result<_>>()?;
        Ok(())
    }

    fn read_expiration(&mut self, expiration: LifecycleExpiration) -> S3Result<()> {
        let LifecycleExpiration { date, days: after, expired_object_delete_marker, .. } =
            expiration;
        let markers = expired_object_delete_marker.unwrap_or_default();
        let given = [date.is_some(), after.is_some(), markers];
        if given.into_iter().filter(|given| *given).count() > 1 {
            return Err(malformed("Expiration has Date, Days or ExpiredObjectDeleteMarker"));
        }
        self.days = days(after)?;
        self.expired_markers = markers;
        self.date_s = date.as_ref().map(epoch_seconds).transpose()?;
        if self.date_s.is_some_and(|second| second * 1000 % DAY_MS != 0) {
            return Err(s3_error!(InvalidArgument, "'Date' must be at midnight GMT"));
        }
        Ok(())
    }

    fn into_document(self) -> LifecycleRule {
        let tags = self.tags.into_iter();
        let mut tags: Vec<Tag> =
            tags.map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
        let sizes =
            usize::from(self.larger_than.is_some()) + usize::from(self.smaller_than.is_some());
        let conditions = usize::from(self.prefix.is_some()) + tags.len() + sizes;
        let mut filter = LifecycleRuleFilter::default();
        if conditions > 1 {
            filter.and = Some(LifecycleRuleAndOperator {
                object_size_greater_than: self.larger_than,
                object_size_less_than: self.smaller_than,
                prefix: self.prefix.clone(),
                tags: (!tags.is_empty()).then_some(tags),
            });
        } else {
            filter.object_size_greater_than = self.larger_than;
            filter.object_size_less_than = self.smaller_than;
            filter.prefix = self.prefix.clone();
            filter.tag = tags.pop();
        }
        let (old_prefix, filter) =
            if self.is_old_form { (self.prefix, None) } else { (None, Some(filter)) };
        let date = self.date_s.map(|second| {
            Timestamp::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(second))
        });
        let expires = date.is_some() || self.days.is_some() || self.expired_markers;
        LifecycleRule {
            abort_incomplete_multipart_upload: self
                .abort_days
                .map(|days| AbortIncompleteMultipartUpload { days_after_initiation: Some(days) }),
            expiration: expires.then(|| LifecycleExpiration {
                date,
                days: self.days,
                expired_object_delete_marker: self.expired_markers.then_some(true),
            }),
            filter,
            id: self.id,
            noncurrent_version_expiration: self.noncurrent_days.map(|days| {
                NoncurrentVersionExpiration {
                    newer_noncurrent_versions: self.noncurrent_kept,
                    noncurrent_days: Some(days),
                }
            }),
            noncurrent_version_transitions: None,
            prefix: old_prefix,
            status: ExpirationStatus::from_static(if self.enabled {
                ExpirationStatus::ENABLED
            } else {
                ExpirationStatus::DISABLED
            }),
            transitions: None,
        }
    }

    /// Whether the rule is about such a version. Delete markers have no tags and no size.
    fn fits(&self, candidate: &Candidate<'_>) -> bool {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let size = candidate.size.and_then(|size| i64::try_from(size).ok());
        candidate.key.starts_with(prefix)
            && self.tags.iter().all(|tag| candidate.tags.contains(tag))
            && self.larger_than.is_none_or(|bound| size.is_some_and(|size| size > bound))
            && self.smaller_than.is_none_or(|bound| size.is_some_and(|size| size < bound))
    }

    fn has_expired(&self, candidate: &Candidate<'_>, now_ms: u64) -> bool {
        if let Some(Noncurrent { since_ms, newer }) = candidate.noncurrent {
            let kept = self.noncurrent_kept.and_then(|kept| usize::try_from(kept).ok());
            return self.noncurrent_days.is_some_and(|days| is_due(since_ms, days, now_ms))
                && kept.is_none_or(|kept| newer >= kept);
        }
        let is_old = self.days.is_some_and(|days| is_due(candidate.modified_ms, days, now_ms))
            || self.date_s.is_some_and(|second| now_ms >= second.saturating_mul(1000));
        match candidate.size {
            Some(_) => is_old,
            // A marker hides nothing any more once it is alone.
            None => candidate.is_alone && (self.expired_markers || is_old),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = DAY_MS / 2;

    fn object(modified_ms: u64) -> Candidate<'static> {
        Candidate {
            key: "logs/a",
            tags: &[],
            size: Some(10),
            modified_ms,
            noncurrent: None,
            is_alone: true,
        }
    }

    fn expires(rule: Rule, candidate: &Candidate<'_>, now_ms: u64) -> bool {
        Rules(vec![Rule { enabled: true, ..rule }]).has_expired(candidate, now_ms)
    }

    #[test]
    fn days_end_at_midnight() {
        let rule = Rule { days: Some(2), ..Rule::default() };
        // Made at noon of day 0, two days old at noon of day 2, and gone when day 3 begins.
        for (now, expected) in
            [(2 * DAY_MS + NOON, false), (3 * DAY_MS - 1, false), (3 * DAY_MS, true)]
        {
            assert_eq!(expires(rule.clone(), &object(NOON), now), expected, "{now}");
        }
        let disabled = Rules(vec![rule]);
        assert!(!disabled.has_expired(&object(NOON), 9 * DAY_MS));
    }

    #[test]
    fn a_filter_holds_as_a_whole() {
        let tags = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
        let rule = Rule {
            days: Some(1),
            prefix: Some("logs/".to_owned()),
            tags: tags[..1].to_vec(),
            larger_than: Some(9),
            smaller_than: Some(11),
            ..Rule::default()
        };
        let tagged = Candidate { tags: &tags, ..object(0) };
        assert!(expires(rule.clone(), &tagged, DAY_MS));
        assert!(!expires(rule.clone(), &object(0), DAY_MS), "without the tag");
        assert!(!expires(rule.clone(), &Candidate { key: "log", ..tagged }, DAY_MS));
        for size in [9, 11] {
            assert!(!expires(rule.clone(), &Candidate { size: Some(size), ..tagged }, DAY_MS));
        }
    }

    #[test]
    fn noncurrent_versions_count_from_when_they_were_replaced() {
        let rule = Rule { noncurrent_days: Some(1), noncurrent_kept: Some(2), ..Rule::default() };
        let old = |newer| Candidate {
            noncurrent: Some(Noncurrent { since_ms: 5 * DAY_MS, newer }),
            is_alone: false,
            ..object(0)
        };
        assert!(!expires(rule.clone(), &old(2), 6 * DAY_MS - 1));
        assert!(expires(rule.clone(), &old(2), 6 * DAY_MS));
        assert!(!expires(rule.clone(), &old(1), 6 * DAY_MS), "two newer ones are kept");
        assert!(!expires(rule, &object(0), 9 * DAY_MS), "the latest is not noncurrent");
    }

    #[test]
    fn a_delete_marker_goes_once_it_hides_nothing() {
        let rule = Rule { expired_markers: true, ..Rule::default() };
        let marker = Candidate { size: None, ..object(0) };
        assert!(expires(rule.clone(), &marker, 0));
        assert!(!expires(rule, &Candidate { is_alone: false, ..marker }, 0));
    }

    #[test]
    fn a_date_counts_for_all() {
        let rule = Rule { date_s: Some(DAY_MS / 1000), ..Rule::default() };
        assert!(!expires(rule.clone(), &object(0), DAY_MS - 1));
        assert!(expires(rule, &object(DAY_MS + 5), DAY_MS));
    }

    #[test]
    fn uploads_are_ended_by_prefix_and_age() {
        let rule = Rule {
            abort_days: Some(1),
            prefix: Some("a".to_owned()),
            enabled: true,
            ..Rule::default()
        };
        let rules = Rules(vec![rule]);
        assert!(rules.has_ended("abc", 0, DAY_MS) && !rules.has_ended("abc", 0, DAY_MS - 1));
        assert!(!rules.has_ended("b", 0, 9 * DAY_MS));
    }
}
