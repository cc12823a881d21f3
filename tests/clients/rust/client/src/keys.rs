//! Keys: every option of puts, reads, deletions, transactions and compaction.

use etcd_client::{
    CompactionOptions, Compare, CompareOp, DeleteOptions, GetOptions, GetResponse, KvClientPrefix,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
};

use crate::{Cluster, refused};

fn names(answer: &GetResponse) -> Vec<&str> {
    answer.kvs().iter().map(|kv| kv.key_str().expect("text")).collect()
}

pub async fn put(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    client.put("put/a", "1", None).await.expect("put");
    let options = PutOptions::new().with_prev_key();
    let answer = client.put("put/a", "2", Some(options)).await.expect("put");
    assert_eq!(answer.prev_key().expect("there was one").value(), b"1");
    let lease = client.lease_grant(300, None).await.expect("granted").id();
    let options = PutOptions::new().with_lease(lease);
    client.put("put/a", "3", Some(options)).await.expect("put");
    let options = PutOptions::new().with_ignore_lease();
    client.put("put/a", "4", Some(options)).await.expect("put");
    assert_eq!(client.get("put/a", None).await.expect("read").kvs()[0].lease(), lease);
    let options = PutOptions::new().with_ignore_value();
    client.put("put/a", "", Some(options)).await.expect("put");
    let answer = client.get("put/a", None).await.expect("read");
    let kv = &answer.kvs()[0];
    assert_eq!((kv.value(), kv.lease(), kv.version()), (b"4".as_slice(), 0, 5));
    let options = PutOptions::new().with_lease(12_345);
    refused(client.put("put/a", "", Some(options)).await, "requested lease not found");
    refused(client.put("", "", None).await, "key is not provided");
    refused(client.put("put/large", vec![0; 1_600_000], None).await, "request is too large");
}

pub async fn get(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    let mut first = 0;
    for (key, value) in [("get/a", "3"), ("get/b", "2"), ("get/c", "1")] {
        let answer = client.put(key, value, None).await.expect("put");
        first = if first == 0 { answer.header().expect("a header").revision() } else { first };
    }
    let prefix = || GetOptions::new().with_prefix();
    let span = GetOptions::new().with_range("get/c");
    let last = prefix().with_sort(SortTarget::Value, SortOrder::Ascend);
    for (options, key, want) in [
        (prefix(), "get/", vec!["get/a", "get/b", "get/c"]),
        (span, "get/a", vec!["get/a", "get/b"]),
        (GetOptions::new().with_from_key().with_limit(1), "get/b", vec!["get/b"]),
        (last.clone(), "get/", vec!["get/c", "get/b", "get/a"]),
        (prefix().with_revision(first), "get/", vec!["get/a"]),
        (prefix().with_min_mod_revision(first + 1), "get/", vec!["get/b", "get/c"]),
        (prefix().with_max_mod_revision(first), "get/", vec!["get/a"]),
        (prefix().with_min_create_revision(first + 2), "get/", vec!["get/c"]),
        (prefix().with_max_create_revision(first + 1), "get/", vec!["get/a", "get/b"]),
        (prefix().with_count_only(), "get/", vec![]),
    ] {
        let answer = client.get(key, Some(options)).await.expect("read");
        assert_eq!(names(&answer), want);
    }
    let answer = client.get("get/", Some(prefix().with_limit(2).with_keys_only())).await;
    let answer = answer.expect("read");
    assert!(answer.more() && answer.count() == 3 && answer.kvs()[0].value().is_empty());
    let options = prefix().with_serializable();
    assert!(client.get("get/", Some(options)).await.expect("read").count() <= 3);
    let future = GetOptions::new().with_revision(first + 1_000_000);
    refused(client.get("get/a", Some(future)).await, "required revision is a future revision");

    let mut stream = client.kv_client().get_stream("get/", Some(prefix())).await.expect("read");
    let mut streamed = 0;
    while let Some(part) = stream.message().await.expect("a part") {
        streamed += part.kvs().len();
    }
    assert_eq!(streamed, 3);
}

pub async fn delete(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    for key in ["delete/a", "delete/b", "delete/c"] {
        client.put(key, key, None).await.expect("put");
    }
    let options = DeleteOptions::new().with_prev_key();
    let answer = client.delete("delete/a", Some(options)).await.expect("deleted");
    assert_eq!(answer.prev_kvs()[0].value(), b"delete/a");
    let options = DeleteOptions::new().with_range("delete/c");
    assert_eq!(client.delete("delete/b", Some(options)).await.expect("deleted").deleted(), 1);
    let options = DeleteOptions::new().with_prefix();
    assert_eq!(client.delete("delete/", Some(options)).await.expect("deleted").deleted(), 1);
}

pub async fn transactions(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    let put = client.put("txn/a", "1", None).await.expect("put");
    let revision = put.header().expect("a header").revision();
    let nested = Txn::new()
        .when([Compare::version("txn/a", CompareOp::Equal, 1)])
        .and_then([TxnOp::put("txn/nested", "then", None)])
        .or_else([TxnOp::put("txn/nested", "else", None)]);
    let txn = Txn::new()
        .when([
            Compare::value("txn/a", CompareOp::Equal, "1"),
            Compare::version("txn/a", CompareOp::Greater, 0),
            Compare::create_revision("txn/a", CompareOp::Equal, revision),
            Compare::mod_revision("txn/a", CompareOp::Less, revision + 1),
            Compare::lease("txn/a", CompareOp::NotEqual, 7),
            Compare::create_revision("txn/", CompareOp::Greater, 0).with_prefix(),
        ])
        .and_then([
            TxnOp::put("txn/a", "2", None),
            TxnOp::get("txn/a", None),
            TxnOp::delete("txn/none", None),
            TxnOp::txn(nested),
        ]);
    let answer = client.txn(txn).await.expect("carried out");
    assert!(answer.succeeded());
    let answers = answer.op_responses();
    let [
        TxnOpResponse::Put(_),
        TxnOpResponse::Get(read),
        TxnOpResponse::Delete(deleted),
        TxnOpResponse::Txn(nested),
    ] = &answers[..]
    else {
        panic!("{answers:?}");
    };
    assert_eq!(read.kvs()[0].value(), b"2");
    assert!(deleted.deleted() == 0 && nested.succeeded());
    let txn = Txn::new()
        .when([Compare::value("txn/a", CompareOp::Equal, "1")])
        .or_else([TxnOp::get("txn/nested", None)]);
    let answer = client.txn(txn).await.expect("carried out");
    assert!(!answer.succeeded());
    let twice = Txn::new().and_then([TxnOp::put("k", "", None), TxnOp::put("k", "", None)]);
    refused(client.txn(twice).await, "duplicate key given in txn request");
}

pub async fn compaction(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    client.put("compact", "1", None).await.expect("put");
    let put = client.put("compact", "2", None).await.expect("put");
    let revision = put.header().expect("a header").revision();
    let physical = CompactionOptions::new().with_physical();
    client.compact(revision, Some(physical)).await.expect("compacted");
    let past = GetOptions::new().with_revision(revision - 1);
    let compacted = "required revision has been compacted";
    refused(client.get("compact", Some(past)).await, compacted);
    refused(client.compact(revision - 1, None).await, compacted);
}

pub async fn namespace(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    let mut within = KvClientPrefix::new(client.kv_client(), "namespace/".into());
    within.put("a", "1", None).await.expect("put");
    assert_eq!(names(&within.get("a", None).await.expect("read")), ["a"]);
    assert_eq!(client.get("namespace/a", None).await.expect("read").count(), 1);
}
