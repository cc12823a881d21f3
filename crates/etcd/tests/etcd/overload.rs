//! More requests than the node takes on.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use onefold_etcd::proto::etcdserverpb::kv_client::KvClient;
use tonic::Code;

use crate::fixture::{Node, assert_error, connect, letters, put};

/// More puts than one connection may have in work while it is alone: half of 256 MiB, in which each
/// counts 16 KiB and its own bytes.
const GREED: usize = (128 << 20) / (16 << 10) + 100;

#[tokio::test]
async fn a_greedy_connection_is_refused_and_a_polite_one_is_not() {
    let text = "etcdserver: too many requests";
    let node = Node::start().await;
    node.hold(true);
    let mut greedy = KvClient::new(connect(node.address).await);
    let mut polite = KvClient::new(connect(node.address).await);
    let mut puts: FuturesUnordered<_> = (0..GREED)
        .map(|_| {
            let mut client = greedy.clone();
            async move { client.put(put("greedy", "")).await }
        })
        .collect();
    // Those that were let in wait for the store: what comes first is a refusal.
    assert_error(puts.next().await.expect("one of many"), Code::ResourceExhausted, text);
    assert_error(greedy.range(letters()).await, Code::ResourceExhausted, text);
    polite.range(letters()).await.expect("it is let in");
    node.hold(false);
    let (mut done, mut refused) = (0, 1);
    while let Some(outcome) = puts.next().await {
        match outcome {
            Ok(_) => done += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(done >= 8000 && refused >= 1, "{done} done, {refused} refused");
    polite.range(letters()).await.expect("it is let in");
    greedy.range(letters()).await.expect("it is let in again");
}
