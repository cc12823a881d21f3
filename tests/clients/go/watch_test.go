package clients

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Reads so many events, as text.
func events(t *testing.T, watch clientv3.WatchChan, count int) string {
	t.Helper()
	text := ""
	for seen := 0; seen < count; {
		answer, open := <-watch
		if !open {
			t.Fatalf("the watch ended after %q", text)
		}
		check(t, answer.Err())
		for _, event := range answer.Events {
			text += fmt.Sprintf("%s %s=%s", event.Type, event.Kv.Key, event.Kv.Value)
			if event.PrevKv != nil {
				text += fmt.Sprintf(" was %s", event.PrevKv.Value)
			}
			text += "; "
			seen++
		}
	}
	return text
}

func TestWatch(t *testing.T) {
	client, ctx := connect(t), limited(t)
	first := put(t, client, "watch/a", "1", "watch/b", "2", "watch/a", "3")
	must(client.Delete(ctx, "watch/a"))(t)
	prefix, since := clientv3.WithPrefix(), clientv3.WithRev(first)
	equal(t, "the history of a prefix", events(t, client.Watch(ctx, "watch/", prefix, since), 4),
		"PUT watch/a=1; PUT watch/b=2; PUT watch/a=3; DELETE watch/a=; ")
	equal(t, "the history of a key", events(t, client.Watch(ctx, "watch/b", since), 1), "PUT watch/b=2; ")
	equal(t, "versions before", events(t, client.Watch(ctx, "watch/", prefix, since, clientv3.WithPrevKV()), 4),
		"PUT watch/a=1; PUT watch/b=2; PUT watch/a=3 was 1; DELETE watch/a= was 3; ")
	equal(t, "deletions only", events(t, client.Watch(ctx, "watch/", prefix, since, clientv3.WithFilterPut()), 1),
		"DELETE watch/a=; ")
	equal(t, "puts only", events(t, client.Watch(ctx, "watch/", prefix, since, clientv3.WithFilterDelete()), 3),
		"PUT watch/a=1; PUT watch/b=2; PUT watch/a=3; ")

	live := client.Watch(ctx, "watch/live", clientv3.WithCreatedNotify())
	equal(t, "the creation", (<-live).Created, true)
	must(client.Txn(ctx).Then(clientv3.OpPut("watch/live", "x"), clientv3.OpPut("watch/live2", "x")).Commit())(t)
	equal(t, "a new event", events(t, live, 1), "PUT watch/live=x; ")
}

func TestWatchIsAtomicAndFragmented(t *testing.T) {
	client, ctx := connect(t), limited(t)
	whole := client.Watch(ctx, "atomic/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-whole
	operations := make([]clientv3.Op, 100)
	for i := range operations {
		operations[i] = clientv3.OpPut(fmt.Sprintf("atomic/%02d", i), strings.Repeat("x", 10_000))
	}
	// Several transactions, of which a watch for history is told at once.
	first := must(client.Txn(ctx).Then(operations...).Commit())(t).Header.Revision
	must(client.Txn(ctx).Then(operations...).Commit())(t)
	must(client.Txn(ctx).Then(operations...).Commit())(t)
	equal(t, "a revision in one answer", len((<-whole).Events), 100)
	fragments := client.Watch(ctx, "atomic/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithFragment())
	seen := 0
	for seen < 300 {
		answer := <-fragments
		check(t, answer.Err())
		seen += len(answer.Events)
	}
	equal(t, "the events", seen, 300)
}

func TestWatchProgress(t *testing.T) {
	// A node tells how far it is itself.
	client, ctx := connectWith(t, clientv3.Config{Endpoints: addresses()[:1]}), limited(t)
	watch := client.Watch(ctx, "progress/a", clientv3.WithCreatedNotify())
	<-watch
	revision := put(t, client, "progress/b", "1")
	must(client.Get(ctx, "progress/b"))(t)
	check(t, client.RequestProgress(ctx))
	answer := <-watch
	equal(t, "a progress", answer.IsProgressNotify(), true)
	equal(t, "its revision", answer.Header.Revision >= revision, true)
}

func TestWatchCancel(t *testing.T) {
	client := connect(t)
	ctx, cancel := context.WithCancel(limited(t))
	watch := client.Watch(ctx, "cancel/a", clientv3.WithCreatedNotify())
	<-watch
	other := client.Watch(limited(t), "cancel/a", clientv3.WithCreatedNotify())
	<-other
	cancel()
	for range watch {
	}
	put(t, client, "cancel/a", "1")
	answer := <-other
	equal(t, "the other watch's event", answer.Events[0].Type, mvccpb.PUT)
}
