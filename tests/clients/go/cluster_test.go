package clients

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestMembers(t *testing.T) {
	client, ctx := connect(t), limited(t)
	members := must(client.MemberList(ctx))(t).Members
	equal(t, "the members", len(members), 3)
	for _, member := range members {
		equal(t, "its URLs", len(member.ClientURLs) == 1 && len(member.PeerURLs) == 1 && member.Name != "", true)
		equal(t, "a learner", member.IsLearner, false)
	}
	_, err := client.MemberAdd(ctx, members[0].PeerURLs)
	fails(t, err, rpctypes.ErrPeerURLExist)
	for _, refused := range []func(uint64) error{
		func(id uint64) error { _, err := client.MemberRemove(ctx, id); return err },
		func(id uint64) error { _, err := client.MemberPromote(ctx, id); return err },
		func(id uint64) error {
			_, err := client.MemberUpdate(ctx, id, []string{"http://127.0.0.1:1"})
			return err
		},
	} {
		fails(t, refused(4711), rpctypes.ErrMemberNotFound)
	}
	_, err = client.MemberPromote(ctx, members[0].ID)
	fails(t, err, rpctypes.ErrMemberNotLearner)

	added := must(client.MemberAddAsLearner(ctx, []string{"http://" + unusedAddress(t)}))(t)
	equal(t, "the members and the new one", len(added.Members), 4)
	equal(t, "a learner", added.Member.IsLearner, true)
	_, err = client.MemberPromote(ctx, added.Member.ID)
	fails(t, err, rpctypes.ErrMemberLearnerNotReady)
	removed := must(client.MemberRemove(ctx, added.Member.ID))(t)
	equal(t, "the members without it", len(removed.Members), 3)
}

// An address beside the cluster's own that nobody listens at.
func unusedAddress(t *testing.T) string {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer listener.Close()
	return listener.Addr().String()
}

func TestEndpointsAreFoundFromTheMembers(t *testing.T) {
	client, ctx := connectWith(t, clientv3.Config{Endpoints: addresses()[:1]}), limited(t)
	check(t, client.Sync(ctx))
	equal(t, "the endpoints", len(client.Endpoints()), 3)
	put(t, client, "sync", "1")
}

func TestRequireLeader(t *testing.T) {
	client, ctx := connect(t), clientv3.WithRequireLeader(limited(t))
	put(t, client, "leader", "1")
	must(client.Get(ctx, "leader"))(t)
	watch := client.Watch(ctx, "leader", clientv3.WithCreatedNotify())
	equal(t, "the creation", (<-watch).Created, true)
}

// The node that a client uses is killed, one after the other, while the client writes, keeps a
// lease alive and watches. Nothing that was acknowledged is lost, and no event is told twice.
func TestFailover(t *testing.T) {
	client, ctx := connect(t), limited(t)
	lease := must(client.Grant(ctx, 60))(t).ID
	kept := must(client.KeepAlive(ctx, lease))(t)
	must(client.Put(ctx, "failover-lease", "1", clientv3.WithLease(lease)))(t)
	watch := client.Watch(ctx, "failover/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	written := 0
	write := func(count int) {
		t.Helper()
		for range count {
			key := fmt.Sprintf("failover/%04d", written)
			// A put is not repeated by the library when it may have been carried out.
			for {
				if _, err := client.Put(ctx, key, strconv.Itoa(written)); err == nil {
					break
				}
				check(t, ctx.Err())
			}
			written++
		}
	}
	write(20)
	for _, node := range nodes {
		act(t, "kill", node.ID)
		write(20)
		act(t, "start", node.ID)
		write(20)
	}
	equal(t, "the keys", must(client.Get(ctx, "failover/", clientv3.WithPrefix(), clientv3.WithCountOnly()))(t).Count, int64(written))
	last, seen := int64(0), map[string]bool{}
	for len(seen) < written {
		answer := <-watch
		check(t, answer.Err())
		for _, event := range answer.Events {
			equal(t, "an order of events", event.Kv.ModRevision > last, true)
			last = event.Kv.ModRevision
			seen[string(event.Kv.Key)] = true
		}
	}
	equal(t, "the leased key", len(must(client.Get(ctx, "failover-lease"))(t).Kvs), 1)
	for range len(kept) {
		<-kept
	}
	equal(t, "the lease", must(client.KeepAliveOnce(ctx, lease))(t).TTL, 60)
}
