//! Requests on any node, and through calls.

use onefold_kv::limits::REQUEST_BYTES_LIMIT;
use onefold_kv::{
    CompactRequest, Compare, DeleteRangeRequest, Kv, KvError, Operation, OperationResponse,
    PutRequest, RangeRequest, SortOrder, SortTarget, TxnRequest,
};
use onefold_types::Revision;

use crate::cluster::{Cluster, get, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_reads_at_once_what_any_node_wrote() {
    let cluster = Cluster::start(3).await;
    for (round, writer) in cluster.running().into_iter().enumerate() {
        let value = round.to_string();
        let revision = put(&cluster.kv(writer), "key", &value).await;
        for reader in cluster.running() {
            let request = RangeRequest::key("key");
            let response = cluster.kv(reader).range(request).await.expect("it is read");
            assert_eq!(response.kvs[0].value, value, "written on {writer}, read on {reader}");
            assert_eq!(response.header.revision, revision);
            assert!(response.header.raft_term.get() > 0);
        }
    }
}

async fn does_everything(kv: &dyn Kv) {
    let first = put(kv, "a", "1").await;
    put(kv, "b", "2").await;
    let previous = PutRequest { prev_kv: true, ..PutRequest::new("a", "3") };
    let response = kv.put(previous).await.expect("it is put");
    assert_eq!(response.prev_kv.expect("it existed").value, "1");

    let past = RangeRequest { revision: first, ..RangeRequest::prefix("") };
    let past = kv.range(past).await.expect("the past is read");
    assert_eq!((past.kvs.len(), past.count), (1, 1));

    let swap = TxnRequest {
        compare: vec![Compare::absent("c")],
        success: vec![
            Operation::Put(PutRequest::new("c", "4")),
            Operation::Range(RangeRequest::prefix("")),
        ],
        failure: Vec::new(),
    };
    let response = kv.txn(swap).await.expect("it is run");
    assert!(response.succeeded);
    match &response.responses[1] {
        OperationResponse::Range(range) => assert_eq!(range.count, 3),
        other => panic!("a range was answered with {other:?}"),
    }
    let read_only = TxnRequest {
        compare: vec![Compare::absent("c")],
        failure: vec![Operation::Range(RangeRequest::key("c"))],
        ..TxnRequest::default()
    };
    let revision = response.header.revision;
    let response = kv.txn(read_only).await.expect("it is run");
    assert_eq!((response.succeeded, response.header.revision), (false, revision));

    let response = kv.delete_range(DeleteRangeRequest::prefix("")).await.expect("it is deleted");
    assert_eq!(response.deleted, 3);

    let revision = response.header.revision;
    let compact = CompactRequest { revision, physical: true };
    kv.compact(compact).await.expect("it is compacted");
    let past = RangeRequest { revision: first, ..RangeRequest::key("a") };
    let gone = KvError::Compacted { requested: first, compacted: revision };
    assert_eq!(kv.range(past).await, Err(gone));
    let future = RangeRequest { revision: Revision(999), ..RangeRequest::key("a") };
    let ahead = KvError::FutureRevision { requested: Revision(999), current: revision };
    assert_eq!(kv.range(future).await, Err(ahead));
    assert_eq!(kv.put(PutRequest::new("", "")).await, Err(KvError::EmptyKey));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_does_everything() {
    let cluster = Cluster::start(3).await;
    does_everything(&cluster.kv(cluster.leader().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_does_everything() {
    let cluster = Cluster::start(3).await;
    does_everything(&cluster.kv(cluster.follower().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_does_everything_through_one_node() {
    let cluster = Cluster::start(3).await;
    does_everything(&cluster.client(&[cluster.follower().await])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_too_large_for_the_log_is_refused_with_its_size() {
    let cluster = Cluster::start(1).await;
    let kv = cluster.any();
    let fits = vec![0; REQUEST_BYTES_LIMIT - 100];
    kv.put(PutRequest::new("a", fits)).await.expect("it just fits");
    let error =
        kv.put(PutRequest::new("a", vec![0; REQUEST_BYTES_LIMIT])).await.expect_err("too big");
    assert!(matches!(error, KvError::RequestTooLarge { bytes } if bytes > REQUEST_BYTES_LIMIT));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_larger_than_a_frame_reaches_a_client_whole() {
    let cluster = Cluster::start(1).await;
    let kv = cluster.any();
    for number in 0..24_u8 {
        let key = format!("big/{number:02}");
        kv.put(PutRequest::new(key, vec![number; 1 << 20])).await.expect("it is put");
    }
    let response = kv.range(RangeRequest::prefix("big/")).await.expect("it is read");
    assert_eq!((response.kvs.len(), response.count, response.more), (24, 24, false));
    for (number, kv) in response.kvs.iter().enumerate() {
        assert!(
            kv.value.len() == 1 << 20 && kv.value.iter().all(|byte| usize::from(*byte) == number)
        );
    }
    let limited = RangeRequest { limit: 20, ..RangeRequest::prefix("big/") };
    let response = kv.range(limited).await.expect("it is read");
    assert_eq!((response.kvs.len(), response.count, response.more), (20, 24, true));
    let sorted = RangeRequest {
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        ..RangeRequest::prefix("big/")
    };
    assert_eq!(kv.range(sorted).await, Err(KvError::AnswerTooLarge));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serializable_read_needs_no_majority() {
    let mut cluster = Cluster::start(3).await;
    let kv = cluster.kv(cluster.leader().await);
    put(&kv, "a", "1").await;
    let last = cluster.follower().await;
    assert_eq!(get(&cluster.kv(last), "a").await.expect("it is there"), "1");
    for node in cluster.running().into_iter().filter(|node| *node != last) {
        cluster.stop(node).await;
    }
    let request = RangeRequest { serializable: true, ..RangeRequest::key("a") };
    let response = cluster.kv(last).range(request).await.expect("it needs nobody");
    assert_eq!(response.kvs[0].value, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart() {
    let mut cluster = Cluster::start(1).await;
    let node = cluster.leader().await;
    let kv = cluster.kv(node);
    put(&kv, "a", "1").await;
    let revision = put(&kv, "a", "2").await;
    drop(kv);
    cluster.stop(node).await;
    cluster.restart(node).await;
    let response = cluster.kv(node).range(RangeRequest::key("a")).await.expect("it is read");
    assert_eq!((&response.kvs[0].value[..], response.kvs[0].version), (&b"2"[..], 2));
    assert_eq!(response.header.revision, revision);
}
