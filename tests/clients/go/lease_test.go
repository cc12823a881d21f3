package clients

import (
	"context"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestLease(t *testing.T) {
	client, ctx := connect(t), limited(t)
	lease := must(client.Grant(ctx, 600))(t)
	equal(t, "the time", lease.TTL, 600)
	must(client.Put(ctx, "lease/a", "1", clientv3.WithLease(lease.ID)))(t)
	must(client.Put(ctx, "lease/b", "1", clientv3.WithLease(lease.ID)))(t)
	left := must(client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys()))(t)
	equal(t, "the granted time", left.GrantedTTL, 600)
	equal(t, "the time left", left.TTL > 0 && left.TTL <= 600, true)
	equal(t, "the keys", len(left.Keys), 2)
	found := false
	for _, each := range must(client.Leases(ctx))(t).Leases {
		found = found || each.ID == lease.ID
	}
	equal(t, "the lease in the list", found, true)
	equal(t, "the kept time", must(client.KeepAliveOnce(ctx, lease.ID))(t).TTL, 600)

	must(client.Revoke(ctx, lease.ID))(t)
	equal(t, "keys of a revoked lease", len(must(client.Get(ctx, "lease/", clientv3.WithPrefix()))(t).Kvs), 0)
	_, err := client.Revoke(ctx, lease.ID)
	fails(t, err, rpctypes.ErrLeaseNotFound)
	_, err = client.KeepAliveOnce(ctx, lease.ID)
	fails(t, err, rpctypes.ErrLeaseNotFound)
	equal(t, "the time of no lease", must(client.TimeToLive(ctx, lease.ID))(t).TTL, -1)
	_, err = client.Grant(ctx, 9_000_000_001)
	fails(t, err, rpctypes.ErrLeaseTTLTooLarge)
}

func TestLeaseKeptAliveAndExpired(t *testing.T) {
	client, ctx := connect(t), limited(t)
	kept := must(client.Grant(ctx, 2))(t).ID
	left := must(client.Grant(ctx, 2))(t).ID
	must(client.Put(ctx, "alive/kept", "1", clientv3.WithLease(kept)))(t)
	revision := must(client.Put(ctx, "alive/left", "1", clientv3.WithLease(left)))(t).Header.Revision
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	answers := must(client.KeepAlive(keeping, kept))(t)
	watch := client.Watch(ctx, "alive/left", clientv3.WithRev(revision+1))
	equal(t, "the end of a lease", events(t, watch, 1), "DELETE alive/left=; ")
	equal(t, "the keep-alive", (<-answers).TTL, 2)
	equal(t, "the kept key", len(must(client.Get(ctx, "alive/kept"))(t).Kvs), 1)
}
