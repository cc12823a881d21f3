package clients

import (
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/ordering"
)

func TestNamespace(t *testing.T) {
	client, ctx := connect(t), limited(t)
	within := connect(t)
	within.KV = namespace.NewKV(client.KV, "namespace/")
	within.Watcher = namespace.NewWatcher(client.Watcher, "namespace/")
	within.Lease = namespace.NewLease(client.Lease, "namespace/")
	lease := must(within.Grant(ctx, 300))(t).ID
	first := must(within.Put(ctx, "a", "1", clientv3.WithLease(lease)))(t).Header.Revision
	equal(t, "the key within", keys(must(within.Get(ctx, "", clientv3.WithFromKey()))(t)), "a ")
	equal(t, "the key outside", keys(must(client.Get(ctx, "namespace/", clientv3.WithPrefix()))(t)), "namespace/a ")
	equal(t, "the event", events(t, within.Watch(ctx, "a", clientv3.WithRev(first)), 1), "PUT a=1; ")
	left := must(within.TimeToLive(ctx, lease, clientv3.WithAttachedKeys()))(t)
	equal(t, "the lease's key", string(left.Keys[0]), "a")
	txn := must(within.Txn(ctx).If(clientv3.Compare(clientv3.Version("a"), "=", 1)).
		Then(clientv3.OpGet("a")).Commit())(t)
	equal(t, "the key of a transaction", string(txn.Responses[0].GetResponseRange().Kvs[0].Key), "a")
}

func TestOrdering(t *testing.T) {
	client, ctx := connect(t), limited(t)
	ordered := ordering.NewKV(client.KV, ordering.NewOrderViolationSwitchEndpointClosure(client))
	last := int64(0)
	for i := range 50 {
		put(t, client, "ordering", fmt.Sprint(i))
		answer := must(ordered.Get(ctx, "ordering", clientv3.WithSerializable()))(t)
		equal(t, "an order of revisions", answer.Header.Revision >= last, true)
		last = answer.Header.Revision
	}
}

func TestLeasing(t *testing.T) {
	ctx := limited(t)
	one, closeOne, err := leasing.NewKV(connect(t), "leasing/")
	check(t, err)
	defer closeOne()
	two, closeTwo, err := leasing.NewKV(connect(t), "leasing/")
	check(t, err)
	defer closeTwo()
	must(one.Put(ctx, "leased", "1"))(t)
	for range 3 {
		equal(t, "the first's view", string(must(one.Get(ctx, "leased"))(t).Kvs[0].Value), "1")
	}
	// The second has to take the key away from the first, which must hear of the change.
	must(two.Put(ctx, "leased", "2"))(t)
	equal(t, "the first's view", string(must(one.Get(ctx, "leased"))(t).Kvs[0].Value), "2")
	must(one.Txn(ctx).If(clientv3.Compare(clientv3.Value("leased"), "=", "2")).
		Then(clientv3.OpPut("leased", "3")).Commit())(t)
	equal(t, "the second's view", string(must(two.Get(ctx, "leased"))(t).Kvs[0].Value), "3")
	equal(t, "the deleted", must(two.Delete(ctx, "leased"))(t).Deleted, 1)
	equal(t, "the first's view", len(must(one.Get(ctx, "leased"))(t).Kvs), 0)
}

func TestMirror(t *testing.T) {
	client, ctx := connect(t), limited(t)
	operations := make([]clientv3.Op, 100)
	for part := range 12 {
		for i := range operations {
			operations[i] = clientv3.OpPut(fmt.Sprintf("mirror/%02d/%02d", part, i), "1")
		}
		must(client.Txn(ctx).Then(operations...).Commit())(t)
	}
	syncer := mirror.NewSyncer(client, "mirror/", 0)
	base, failed := syncer.SyncBase(ctx)
	count := 0
	for answer := range base {
		count += len(answer.Kvs)
	}
	check(t, <-failed)
	equal(t, "the keys at first", count, 1200)
	updates := syncer.SyncUpdates(ctx)
	put(t, client, "mirror/new", "1")
	equal(t, "an update", events(t, updates, 1), "PUT mirror/new=1; ")
}

func TestNaming(t *testing.T) {
	client, ctx := connect(t), limited(t)
	manager := must(endpoints.NewManager(client, "naming"))(t)
	watch := must(manager.NewWatchChannel(ctx))(t)
	check(t, manager.AddEndpoint(ctx, "naming/one", endpoints.Endpoint{Addr: "10.0.0.1:80"}))
	equal(t, "the added one", (<-watch)[0].Endpoint.Addr, "10.0.0.1:80")
	equal(t, "the list", must(manager.List(ctx))(t)["naming/one"].Addr, "10.0.0.1:80")
	check(t, manager.DeleteEndpoint(ctx, "naming/one"))
	equal(t, "the end", (<-watch)[0].Op, endpoints.Delete)
}

func TestKubernetes(t *testing.T) {
	ctx := limited(t)
	client := must(kubernetes.New(clientv3.Config{Endpoints: addresses()}))(t)
	defer client.Close()
	store := client.Kubernetes
	created := must(store.OptimisticPut(ctx, "k8s/a", []byte("1"), 0, kubernetes.PutOptions{}))(t)
	equal(t, "the creation", created.Succeeded, true)
	late := must(store.OptimisticPut(ctx, "k8s/a", []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true}))(t)
	equal(t, "a late creation", late.Succeeded, false)
	equal(t, "what is there", string(late.KV.Value), "1")
	changed := must(store.OptimisticPut(ctx, "k8s/a", []byte("2"), created.Revision, kubernetes.PutOptions{}))(t)
	equal(t, "the change", changed.Succeeded, true)
	past := must(store.Get(ctx, "k8s/a", kubernetes.GetOptions{Revision: created.Revision}))(t)
	equal(t, "the past", string(past.KV.Value), "1")
	must(store.OptimisticPut(ctx, "k8s/b", []byte("1"), 0, kubernetes.PutOptions{}))(t)
	page := must(store.List(ctx, "k8s/", kubernetes.ListOptions{Limit: 1}))(t)
	equal(t, "the page", string(page.Kvs[0].Key), "k8s/a")
	rest := must(store.List(ctx, "k8s/", kubernetes.ListOptions{Revision: page.Revision, Continue: "k8s/a\x00"}))(t)
	equal(t, "the rest", string(rest.Kvs[0].Key), "k8s/b")
	equal(t, "the count", must(store.Count(ctx, "k8s/", kubernetes.CountOptions{}))(t), 2)
	gone := must(store.OptimisticDelete(ctx, "k8s/a", changed.Revision, kubernetes.DeleteOptions{}))(t)
	equal(t, "the deletion", gone.Succeeded, true)
}
