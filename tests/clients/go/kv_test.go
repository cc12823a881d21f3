package clients

import (
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestPut(t *testing.T) {
	client, ctx := connect(t), limited(t)
	first := must(client.Put(ctx, "put/a", "1"))(t)
	second := must(client.Put(ctx, "put/a", "2", clientv3.WithPrevKV()))(t)
	equal(t, "the revision", second.Header.Revision, first.Header.Revision+1)
	equal(t, "the value before", string(second.PrevKv.Value), "1")
	equal(t, "the version before", second.PrevKv.Version, 1)

	lease := must(client.Grant(ctx, 300))(t).ID
	must(client.Put(ctx, "put/a", "3", clientv3.WithLease(lease)))(t)
	must(client.Put(ctx, "put/a", "4", clientv3.WithIgnoreLease()))(t)
	kv := must(client.Get(ctx, "put/a"))(t).Kvs[0]
	equal(t, "the kept lease", clientv3.LeaseID(kv.Lease), lease)
	must(client.Put(ctx, "put/a", "", clientv3.WithIgnoreValue()))(t)
	kv = must(client.Get(ctx, "put/a"))(t).Kvs[0]
	equal(t, "the kept value", string(kv.Value), "4")
	equal(t, "the lease", kv.Lease, 0)
	equal(t, "the version", kv.Version, 5)

	_, err := client.Put(ctx, "put/none", "", clientv3.WithIgnoreValue())
	fails(t, err, rpctypes.ErrKeyNotFound)
	_, err = client.Put(ctx, "put/a", "x", clientv3.WithLease(12345))
	fails(t, err, rpctypes.ErrLeaseNotFound)
	_, err = client.Put(ctx, "", "x")
	fails(t, err, rpctypes.ErrEmptyKey)
	_, err = client.Put(ctx, "put/large", strings.Repeat("x", 1_600_000))
	fails(t, err, rpctypes.ErrRequestTooLarge)
}

func TestGet(t *testing.T) {
	client, ctx := connect(t), limited(t)
	// Values in the opposite order of keys; the middle one is written twice.
	first := put(t, client, "get/a", "3", "get/b", "2", "get/c", "1", "get/b", "2")
	get := func(key string, options ...clientv3.OpOption) *clientv3.GetResponse {
		t.Helper()
		return must(client.Get(ctx, key, options...))(t)
	}
	prefix := clientv3.WithPrefix()
	equal(t, "a prefix", keys(get("get/", prefix)), "get/a get/b get/c ")
	equal(t, "a span", keys(get("get/a", clientv3.WithRange("get/c"))), "get/a get/b ")
	equal(t, "an open span", keys(get("get/b", clientv3.WithFromKey(), clientv3.WithLimit(2))), "get/b get/c ")
	limited := get("get/", prefix, clientv3.WithLimit(1))
	equal(t, "more", limited.More, true)
	equal(t, "the count behind a limit", limited.Count, 3)
	equal(t, "a past", string(get("get/b", clientv3.WithRev(first)).Header.String()) != "", true)
	equal(t, "keys of the past", keys(get("get/", prefix, clientv3.WithRev(first))), "get/a ")
	equal(t, "a serializable read", len(get("get/", prefix, clientv3.WithSerializable()).Kvs) <= 3, true)
	only := get("get/", prefix, clientv3.WithKeysOnly())
	equal(t, "keys only", keys(only)+string(only.Kvs[0].Value), "get/a get/b get/c ")
	counted := get("get/", prefix, clientv3.WithCountOnly())
	equal(t, "the count", counted.Count, 3)
	equal(t, "keys of a count", len(counted.Kvs), 0)
	equal(t, "a missing key", len(get("get/none").Kvs), 0)

	for _, sorted := range []struct {
		target clientv3.SortTarget
		want   string
	}{
		{clientv3.SortByKey, "get/a get/b get/c "},
		{clientv3.SortByValue, "get/c get/b get/a "},
		{clientv3.SortByVersion, "get/a get/c get/b "},
		{clientv3.SortByCreateRevision, "get/a get/b get/c "},
		{clientv3.SortByModRevision, "get/a get/c get/b "},
	} {
		ascending := get("get/", prefix, clientv3.WithSort(sorted.target, clientv3.SortAscend))
		equal(t, "an ascending order", keys(ascending), sorted.want)
		last := get("get/", prefix, clientv3.WithSort(sorted.target, clientv3.SortDescend), clientv3.WithLimit(1))
		equal(t, "the last", keys(last), sorted.want[len(sorted.want)-6:])
	}
	equal(t, "the first revision", keys(get("get/", clientv3.WithFirstRev()...)), "get/a ")
	equal(t, "the last revision", keys(get("get/", clientv3.WithLastRev()...)), "get/b ")
	equal(t, "the last creation", keys(get("get/", clientv3.WithLastCreate()...)), "get/c ")
	equal(t, "changed since", keys(get("get/", prefix, clientv3.WithMinModRev(first+2))), "get/b get/c ")
	equal(t, "changed until", keys(get("get/", prefix, clientv3.WithMaxModRev(first+2))), "get/a get/c ")
	equal(t, "created since", keys(get("get/", prefix, clientv3.WithMinCreateRev(first+1))), "get/b get/c ")
	equal(t, "created until", keys(get("get/", prefix, clientv3.WithMaxCreateRev(first+1))), "get/a get/b ")

	_, err := client.Get(ctx, "get/a", clientv3.WithRev(first+1_000_000))
	fails(t, err, rpctypes.ErrFutureRev)
}

func TestGetStream(t *testing.T) {
	client, ctx := connect(t), limited(t)
	value := strings.Repeat("x", 300_000)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		put(t, client, "stream/"+name, value)
	}
	stream := must(client.GetStream(ctx, "stream/", clientv3.WithPrefix()))(t)
	parts, seen := 0, ""
	for part := range stream {
		check(t, part.Err())
		parts++
		for _, kv := range part.RangeResponse.Kvs {
			equal(t, "a value's length", len(kv.Value), len(value))
			seen += string(kv.Key) + " "
		}
	}
	equal(t, "the streamed keys", seen, "stream/a stream/b stream/c stream/d stream/e ")
	equal(t, "several parts", parts > 1, true)
	whole := must(client.GetStream(ctx, "stream/", clientv3.WithPrefix(), clientv3.WithKeysOnly()))(t)
	answer := must(clientv3.GetStreamToGetResponse(whole))(t)
	equal(t, "the keys in one", len(answer.Kvs), 5)
	equal(t, "their count", answer.Count, 5)
}

func TestDelete(t *testing.T) {
	client, ctx := connect(t), limited(t)
	put(t, client, "delete/a", "1", "delete/b", "2", "delete/c", "3", "delete/d", "4")
	answer := must(client.Delete(ctx, "delete/a", clientv3.WithPrevKV()))(t)
	equal(t, "the deleted", answer.Deleted, 1)
	equal(t, "its value", string(answer.PrevKvs[0].Value), "1")
	equal(t, "a span", must(client.Delete(ctx, "delete/b", clientv3.WithRange("delete/c")))(t).Deleted, 1)
	before := must(client.Delete(ctx, "delete/", clientv3.WithPrefix()))(t)
	equal(t, "a prefix", before.Deleted, 2)
	nothing := must(client.Delete(ctx, "delete/", clientv3.WithPrefix()))(t)
	equal(t, "nothing", nothing.Deleted, 0)
	equal(t, "its revision", nothing.Header.Revision, before.Header.Revision)
}

func TestTxn(t *testing.T) {
	client, ctx := connect(t), limited(t)
	revision := put(t, client, "txn/a", "1")
	lease := must(client.Grant(ctx, 300))(t).ID
	must(client.Put(ctx, "txn/leased", "1", clientv3.WithLease(lease)))(t)
	answer := must(client.Txn(ctx).If(
		clientv3.Compare(clientv3.Value("txn/a"), "=", "1"),
		clientv3.Compare(clientv3.Value("txn/a"), ">", "0"),
		clientv3.Compare(clientv3.Version("txn/a"), "=", 1),
		clientv3.Compare(clientv3.CreateRevision("txn/a"), "=", revision),
		clientv3.Compare(clientv3.ModRevision("txn/a"), "<", revision+1),
		clientv3.Compare(clientv3.LeaseValue("txn/leased"), "=", lease),
		clientv3.Compare(clientv3.LeaseValue("txn/a"), "!=", lease),
		clientv3.Compare(clientv3.CreateRevision("txn/none"), "=", 0),
		clientv3.Compare(clientv3.CreateRevision("txn/").WithPrefix(), ">", 0),
	).Then(
		clientv3.OpPut("txn/a", "2", clientv3.WithPrevKV()),
		clientv3.OpGet("txn/a"),
		clientv3.OpDelete("txn/leased"),
		clientv3.OpTxn(
			// All comparisons are of what was there before.
			[]clientv3.Cmp{clientv3.Compare(clientv3.Value("txn/a"), "=", "1")},
			[]clientv3.Op{clientv3.OpPut("txn/nested", "then")},
			[]clientv3.Op{clientv3.OpPut("txn/nested", "else")},
		),
	).Else(clientv3.OpGet("txn/", clientv3.WithPrefix())).Commit())(t)
	equal(t, "success", answer.Succeeded, true)
	equal(t, "the value before", string(answer.Responses[0].GetResponsePut().PrevKv.Value), "1")
	equal(t, "the value within", string(answer.Responses[1].GetResponseRange().Kvs[0].Value), "2")
	equal(t, "the deleted", answer.Responses[2].GetResponseDeleteRange().Deleted, 1)
	equal(t, "the nested one", answer.Responses[3].GetResponseTxn().Succeeded, true)
	nested := must(client.Get(ctx, "txn/nested"))(t).Kvs[0]
	equal(t, "the nested value", string(nested.Value), "then")
	equal(t, "one revision", nested.ModRevision, answer.Header.Revision)

	refused := must(client.Txn(ctx).If(clientv3.Compare(clientv3.Version("txn/a"), "=", 0)).
		Then(clientv3.OpPut("txn/a", "x")).Else(clientv3.OpGet("txn/a")).Commit())(t)
	equal(t, "success", refused.Succeeded, false)
	equal(t, "the else", string(refused.Responses[0].GetResponseRange().Kvs[0].Value), "2")

	_, err := client.Txn(ctx).Then(clientv3.OpPut("txn/a", "1"), clientv3.OpPut("txn/a", "2")).Commit()
	fails(t, err, rpctypes.ErrDuplicateKey)
	many := make([]clientv3.Op, 129)
	for i := range many {
		many[i] = clientv3.OpGet("txn/a")
	}
	_, err = client.Txn(ctx).Then(many...).Commit()
	fails(t, err, rpctypes.ErrTooManyOps)

	done := must(client.Do(ctx, clientv3.OpPut("txn/do", "1")))(t)
	equal(t, "a put by Do", done.Put().Header.Revision > revision, true)
}

func TestCompact(t *testing.T) {
	client, ctx := connect(t), limited(t)
	first := put(t, client, "compact/a", "1", "compact/a", "2", "compact/a", "3")
	must(client.Compact(ctx, first+1, clientv3.WithCompactPhysical()))(t)
	_, err := client.Get(ctx, "compact/a", clientv3.WithRev(first))
	fails(t, err, rpctypes.ErrCompacted)
	kept := must(client.Get(ctx, "compact/a", clientv3.WithRev(first+1)))(t)
	equal(t, "what is kept", string(kept.Kvs[0].Value), "2")
	_, err = client.Compact(ctx, first)
	fails(t, err, rpctypes.ErrCompacted)
	_, err = client.Compact(ctx, first+1_000_000)
	fails(t, err, rpctypes.ErrFutureRev)

	watch := <-client.Watch(ctx, "compact/a", clientv3.WithRev(first))
	fails(t, watch.Err(), rpctypes.ErrCompacted)
	equal(t, "where history begins", watch.CompactRevision, first+1)
}
