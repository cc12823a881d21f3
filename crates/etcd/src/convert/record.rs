//! Records and events.

use onefold_kv as kv;

use super::number;
use crate::proto::mvccpb;

/// A record as the API has it.
pub(crate) fn key_value(record: kv::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: record.key,
        create_revision: number(record.create_revision.get()),
        mod_revision: number(record.mod_revision.get()),
        version: number(record.version),
        value: record.value,
        lease: record.lease.0,
    }
}

/// An event as the API has it.
pub(crate) fn event(event: kv::Event) -> mvccpb::Event {
    let kind = match event.kind {
        kv::EventKind::Put => mvccpb::event::EventType::Put,
        kv::EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv)),
        prev_kv: event.prev_kv.map(key_value),
    }
}
