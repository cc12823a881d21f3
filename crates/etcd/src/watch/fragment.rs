//! Splitting answers that are too large for some clients.

use onefold_kv::limits::REQUEST_BYTES_MAX;
use prost::Message;

use crate::proto::etcdserverpb::WatchResponse;

/// Most bytes of events in one part; an event that is larger travels alone.
const PART_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// The same answer in parts, each but the last marked as followed by another.
pub(crate) fn split(response: WatchResponse) -> Vec<WatchResponse> {
    split_at(response, PART_BYTES_MAX)
}

fn split_at(mut response: WatchResponse, bytes_max: usize) -> Vec<WatchResponse> {
    let events = std::mem::take(&mut response.events);
    let mut parts = vec![response.clone()];
    let mut bytes = 0;
    for event in events {
        let size = event.encoded_len();
        if bytes > 0 && bytes + size > bytes_max {
            parts.push(response.clone());
            bytes = 0;
        }
        bytes += size;
        parts.last_mut().expect("there is one from the start").events.push(event);
    }
    let last = parts.len() - 1;
    for part in &mut parts[..last] {
        part.fragment = true;
    }
    parts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::mvccpb::{Event, KeyValue};

    fn response(values: &[usize]) -> WatchResponse {
        let event = |bytes: &usize| Event {
            kv: Some(KeyValue { value: Bytes::from(vec![7; *bytes]), ..Default::default() }),
            ..Default::default()
        };
        WatchResponse {
            watch_id: 3,
            events: values.iter().map(event).collect(),
            ..Default::default()
        }
    }

    fn events(parts: &[WatchResponse]) -> Vec<usize> {
        parts.iter().map(|part| part.events.len()).collect()
    }

    #[test]
    fn a_small_answer_stays_whole() {
        let parts = split_at(response(&[10, 10]), 100);
        assert_eq!(events(&parts), [2]);
        assert!(!parts[0].fragment);
    }

    #[test]
    fn an_answer_without_events_stays_one() {
        assert_eq!(split_at(response(&[]), 100).len(), 1);
    }

    #[test]
    fn parts_keep_order_and_id_and_all_but_the_last_are_marked() {
        let parts = split_at(response(&[40, 40, 40, 200, 1]), 100);
        assert_eq!(events(&parts), [2, 1, 1, 1]);
        assert_eq!(
            parts.iter().map(|part| part.fragment).collect::<Vec<_>>(),
            [true, true, true, false]
        );
        assert!(parts.iter().all(|part| part.watch_id == 3));
        let whole: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(whole, response(&[40, 40, 40, 200, 1]).events);
    }
}
