package clients

import (
	"context"
	"strconv"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

func session(t *testing.T, client *clientv3.Client) *concurrency.Session {
	t.Helper()
	session := must(concurrency.NewSession(client, concurrency.WithTTL(10)))(t)
	t.Cleanup(func() { session.Close() })
	return session
}

func TestMutex(t *testing.T) {
	ctx := limited(t)
	first, second := session(t, connect(t)), session(t, connect(t))
	held := concurrency.NewMutex(first, "mutex")
	waiting := concurrency.NewMutex(second, "mutex")
	check(t, held.Lock(ctx))
	fails(t, waiting.TryLock(ctx), concurrency.ErrLocked)
	owned := must(first.Client().Txn(ctx).If(held.IsOwner()).Then(clientv3.OpPut("mutex-owned", "1")).Commit())(t)
	equal(t, "the ownership", owned.Succeeded, true)
	acquired := make(chan error)
	go func() { acquired <- waiting.Lock(ctx) }()
	// The second one waits behind the first one's key.
	prefix := clientv3.WithPrefix()
	for len(must(first.Client().Get(ctx, "mutex/", prefix))(t).Kvs) < 2 {
	}
	check(t, held.Unlock(ctx))
	check(t, <-acquired)
	check(t, waiting.Unlock(ctx))

	// A session that ends lets go.
	dying := must(concurrency.NewSession(first.Client(), concurrency.WithTTL(10)))(t)
	check(t, concurrency.NewMutex(dying, "mutex").Lock(ctx))
	check(t, dying.Close())
	check(t, held.Lock(ctx))
	check(t, held.Unlock(ctx))
}

func TestElection(t *testing.T) {
	ctx := limited(t)
	first, second := session(t, connect(t)), session(t, connect(t))
	one, two := concurrency.NewElection(first, "election"), concurrency.NewElection(second, "election")
	_, err := one.Leader(ctx)
	fails(t, err, concurrency.ErrElectionNoLeader)
	observing, stop := context.WithCancel(ctx)
	defer stop()
	observed := two.Observe(observing)
	check(t, one.Campaign(ctx, "one"))
	equal(t, "the leader", string((<-observed).Kvs[0].Value), "one")
	check(t, one.Proclaim(ctx, "one again"))
	equal(t, "the proclaimed", string((<-observed).Kvs[0].Value), "one again")
	equal(t, "the asked leader", string(must(two.Leader(ctx))(t).Kvs[0].Value), "one again")
	resumed := concurrency.ResumeElection(first, "election", one.Key(), one.Rev())
	elected := make(chan error)
	go func() { elected <- two.Campaign(ctx, "two") }()
	check(t, resumed.Resign(ctx))
	check(t, <-elected)
	equal(t, "the next leader", string((<-observed).Kvs[0].Value), "two")
	check(t, two.Resign(ctx))
}

func TestSoftwareTransactionalMemory(t *testing.T) {
	client, ctx := connect(t), limited(t)
	put(t, client, "stm/a", "100", "stm/b", "100")
	transfer := func(stm concurrency.STM) error {
		// The weaker levels read a replica that may lag and not have the key yet; such a
		// transaction is refused at its commit and tried again.
		a, _ := strconv.Atoi(stm.Get("stm/a"))
		b, _ := strconv.Atoi(stm.Get("stm/b"))
		stm.Put("stm/a", strconv.Itoa(a-1))
		stm.Put("stm/b", strconv.Itoa(b+1))
		return nil
	}
	levels := []concurrency.Isolation{
		concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads,
	}
	var group sync.WaitGroup
	for _, level := range levels {
		other := connect(t)
		group.Add(1)
		go func() {
			defer group.Done()
			for range 10 {
				_, err := concurrency.NewSTM(other, transfer, concurrency.WithIsolation(level),
					concurrency.WithAbortContext(ctx), concurrency.WithPrefetch("stm/a", "stm/b"))
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	group.Wait()
	equal(t, "the first account", string(must(client.Get(ctx, "stm/a"))(t).Kvs[0].Value), "70")
	equal(t, "the second account", string(must(client.Get(ctx, "stm/b"))(t).Kvs[0].Value), "130")
	must(concurrency.NewSTM(client, func(stm concurrency.STM) error {
		equal(t, "a revision", stm.Rev("stm/a") > 0, true)
		stm.Del("stm/a")
		return nil
	}, concurrency.WithIsolation(concurrency.ReadCommitted)))(t)
	equal(t, "a deleted account", len(must(client.Get(ctx, "stm/a"))(t).Kvs), 0)
}

func TestRecipes(t *testing.T) {
	client := connect(t)
	queue := recipe.NewQueue(client, "recipe/queue")
	check(t, queue.Enqueue("first"))
	check(t, queue.Enqueue("second"))
	equal(t, "the queue's head", must(queue.Dequeue())(t), "first")
	priorities := recipe.NewPriorityQueue(client, "recipe/priorities")
	check(t, priorities.Enqueue("later", 9))
	check(t, priorities.Enqueue("sooner", 1))
	equal(t, "the most urgent", must(priorities.Dequeue())(t), "sooner")

	barrier := recipe.NewBarrier(client, "recipe/barrier")
	check(t, barrier.Hold())
	passed := make(chan error)
	go func() { passed <- recipe.NewBarrier(client, "recipe/barrier").Wait() }()
	check(t, barrier.Release())
	check(t, <-passed)

	both := make(chan error)
	for range 2 {
		double := recipe.NewDoubleBarrier(session(t, connect(t)), "recipe/double", 2)
		go func() { both <- double.Enter() }()
	}
	check(t, <-both)
	check(t, <-both)

	lock := recipe.NewRWMutex(session(t, client), "recipe/rw")
	check(t, lock.RLock())
	check(t, lock.RUnlock())
	check(t, lock.Lock())
	check(t, lock.Unlock())
}
