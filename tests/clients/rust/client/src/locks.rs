//! The lock and the election service.

use etcd_client::{LockOptions, ProclaimOptions, ResignOptions};

use crate::{Cluster, refused};

pub async fn lock(cluster: &Cluster) {
    let (mut first, mut second) = (cluster.connect_to(0).await, cluster.connect_to(1).await);
    let held = first.lock("lock", None).await.expect("the lock is free");
    let lease = second.lease_grant(60, None).await.expect("granted").id();
    let options = LockOptions::new().with_lease(lease);
    let mut lock_client = second.lock_client();
    let waiting = tokio::spawn(async move { lock_client.lock("lock", Some(options)).await });
    // The second one waits behind the first one's key.
    let prefix = etcd_client::GetOptions::new().with_prefix().with_count_only();
    while second.get("lock/", Some(prefix.clone())).await.expect("read").count() < 2 {}
    assert!(!waiting.is_finished());
    first.unlock(held.key()).await.expect("unlocked");
    let held = waiting.await.expect("it ends").expect("the lock is free now");
    second.unlock(held.key()).await.expect("unlocked");
}

pub async fn election(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    refused(client.leader("election").await, "election: no leader");
    let lease = client.lease_grant(60, None).await.expect("granted").id();
    let elected = client.campaign("election", "one", lease).await.expect("elected");
    let key = elected.leader().expect("a leader").clone();
    let mut observed = client.observe("election").await.expect("a stream");
    let first = observed.message().await.expect("no error").expect("a leader");
    assert_eq!(first.kv().expect("its key").value(), b"one");
    let options = ProclaimOptions::new().with_leader(key.clone());
    client.proclaim("two", Some(options)).await.expect("proclaimed");
    let next = observed.message().await.expect("no error").expect("a leader");
    assert_eq!(next.kv().expect("its key").value(), b"two");
    let leader = client.leader("election").await.expect("there is one");
    assert_eq!(leader.kv().expect("its key").key(), key.key());
    let options = ResignOptions::new().with_leader(key);
    client.resign(Some(options)).await.expect("resigned");
    refused(client.leader("election").await, "election: no leader");
}
