//! Watches: ordered, complete, unique, atomic, resumable, bookmarked.

use std::time::Duration;

use onefold_kv::{
    CompactRequest, DeleteRangeRequest, Kv, Operation, PutRequest, RangeRequest, TxnRequest,
    WatchFilters, WatchPoll, WatchRequest, Watcher,
};
use onefold_types::Revision;
use tokio::time::timeout;

use crate::cluster::{Cluster, LONG, events, put, told};

async fn watch(kv: &dyn Kv, request: WatchRequest) -> Box<dyn Watcher> {
    kv.watch(request).await.expect("it is watched")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_hears_its_span_from_now_on_in_order() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.kv(cluster.leader().await);
    let follower = cluster.kv(cluster.follower().await);
    put(&leader, "p/old", "0").await;
    // The follower has applied it, so that "now" is after it.
    crate::cluster::get(&follower, "p/old").await.expect("it is there");
    let mut watcher = watch(&follower, WatchRequest::prefix("p/")).await;
    put(&leader, "p/a", "1").await;
    put(&leader, "q", "2").await;
    leader.delete_range(DeleteRangeRequest::key("p/a")).await.expect("it is deleted");
    let heard = told(&events(&mut watcher, 2).await);
    assert_eq!(heard, ["3 put p/a=1", "5 delete p/a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_the_past_tells_all_of_it_and_goes_on() {
    let cluster = Cluster::start(1).await;
    let kv = cluster.kv(cluster.leader().await);
    for value in ["1", "2", "3"] {
        put(&kv, "a", value).await;
    }
    let request = WatchRequest { from_revision: Revision(3), ..WatchRequest::prefix("") };
    let mut watcher = watch(&kv, request).await;
    assert_eq!(told(&events(&mut watcher, 2).await), ["3 put a=2", "4 put a=3"]);
    put(&kv, "a", "4").await;
    assert_eq!(told(&events(&mut watcher, 1).await), ["5 put a=4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn previous_versions_come_when_asked_for_live_and_from_history() {
    let cluster = Cluster::start(1).await;
    let kv = cluster.kv(cluster.leader().await);
    let request = WatchRequest { prev_kv: true, ..WatchRequest::prefix("") };
    let mut live = watch(&kv, request.clone()).await;
    put(&kv, "a", "1").await;
    put(&kv, "a", "2").await;
    kv.delete_range(DeleteRangeRequest::key("a")).await.expect("it is deleted");
    let request = WatchRequest { from_revision: Revision(2), ..request };
    let mut late = watch(&kv, request).await;
    let live = events(&mut live, 3).await;
    let late = events(&mut late, 3).await;
    assert_eq!(live, late);
    let previous = |place: usize| live[place].prev_kv.as_ref().map(|kv| kv.value.clone());
    assert_eq!([previous(0), previous(1), previous(2)], [None, Some("1".into()), Some("2".into())]);
    let mut without =
        watch(&kv, WatchRequest { from_revision: Revision(2), ..WatchRequest::prefix("") }).await;
    assert!(events(&mut without, 3).await.iter().all(|event| event.prev_kv.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_leave_kinds_of_events_out() {
    let cluster = Cluster::start(1).await;
    let kv = cluster.kv(cluster.leader().await);
    let filtered = |no_put, no_delete| WatchRequest {
        filters: WatchFilters { no_put, no_delete },
        ..WatchRequest::prefix("")
    };
    let mut puts = watch(&kv, filtered(false, true)).await;
    let mut deletes = watch(&kv, filtered(true, false)).await;
    put(&kv, "a", "1").await;
    kv.delete_range(DeleteRangeRequest::key("a")).await.expect("it is deleted");
    put(&kv, "a", "2").await;
    assert_eq!(told(&events(&mut puts, 2).await), ["2 put a=1", "4 put a=2"]);
    assert_eq!(told(&events(&mut deletes, 1).await), ["3 delete a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transactions_events_come_together() {
    let cluster = Cluster::start(1).await;
    let kv = cluster.kv(cluster.leader().await);
    let mut watcher = watch(&kv, WatchRequest::prefix("")).await;
    let puts = (0..100).map(|key| Operation::Put(PutRequest::new(format!("{key:03}"), "")));
    let request = TxnRequest { success: puts.collect(), ..TxnRequest::default() };
    kv.txn(request).await.expect("it is run");
    let batch = watcher.next().await.expect("the watch goes on");
    assert_eq!(batch.events.len(), 100);
    assert_eq!(batch.next_revision, Revision(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_sleeps_through_more_than_memory_holds_misses_nothing() {
    const COUNT: u64 = 10_000;
    let cluster = Cluster::start(1).await;
    let kv = cluster.kv(cluster.leader().await);
    let mut slow = watch(&kv, WatchRequest::prefix("")).await;
    let writers = (0..50).map(|writer| {
        let kv = kv.clone();
        tokio::spawn(async move {
            for number in 0..COUNT / 50 {
                put(&kv, &format!("{writer}"), &number.to_string()).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("it writes");
    }
    let heard = events(&mut slow, COUNT as usize).await;
    let revisions: Vec<u64> = heard.iter().map(|event| event.kv.mod_revision.get()).collect();
    assert_eq!(revisions, (2..COUNT + 2).collect::<Vec<_>>(), "each once, in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_given_up_history_is_told_so() {
    let cluster = Cluster::start(1).await;
    let kv = cluster.kv(cluster.leader().await);
    for value in ["1", "2", "3"] {
        put(&kv, "a", value).await;
    }
    let compact = CompactRequest { revision: Revision(3), physical: true };
    kv.compact(compact).await.expect("it is compacted");
    let from =
        |revision| WatchRequest { from_revision: Revision(revision), ..WatchRequest::prefix("") };
    for kv in [&kv as &dyn Kv, &cluster.any()] {
        let batch = watch(kv, from(2)).await.next().await.expect("it is told");
        assert_eq!((batch.events, batch.compacted), (Vec::new(), Some(Revision(3))));
        let mut readable = watch(kv, from(3)).await;
        assert_eq!(told(&events(&mut readable, 2).await), ["3 put a=2", "4 put a=3"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookmarks_move_on_without_events() {
    let cluster = Cluster::start(1).await;
    let kv = cluster.kv(cluster.leader().await);
    let watcher = watch(&kv, WatchRequest { key: "quiet".into(), ..WatchRequest::default() }).await;
    assert_eq!(watcher.next_revision(), Revision(2));
    put(&kv, "loud", "1").await;
    assert_eq!(watcher.next_revision(), Revision(3));
    assert_eq!(watcher.header().revision, Revision(2));
    let unseen = watch(&kv, WatchRequest { key: "loud".into(), ..WatchRequest::default() }).await;
    put(&kv, "loud", "2").await;
    assert_eq!(unseen.next_revision(), Revision(3), "what was not given is not behind it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_answers_with_events_or_at_the_end_of_its_time() {
    let cluster = Cluster::start(1).await;
    let kv = cluster.any();
    put(&kv, "a", "1").await;
    let poll = |from, wait, bytes_max| WatchPoll {
        watch: WatchRequest { from_revision: Revision(from), ..WatchRequest::prefix("") },
        wait,
        bytes_max,
    };
    let quiet = kv.watch_poll(poll(0, Duration::ZERO, 100)).await.expect("it answers");
    assert_eq!((quiet.events.len(), quiet.next_revision), (0, Revision(3)));
    let waiting = tokio::spawn({
        let kv = kv.clone();
        let poll = poll(3, LONG, 100);
        async move { kv.watch_poll(poll).await }
    });
    put(&kv, "a", "2").await;
    put(&kv, "a", "3").await;
    let batch = waiting.await.expect("it ends").expect("it answers");
    assert_eq!(told(&batch.events)[0], "3 put a=2");
    let small = kv.watch_poll(poll(2, LONG, 1)).await.expect("it answers");
    assert_eq!(told(&small.events), ["2 put a=1"]);
    assert_eq!(small.next_revision, Revision(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_watch_goes_on_over_a_change_of_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let kv = cluster.kv(follower);
    let mut watcher = watch(&kv, WatchRequest::prefix("")).await;
    put(&kv, "a", "1").await;
    cluster.stop(leader).await;
    cluster.leader().await;
    put(&kv, "a", "2").await;
    assert_eq!(told(&events(&mut watcher, 2).await), ["2 put a=1", "3 put a=2"]);
}

/// A follower answers what the leader says, and applies it a moment later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_find_at_a_node_what_they_did_there() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.kv(cluster.follower().await);
    for round in 0..50 {
        let value = round.to_string();
        let revision = put(&follower, "own", &value).await;
        let read = RangeRequest { serializable: true, ..RangeRequest::key("own") };
        let found = follower.range(read).await.expect("it is read");
        assert_eq!(found.kvs[0].value, value, "a local read");

        put(&follower, "own", "before").await;
        let mut watcher = watch(&follower, WatchRequest::prefix("own")).await;
        let next = put(&follower, "own", "after").await;
        assert_eq!(told(&events(&mut watcher, 1).await), [format!("{next} put own=after")]);

        follower.compact(CompactRequest { revision: next, physical: false }).await.expect("done");
        let past = WatchRequest { from_revision: revision, ..WatchRequest::prefix("own") };
        let mut watcher = watch(&follower, past).await;
        let batch = timeout(LONG, watcher.next()).await.expect("it ends").expect("it is told");
        assert_eq!(batch.compacted, Some(next));
    }
}
