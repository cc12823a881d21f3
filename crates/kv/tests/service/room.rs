//! Quota and compaction as clients see them.

use std::time::{Duration, Instant};

use onefold_kv::{
    AutoCompaction, DeleteRangeRequest, Kv, KvError, KvOptions, PutRequest, REVISIONS_KEPT_MIN,
};

use crate::cluster::{Cluster, LONG, put};

async fn until_full(kv: &dyn Kv) -> KvError {
    for number in 0.. {
        let request = PutRequest::new(format!("key {number}"), vec![b'v'; 4 << 10]);
        if let Err(error) = kv.put(request).await {
            return error;
        }
    }
    unreachable!("a number that fits no quota")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_goes_on_by_itself_once_keys_are_deleted() {
    let options = KvOptions { quota_bytes: 256 << 10, ..KvOptions::default() };
    let cluster = Cluster::start_with(3, options).await;
    let client = cluster.any();
    // The leader's quota is there a moment after it leads.
    let began = Instant::now();
    while client.status().await.expect("it is told").quota_bytes != options.quota_bytes {
        assert!(began.elapsed() < LONG, "no leader sets the quota");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = until_full(&client).await;
    assert_eq!(refused, KvError::NoSpace { quota_bytes: options.quota_bytes });
    let full = cluster.kv(cluster.leader().await).status().await.expect("it is told");
    assert!(full.is_full && full.bytes() <= options.quota_bytes, "{full:?}");
    client.delete_range(DeleteRangeRequest::prefix("key")).await.expect("deletions go on");
    while client.put(PutRequest::new("after", "")).await.is_err() {
        assert!(began.elapsed() < LONG, "the room does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = cluster.kv(cluster.leader().await).status().await.expect("it is told");
    assert!(!status.is_full && status.keys == 1, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_given_up_by_itself() {
    for auto_compaction in [
        AutoCompaction::Revision { retention: 50 },
        AutoCompaction::Periodic { retention: Duration::from_secs(1) },
    ] {
        let cluster =
            Cluster::start_with(1, KvOptions { auto_compaction, ..KvOptions::default() }).await;
        let kv = cluster.kv(cluster.leader().await);
        for number in 0..REVISIONS_KEPT_MIN + 100 {
            put(&kv, "key", &number.to_string()).await;
        }
        let began = Instant::now();
        while kv.status().await.expect("it is told").compacted.get() < 50 {
            assert!(began.elapsed() < LONG, "{auto_compaction:?} gives nothing up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
