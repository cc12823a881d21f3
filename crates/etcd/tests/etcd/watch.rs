//! Watch.

use std::time::Duration;

use onefold_etcd::Options;
use onefold_etcd::proto::etcdserverpb::request_op::Request;
use onefold_etcd::proto::etcdserverpb::watch_create_request::FilterType;
use onefold_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use onefold_etcd::proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, WatchCreateRequest};
use onefold_kv::KvError;
use tonic::Code;

use crate::fixture::{Node, assert_error, put, revision};
use crate::watching::{Watching, all, key};

/// The id in answers about no watch.
const NO_WATCH: i64 = -1;

fn from(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..all() }
}

/// Puts all in one revision.
async fn put_together(node: &Node, puts: Vec<PutRequest>) {
    let op = |put| RequestOp { request: Some(Request::RequestPut(put)) };
    let success = puts.into_iter().map(op).collect();
    let request = TxnRequest { success, ..Default::default() };
    node.kv().txn(request).await.expect("a good transaction");
}

#[tokio::test]
async fn a_watch_hears_of_what_happens_after_it_was_created() {
    let node = Node::start().await;
    node.put("a", "before").await;
    let mut watching = Watching::start(&node).await;
    let created = watching.create(key("a")).await;
    assert_eq!((created.watch_id, created.canceled), (0, false));
    assert_eq!(revision(&created.header), 2, "where the watch begins");
    node.put("a", "1").await;
    node.put("b", "not watched").await;
    node.delete("a").await;
    let put = watching.next().await;
    assert_eq!((put.watch_id, revision(&put.header)), (0, 3));
    assert_eq!(put.events[0].kv.as_ref().map(|kv| kv.mod_revision), Some(3));
    let delete = watching.next().await;
    let record = delete.events[0].kv.as_ref().expect("a deletion has a record");
    assert_eq!((record.mod_revision, record.version, record.value.len()), (5, 0, 0));
}

#[tokio::test]
async fn one_stream_carries_many_watches() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    let ids = [key("a"), key("b"), WatchCreateRequest { watch_id: 77, ..key("c") }, key("d")];
    let mut assigned = Vec::new();
    for request in ids {
        assigned.push(watching.create(request).await.watch_id);
    }
    assert_eq!(assigned, [0, 1, 77, 2]);
    node.put("c", "1").await;
    assert_eq!(watching.next().await.watch_id, 77);
    node.put("b", "1").await;
    assert_eq!(watching.next().await.watch_id, 1);
}

#[tokio::test]
async fn creations_sent_together_are_answered_in_order() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    for id in 1..=1000 {
        let request = WatchCreateRequest { watch_id: id, ..key(&format!("key-{id}")) };
        watching.send(RequestUnion::CreateRequest(request)).await;
    }
    for id in 1..=1000 {
        assert_eq!(watching.next().await.watch_id, id);
    }
    node.put("key-500", "1").await;
    assert_eq!(watching.next().await.watch_id, 500);
}

#[tokio::test]
async fn an_id_in_use_and_an_empty_range_are_refused() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    watching.create(WatchCreateRequest { watch_id: 5, ..key("a") }).await;
    let twice = watching.create(WatchCreateRequest { watch_id: 5, ..key("b") }).await;
    assert_eq!((twice.watch_id, twice.canceled), (NO_WATCH, true));
    assert_eq!(twice.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let empty = WatchCreateRequest { range_end: "a".into(), ..key("b") };
    let empty = watching.create(empty).await;
    assert_eq!((empty.watch_id, empty.canceled), (NO_WATCH, true));
    assert_eq!(empty.cancel_reason, "mvcc: watcher range is empty");
    node.put("a", "1").await;
    assert_eq!(watching.events().await, ["put a=1"], "the stream and its watches live on");
}

#[tokio::test]
async fn a_canceled_watch_is_silent_and_its_id_is_free() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    watching.create(WatchCreateRequest { watch_id: 5, ..key("a") }).await;
    watching.create(key("b")).await;
    watching.cancel(5).await;
    watching.cancel(404).await;
    let canceled = watching.next().await;
    assert_eq!((canceled.watch_id, canceled.canceled, canceled.created), (5, true, false));
    assert_eq!(canceled.compact_revision, 0);
    node.put("a", "unheard").await;
    node.put("b", "1").await;
    assert_eq!(watching.events().await, ["put b=1"]);
    let again = watching.create(WatchCreateRequest { watch_id: 5, ..key("a") }).await;
    assert_eq!((again.watch_id, again.canceled), (5, false));
    node.put("a", "heard").await;
    assert_eq!(watching.events().await, ["put a=heard"]);
}

#[tokio::test]
async fn history_is_told_from_the_start_revision_on() {
    let node = Node::start().await;
    node.put("a", "1").await;
    node.put("b", "2").await;
    node.delete("a").await;
    let mut watching = Watching::start(&node).await;
    watching.create(from(3)).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(watching.events().await);
    }
    assert_eq!(told, ["put b=2", "delete a"]);
    node.put("c", "3").await;
    assert_eq!(watching.events().await, ["put c=3"]);
}

#[tokio::test]
async fn a_watch_of_the_future_waits_for_it() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    watching.create(from(4)).await;
    node.put("a", "2").await;
    node.put("a", "3").await;
    node.put("a", "4").await;
    assert_eq!(watching.events().await, ["put a=4"]);
}

#[tokio::test]
async fn a_watch_from_compacted_history_is_created_and_canceled() {
    let node = Node::start().await;
    for _ in 0..4 {
        node.put("a", "1").await;
    }
    node.compact(4).await;
    let mut watching = Watching::start(&node).await;
    let created = watching.create(from(2)).await;
    let canceled = watching.next().await;
    assert_eq!(canceled.watch_id, created.watch_id);
    assert_eq!((canceled.canceled, canceled.compact_revision), (true, 4));
    let created = watching.create(from(4)).await;
    assert!(!created.canceled, "the compacted revision itself is there");
    assert_eq!(watching.events().await.first().map(String::as_str), Some("put a=1"));
}

#[tokio::test]
async fn filters_and_previous_versions_are_as_asked_for() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    let no_put = vec![FilterType::Noput.into()];
    watching.create(WatchCreateRequest { filters: no_put, prev_kv: true, ..key("a") }).await;
    node.put("a", "1").await;
    node.delete("a").await;
    let delete = watching.next().await;
    let [event] = &delete.events[..] else { panic!("one event, not {:?}", delete.events) };
    let previous = event.prev_kv.as_ref().expect("it was asked for");
    assert_eq!((&previous.value[..], previous.mod_revision), (&b"1"[..], 2));

    let no_delete = vec![FilterType::Nodelete.into()];
    let request = WatchCreateRequest { filters: no_delete, start_revision: 2, ..key("a") };
    watching.create(request).await;
    let put = watching.next().await;
    assert_eq!(put.events.len(), 1);
    assert!(put.events[0].prev_kv.is_none());
}

#[tokio::test]
async fn a_revision_is_told_at_once() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    watching.create(all()).await;
    let puts = (0..50).map(|i| put(&format!("{i:02}"), "v")).collect();
    put_together(&node, puts).await;
    assert_eq!(watching.next().await.events.len(), 50);
}

#[tokio::test]
async fn large_answers_are_split_for_those_who_ask() {
    let node = Node::start().await;
    let value = "v".repeat(600 << 10);
    node.put("a", &value).await;
    node.put("b", &value).await;
    node.put("c", &value).await;
    // One revision that deletes all three tells them all again as previous versions.
    let mut watching = Watching::start(&node).await;
    watching.create(WatchCreateRequest { fragment: true, prev_kv: true, ..all() }).await;
    let request = onefold_etcd::proto::etcdserverpb::DeleteRangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        prev_kv: false,
    };
    node.kv().delete_range(request).await.expect("a good deletion");
    let first = watching.next().await;
    assert!(first.fragment);
    let second = watching.next().await;
    assert!(!second.fragment);
    assert_eq!(first.events.len() + second.events.len(), 3);
}

#[tokio::test]
async fn progress_is_told_when_asked_for() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    watching.ask_for_progress().await;
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, revision(&progress.header)), (NO_WATCH, 1));
    watching.create(key("quiet")).await;
    watching.create(key("a")).await;
    let last = node.put("a", "1").await;
    assert_eq!(watching.events().await, ["put a=1"]);
    watching.ask_for_progress().await;
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (NO_WATCH, 0));
    assert_eq!(revision(&progress.header), last);
}

#[tokio::test]
async fn progress_comes_after_every_event_that_it_promises() {
    let node = Node::start().await;
    for i in 0..200 {
        node.put("a", &i.to_string()).await;
    }
    let mut watching = Watching::start(&node).await;
    watching.create(from(2)).await;
    let mut told = 0;
    while told < 201 {
        watching.ask_for_progress().await;
        let response = watching.next().await;
        if response.watch_id == NO_WATCH {
            let promised = revision(&response.header);
            assert!(promised <= told.max(1), "{promised} promised after {told} was told");
            continue;
        }
        let last = response.events.last().expect("only progress has no events");
        told = last.kv.as_ref().expect("every event has a record").mod_revision;
    }
}

#[tokio::test]
async fn a_quiet_watch_is_notified_of_progress() {
    let options = Options { progress_interval: Duration::from_millis(50), ..Options::default() };
    let node = Node::start_with(options).await;
    let mut watching = Watching::start(&node).await;
    watching.create(key("other")).await;
    let notified = watching.create(WatchCreateRequest { progress_notify: true, ..key("a") }).await;
    let last = node.put("b", "1").await;
    loop {
        let progress = watching.next().await;
        assert_eq!(progress.watch_id, notified.watch_id, "only who asked for it");
        assert!(progress.events.is_empty());
        if revision(&progress.header) == last {
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_delays_no_other() {
    let node = Node::start().await;
    let mut stuck = Watching::start_apart(&node).await;
    stuck.create(all()).await;
    let mut watching = Watching::start(&node).await;
    watching.create(all()).await;
    let value = "v".repeat(256 << 10);
    // Far more than the connection's windows and queues hold.
    for i in 0..100 {
        node.put(&format!("{i:03}"), &value).await;
        assert_eq!(watching.next().await.events.len(), 1);
    }
    let mut told = 0;
    while told < 100 {
        told += stuck.next().await.events.len();
    }
    assert_eq!(told, 100, "what was missed is told when it reads");
}

#[tokio::test]
async fn a_client_may_stop_asking_and_still_listen() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    watching.create(key("a")).await;
    watching.stop_asking();
    node.put("a", "1").await;
    assert_eq!(watching.events().await, ["put a=1"]);
}

#[tokio::test]
async fn a_stream_without_watches_ends_with_its_requests() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    watching.ask_for_progress().await;
    watching.stop_asking();
    assert_eq!(watching.next().await.watch_id, NO_WATCH, "what was asked is answered");
    assert!(watching.end_or_next().await.expect("a good end").is_none());
}

#[tokio::test]
async fn a_stream_ends_when_the_store_fails_so_that_clients_resume() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    watching.create(key("a")).await;
    node.fail(KvError::Overloaded { reason: "a test".to_owned() });
    let text = "etcdserver: too many requests";
    assert_error(watching.end_or_next().await, Code::Unavailable, text);
    let mut watching = Watching::start(&node).await;
    watching.send(RequestUnion::CreateRequest(key("a"))).await;
    assert_error(watching.end_or_next().await, Code::Unavailable, text);
}

#[tokio::test]
async fn a_stream_that_requires_a_leader_ends_without_one() {
    let node = Node::start().await;
    let require = |request: &mut tonic::Request<_>| {
        request.metadata_mut().insert("hasleader", "true".parse().expect("plain text"));
    };
    let mut watching = Watching::start_with(&node, require).await;
    watching.create(key("a")).await;
    node.view.set_leader(false);
    assert_error(watching.end_or_next().await, Code::Unavailable, "etcdserver: no leader");
}

#[tokio::test]
async fn a_stream_is_told_of_the_shutdown() {
    let node = Node::start().await;
    let mut watching = Watching::start(&node).await;
    watching.create(key("a")).await;
    node.stopping();
    let text = "etcdserver: server stopped";
    assert_error(watching.end_or_next().await, Code::Unavailable, text);
    node.stop().await;
}
