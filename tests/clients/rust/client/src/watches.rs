//! Watches.

use etcd_client::{
    Client, CompactionOptions, EventType, WatchFilterType, WatchOptions, WatchStream,
};

use crate::Cluster;

/// The kinds and values of the next so many events.
async fn take(watch: &mut WatchStream, count: usize) -> Vec<(EventType, String)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let answer = watch.message().await.expect("no error").expect("the stream goes on");
        assert!(!answer.canceled(), "{answer:?}");
        seen.extend(answer.events().iter().map(|event| {
            let value = event.kv().expect("a key").value_str().expect("text");
            (event.event_type(), value.to_owned())
        }));
    }
    seen
}

async fn put(client: &mut Client, key: &str, value: &str) -> i64 {
    let answer = client.put(key, value, None).await.expect("put");
    answer.header().expect("a header").revision()
}

pub async fn history_and_present(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    let first = put(&mut client, "watch/a", "1").await;
    put(&mut client, "watch/b", "2").await;
    client.delete("watch/a", None).await.expect("deleted");
    let past = || WatchOptions::new().with_prefix().with_start_revision(first);
    let text = str::to_owned;
    let all = vec![
        (EventType::Put, text("1")),
        (EventType::Put, text("2")),
        (EventType::Delete, text("")),
    ];
    let mut watch = client.watch("watch/", Some(past())).await.expect("a watch");
    assert_eq!(take(&mut watch, 3).await, all);
    put(&mut client, "watch/c", "3").await;
    assert_eq!(take(&mut watch, 1).await, [(EventType::Put, text("3"))]);
    let options = past().with_filters([WatchFilterType::NoPut]).with_fragment();
    let mut watch = client.watch("watch/", Some(options)).await.expect("a watch");
    assert_eq!(take(&mut watch, 1).await, all[2..]);

    let mut watch = client.watch("watch/a", Some(past().with_prev_key())).await.expect("a watch");
    loop {
        let answer = watch.message().await.expect("no error").expect("it goes on");
        if let Some(event) = answer.events().iter().find(|e| e.event_type() == EventType::Delete) {
            assert_eq!(event.prev_kv().expect("one before").value(), b"1");
            break;
        }
    }

    let mut client = cluster.connect_to(0).await;
    let options = CompactionOptions::new();
    client.compact(first + 1, Some(options)).await.expect("compacted");
    client.get("watch/a", None).await.expect("read");
    let mut watch = client.watch("watch/a", Some(past())).await.expect("a watch");
    let answer = loop {
        let answer = watch.message().await.expect("no error").expect("an answer");
        if answer.canceled() {
            break answer;
        }
    };
    assert_eq!(answer.compact_revision(), first + 1);
    assert!(answer.cancel_reason().contains("compacted"), "{answer:?}");
}

pub async fn progress_and_cancel(cluster: &Cluster) {
    // A node tells how far it is itself.
    let mut client = cluster.connect_to(0).await;
    let options = WatchOptions::new().with_watch_id(7).with_progress_notify();
    let mut watch = client.watch("progress/a", Some(options)).await.expect("a watch");
    let created = watch.message().await.expect("no error").expect("an answer");
    assert!(created.created() && created.watch_id() == 7, "{created:?}");
    let options = WatchOptions::new().with_watch_id(8);
    watch.watch("progress/b", Some(options)).await.expect("a watch on the same stream");
    assert!(watch.message().await.expect("no error").expect("an answer").created());
    let revision = put(&mut client, "progress/c", "1").await;
    client.get("progress/c", None).await.expect("read");
    watch.request_progress().await.expect("asked");
    let progress = watch.message().await.expect("no error").expect("an answer");
    assert!(progress.events().is_empty());
    assert!(progress.header().expect("a header").revision() >= revision);
    watch.cancel(7).await.expect("asked");
    let canceled = watch.message().await.expect("no error").expect("an answer");
    assert!(canceled.canceled() && canceled.watch_id() == 7, "{canceled:?}");
    put(&mut client, "progress/a", "1").await;
    put(&mut client, "progress/b", "2").await;
    assert_eq!(take(&mut watch, 1).await, [(EventType::Put, "2".to_owned())]);
}
