//! What operators ask, and what happens when nodes die.

use etcd_client::{
    AlarmAction, AlarmType, DowngradeOptions, Error, GetOptions, MemberAddOptions, WatchOptions,
};

use crate::{Cluster, PATIENCE, refused};

pub async fn maintenance(cluster: &Cluster) {
    let mut hashes = Vec::new();
    for index in 0..3 {
        let mut client = cluster.connect_to(index).await;
        client.get("a linearizable read", None).await.expect("read");
        let status = client.status().await.expect("told");
        assert!(!status.version().is_empty() && status.db_size() > 0 && status.leader() > 0);
        assert!(status.errors().is_empty() && status.raft_applied_index() > 0);
        client.defragment().await.expect("harmless");
        assert_ne!(client.hash().await.expect("told").hash(), 0);
        let revision = status.header().expect("a header").revision();
        hashes.push(client.hash_kv(revision).await.expect("told").hash());
        let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("told");
        assert!(alarms.alarms().is_empty());
        let mut snapshot = client.snapshot().await.expect("a stream");
        let (mut bytes, mut remaining) = (0, 1);
        while let Some(part) = snapshot.message().await.expect("a part") {
            bytes += part.blob().len();
            remaining = part.remaining_bytes();
        }
        assert!(bytes > 0 && remaining == 0, "{bytes} bytes, {remaining} remain");
        let mut maintenance = client.maintenance_client();
        let unknown = DowngradeOptions::Validate("1.0".to_owned());
        refused(maintenance.downgrade(unknown).await, "invalid downgrade target version");
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

pub async fn members(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    let listed = client.member_list().await.expect("listed");
    assert_eq!(listed.members().len(), 3);
    let one = &listed.members()[0];
    assert!(!one.client_urls().is_empty() && !one.is_learner());
    refused(client.member_add(one.peer_urls(), None).await, "Peer URLs already exists");
    refused(client.member_remove(4711).await, "member not found");
    refused(client.member_promote(one.id()).await, "can only promote a learner member");
    refused(client.member_update(4711, ["http://127.0.0.1:1".to_owned()]).await, "member not found");
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", unused.local_addr().expect("its address"));
    let options = MemberAddOptions::new().with_is_learner();
    let added = client.member_add([url], Some(options)).await.expect("added");
    let member = added.member().expect("the new one");
    assert!(member.is_learner() && added.member_list().len() == 4);
    let left = client.member_remove(member.id()).await.expect("removed");
    assert_eq!(left.members().len(), 3);

    // Only the leader hands over.
    let leader = client.status().await.expect("told").leader();
    let other = cluster.nodes.iter().find(|node| node.id != leader).expect("three nodes").id;
    let index = cluster.nodes.iter().position(|node| node.id == leader).expect("it is listed");
    cluster.connect_to(index).await.move_leader(other).await.expect("handed over");
}

/// The nodes that the client knows are killed one after the other while it writes and watches.
pub async fn failover(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    let mut written = 0;
    let mut first = 0;
    for node in &cluster.nodes {
        for number in 0..40 {
            if number == 10 {
                cluster.act("kill", node.id);
            }
            if number == 30 {
                cluster.act("start", node.id);
            }
            let key = format!("failover/{written:04}");
            // The library does not repeat a call that broke.
            let put = loop {
                match client.put(key.as_str(), "", None).await {
                    Ok(put) => break put,
                    Err(Error::GRpcStatus(_) | Error::TransportError(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            let revision = put.header().expect("a header").revision();
            first = if first == 0 { revision } else { first };
            written += 1;
        }
    }
    let prefix = GetOptions::new().with_prefix().with_count_only();
    assert_eq!(client.get("failover/", Some(prefix)).await.expect("read").count(), written);
    let options = WatchOptions::new().with_prefix().with_start_revision(first);
    let mut watch = client.watch("failover/", Some(options)).await.expect("a watch");
    let mut seen = std::collections::BTreeSet::new();
    while i64::try_from(seen.len()).expect("few") < written {
        let answer = tokio::time::timeout(PATIENCE, watch.message()).await.expect("it goes on");
        let answer = answer.expect("no error").expect("it goes on");
        seen.extend(answer.events().iter().map(|event| event.kv().expect("a key").key().to_vec()));
    }
}
