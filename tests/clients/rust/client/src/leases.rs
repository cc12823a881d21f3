//! Leases.

use etcd_client::{LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions};

use crate::{Cluster, refused};

pub async fn life(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    let wished = LeaseGrantOptions::new().with_id(77_003);
    let lease = client.lease_grant(300, Some(wished.clone())).await.expect("granted");
    assert_eq!((lease.id(), lease.ttl()), (77_003, 300));
    refused(client.lease_grant(300, Some(wished)).await, "lease already exists");
    let options = PutOptions::new().with_lease(lease.id());
    client.put("lease/a", "1", Some(options)).await.expect("put");
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(lease.id(), Some(options)).await.expect("told");
    assert_eq!((left.granted_ttl(), left.keys()), (300, [b"lease/a".to_vec()].as_slice()));
    assert!(left.ttl() > 0 && left.ttl() <= 300);
    let leases = client.leases().await.expect("listed");
    assert!(leases.leases().iter().any(|each| each.id() == lease.id()));
    let (mut keeper, mut kept) = client.lease_keep_alive(lease.id()).await.expect("a stream");
    for _ in 0..3 {
        keeper.keep_alive().await.expect("sent");
        let answer = kept.message().await.expect("no error").expect("an answer");
        assert_eq!((answer.id(), answer.ttl()), (lease.id(), 300));
    }
    client.lease_revoke(lease.id()).await.expect("revoked");
    assert_eq!(client.get("lease/a", None).await.expect("read").count(), 0);
    refused(client.lease_revoke(lease.id()).await, "requested lease not found");
    keeper.keep_alive().await.expect("sent");
    let answer = kept.message().await.expect("no error").expect("an answer");
    assert_eq!(answer.ttl(), 0, "an unknown lease has no time");
}
