//! What a server of the etcd API does with many keys: fills it, and asks what costs memory or time.
//!
//! ```sh
//! cargo run --release -p onefold-etcd --example many_keys -- 127.0.0.1:2379 fill 1000000 256
//! cargo run --release -p onefold-etcd --example many_keys -- 127.0.0.1:2379 ask
//! cargo run --release -p onefold-etcd --example many_keys -- 127.0.0.1:2379 watch 1000
//! ```
//!
//! `fill` writes so many keys with random values of so many bytes, in transactions of 100; done again, it
//! overwrites them. `ask` tells how long counts, limited ranges and a range of everything take. `watch`
//! opens so many watches of everything that never read, and overwrites keys for a while.

use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use onefold_etcd::proto::etcdserverpb::kv_client::KvClient;
use onefold_etcd::proto::etcdserverpb::request_op::Request as Operation;
use onefold_etcd::proto::etcdserverpb::watch_client::WatchClient;
use onefold_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use onefold_etcd::proto::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
};
use tonic::transport::{Channel, Endpoint};

const PUTS_PER_TXN: u64 = 100;
const TXNS_AT_ONCE: usize = 8;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [address, "fill", keys, bytes] => {
            fill(connect(address).await?, keys.parse()?, bytes.parse()?).await
        }
        [address, "ask"] => ask(connect(address).await?).await,
        [address, "watch", watches] => watch(connect(address).await?, watches.parse()?).await,
        _ => Err("give ADDRESS and one of: fill KEYS BYTES, ask, watch WATCHES".into()),
    }
}

async fn connect(address: &str) -> Outcome<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect().await?)
}

async fn fill(channel: Channel, keys: u64, value_bytes: usize) -> Outcome<()> {
    let began = Instant::now();
    stream::iter((0..keys).step_by(PUTS_PER_TXN as usize))
        .map(|first| {
            let mut client = KvClient::new(channel.clone());
            let last = keys.min(first + PUTS_PER_TXN);
            let success = (first..last).map(|number| put(number, value_bytes)).collect();
            async move { client.txn(TxnRequest { success, ..Default::default() }).await }
        })
        .buffer_unordered(TXNS_AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    println!("filled {keys} keys in {:?}", began.elapsed());
    Ok(())
}

fn put(number: u64, value_bytes: usize) -> RequestOp {
    let key = format!("key/{number:012}").into();
    let mut value = vec![0_u8; value_bytes];
    let mut state = number ^ u64::from(std::process::id()) << 40;
    for part in value.chunks_mut(8) {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        part.copy_from_slice(&state.to_be_bytes()[..part.len()]);
    }
    let put = PutRequest { key, value: value.into(), ..Default::default() };
    RequestOp { request: Some(Operation::RequestPut(put)) }
}

fn everything() -> RangeRequest {
    let zero = Bytes::from_static(&[0]);
    RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() }
}

async fn ask(channel: Channel) -> Outcome<()> {
    let mut client = KvClient::new(channel).max_decoding_message_size(usize::MAX);
    let present = client.range(RangeRequest { count_only: true, ..everything() }).await?;
    let present = present.into_inner().header.map_or(1, |header| header.revision);
    let count = RangeRequest { count_only: true, ..everything() };
    let page = RangeRequest { limit: 10, ..everything() };
    let past = RangeRequest { revision: present.max(2) - 1, ..page.clone() };
    for (name, request) in
        [("count_only", count), ("limit 10", page), ("limit 10, a revision ago", past)]
    {
        for _ in 0..3 {
            tell(&mut client, name, request.clone()).await?;
        }
    }
    tell(&mut client, "everything", everything()).await
}

async fn tell(client: &mut KvClient<Channel>, name: &str, request: RangeRequest) -> Outcome<()> {
    let began = Instant::now();
    match client.range(request).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let (count, kvs) = (answer.count, answer.kvs.len());
            println!("{name}: {count} keys, {kvs} answered, {:?}", began.elapsed());
        }
        Err(refused) => println!("{name}: {refused}, {:?}", began.elapsed()),
    }
    Ok(())
}

async fn watch(channel: Channel, watches: usize) -> Outcome<()> {
    let mut open = Vec::new();
    for _ in 0..watches {
        let zero = Bytes::from_static(&[0]);
        let create =
            WatchCreateRequest { key: zero.clone(), range_end: zero, ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = stream::iter([create]).chain(stream::pending());
        // Kept open, and never read.
        open.push(WatchClient::new(channel.clone()).watch(requests).await?);
    }
    println!("{watches} watches are open");
    fill(channel, 100_000, 256).await?;
    println!("leave with Ctrl-C");
    tokio::signal::ctrl_c().await?;
    drop(open);
    Ok(())
}
