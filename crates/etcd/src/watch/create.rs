//! What a client asks for when it creates a watch.

use bytes::Bytes;
use onefold_kv as kv;
use onefold_types::Revision;

use crate::convert::revision;
use crate::errors;
use crate::proto::etcdserverpb::WatchCreateRequest;
use crate::proto::etcdserverpb::watch_create_request::FilterType;

/// A watch as asked for.
#[derive(Clone, Debug)]
pub(crate) struct Create {
    /// The wish for an id; 0 to have one assigned.
    pub(crate) id: i64,
    /// What to follow.
    pub(crate) request: kv::WatchRequest,
    /// Split large answers.
    pub(crate) fragment: bool,
    /// Tell now and then that nothing happened.
    pub(crate) progress_notify: bool,
}

impl Create {
    /// Reads a request; an `Err` is etcd's text of why there can be no such watch.
    pub(crate) fn parse(request: WatchCreateRequest) -> Result<Self, &'static str> {
        // For watches alone, etcd reads an empty key as the smallest one.
        let key = match request.key.is_empty() {
            true => Bytes::from_static(&[0]),
            false => request.key,
        };
        let followed = kv::WatchRequest {
            key,
            range_end: request.range_end,
            from_revision: from_revision(request.start_revision),
            filters: filters(&request.filters),
            prev_kv: request.prev_kv,
        };
        if let kv::KeySpan::Between { start, end } = followed.span()
            && end <= start
        {
            return Err(errors::EMPTY_WATCH_RANGE);
        }
        Ok(Self {
            id: request.watch_id,
            request: followed,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
        })
    }
}

/// 0 is "from now on"; before the first revision is "everything".
fn from_revision(start: i64) -> Revision {
    if start < 0 { Revision(1) } else { revision(start) }
}

/// Filters that are not in the API filter nothing, as in etcd.
fn filters(filters: &[i32]) -> kv::WatchFilters {
    kv::WatchFilters {
        no_put: filters.contains(&FilterType::Noput.into()),
        no_delete: filters.contains(&FilterType::Nodelete.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(key: &'static [u8], range_end: &'static [u8]) -> WatchCreateRequest {
        WatchCreateRequest {
            key: Bytes::from_static(key),
            range_end: Bytes::from_static(range_end),
            ..Default::default()
        }
    }

    #[test]
    fn an_empty_key_is_the_smallest_one() {
        let all = Create::parse(create(b"", b"\0")).expect("is valid");
        assert_eq!(all.request.span(), kv::KeySpan::From(Bytes::from_static(b"\0")));
    }

    #[test]
    fn a_range_that_ends_before_it_starts_is_refused() {
        assert_eq!(Create::parse(create(b"b", b"a")).err(), Some(errors::EMPTY_WATCH_RANGE));
        assert_eq!(Create::parse(create(b"b", b"b")).err(), Some(errors::EMPTY_WATCH_RANGE));
        assert!(Create::parse(create(b"b", b"c")).is_ok());
        assert!(Create::parse(create(b"b", b"\0")).is_ok());
    }

    #[test]
    fn a_negative_start_is_the_beginning() {
        let request = WatchCreateRequest { start_revision: -5, ..create(b"a", b"") };
        let created = Create::parse(request).expect("is valid");
        assert_eq!(created.request.from_revision, Revision(1));
    }

    #[test]
    fn filters_leave_out_what_they_name() {
        let request = WatchCreateRequest { filters: vec![1, 77], ..create(b"a", b"") };
        let filters = Create::parse(request).expect("is valid").request.filters;
        assert!(filters.no_delete);
        assert!(!filters.no_put);
    }
}
