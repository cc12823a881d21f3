//! Messages that make no sense: refused, counted, and of no further consequence.

mod cluster;

use bytes::Bytes;
use cluster::{Cluster, Setup, eventually, propose};
use onefold_raft::{Body, Message};
use onefold_replica::NodeMetrics;
use onefold_transport::{MethodId, Peers};
use onefold_types::{GroupId, LogIndex, NodeId, Term};

const MESSAGES: MethodId = MethodId(16);
const CHECKPOINTS: MethodId = MethodId(22);
const BEATS: MethodId = MethodId(23);

/// The present format of frames: with another one nothing behind it would be looked at.
const FRAME_FORMAT: u8 = 3;

fn frame(group: GroupId, message: &Message) -> Bytes {
    let encoded = postcard::to_extend(&(group, message), vec![FRAME_FORMAT]);
    encoded.expect("messages serialize into memory").into()
}

fn metrics(cluster: &Cluster) -> NodeMetrics {
    cluster.node(NodeId(1)).host.metrics().node
}

/// Sends again and again, since one-way messages may be lost, until it is counted.
async fn counted(
    cluster: &Cluster,
    stranger: &Peers,
    (method, payload): (MethodId, Bytes),
    count: impl Fn(&NodeMetrics) -> u64,
) {
    let before = count(&metrics(cluster));
    eventually("the message is refused and counted", || async {
        stranger.send(NodeId(1), method, payload.clone());
        (count(&metrics(cluster)) > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_make_no_sense_are_counted_and_do_no_harm() {
    let cluster = Cluster::start(Setup::new(3)).await;
    propose(&cluster.group(NodeId(1)), "add").await.expect("a majority runs");
    let group = cluster.group(NodeId(1)).id();
    let term = cluster.group(NodeId(1)).leadership().borrow().term;
    let stranger = cluster.pretend(NodeId(9));
    for (method, payload) in [
        (MESSAGES, &b"nonsense"[..]),
        (MESSAGES, &[FRAME_FORMAT, 0xff, 0xff]),
        (CHECKPOINTS, &[1, 0xff]),
        (BEATS, &[1]),
        (BEATS, b"nonsense"),
    ] {
        let sent = (method, Bytes::copy_from_slice(payload));
        counted(&cluster, &stranger, sent, |it| it.frames_malformed_total).await;
    }
    let message = Message { term, body: Body::TimeoutNow };
    let elsewhere = (MESSAGES, frame(GroupId(4711), &message));
    counted(&cluster, &stranger, elsewhere, |it| it.messages_unknown_group_total).await;
    // Who is no member acknowledges what it likes: it counts for no majority.
    let matched = LogIndex(1 << 40);
    let message = Message { term, body: Body::AppendAccepted { matched } };
    let answer = (MESSAGES, frame(group, &message));
    counted(&cluster, &stranger, answer, |it| it.messages_not_member_total).await;
    let message = Message { term: Term(u64::MAX), body: Body::TimeoutNow };
    let impossible = (MESSAGES, frame(group, &message));
    counted(&cluster, &stranger, impossible, |it| it.messages_malformed_total).await;

    assert_eq!(propose(&cluster.group(NodeId(1)), "add").await, Ok("2".to_owned()));
    assert_eq!(metrics(&cluster).nodes_down, 0, "a stranger's beats say nothing of members");
    for node in cluster.running() {
        assert!(cluster.node(node).host.failure().borrow().is_none());
    }
}
