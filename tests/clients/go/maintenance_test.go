package clients

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
)

func TestMaintenance(t *testing.T) {
	client, ctx := connect(t), limited(t)
	revision := put(t, client, "maintenance", "1")
	hashes := map[uint32]bool{}
	leader := uint64(0)
	for _, endpoint := range addresses() {
		// A linearizable read, so that the node has what was written.
		single := connectWith(t, clientv3.Config{Endpoints: []string{endpoint}})
		must(single.Get(ctx, "maintenance"))(t)
		status := must(client.Status(ctx, endpoint))(t)
		equal(t, "a version", status.Version != "", true)
		equal(t, "a size", status.DbSize > 0 && status.DbSizeInUse > 0, true)
		equal(t, "a raft index", status.RaftIndex >= status.RaftAppliedIndex && status.RaftAppliedIndex > 0, true)
		equal(t, "errors", len(status.Errors), 0)
		leader = status.Leader
		hash := must(client.HashKV(ctx, endpoint, revision))(t)
		hashes[hash.Hash] = true
		must(client.Defragment(ctx, endpoint))(t)
	}
	equal(t, "the number of hashes", len(hashes), 1)
	equal(t, "alarms", len(must(client.AlarmList(ctx))(t).Alarms), 0)
	must(client.AlarmDisarm(ctx, &clientv3.AlarmMember{}))(t)
	_, err := client.Downgrade(ctx, clientv3.DowngradeValidate, "1.0")
	fails(t, err, rpctypes.ErrInvalidDowngradeTargetVersion)

	// The leader is asked to hand over to another member, and others refuse.
	members := must(client.MemberList(ctx))(t).Members
	for _, member := range members {
		if member.ID == leader {
			continue
		}
		for _, asked := range members {
			single := connectWith(t, clientv3.Config{Endpoints: asked.ClientURLs})
			_, err := single.MoveLeader(ctx, member.ID)
			if asked.ID == leader {
				check(t, err)
			} else {
				equal(t, "a refusal", err != nil, true)
			}
		}
		break
	}
}

func TestSnapshot(t *testing.T) {
	client, ctx := connect(t), limited(t)
	put(t, client, "snapshot", "1")
	answer := must(client.SnapshotWithVersion(ctx))(t)
	bytes := must(io.ReadAll(answer.Snapshot))(t)
	check(t, answer.Snapshot.Close())
	body, sum := bytes[:len(bytes)-sha256.Size], bytes[len(bytes)-sha256.Size:]
	want := sha256.Sum256(body)
	equal(t, "the digest", string(sum), string(want[:]))
	equal(t, "a whole number of pages", len(body)%512, 0)

	file := filepath.Join(t.TempDir(), "snapshot.db")
	config := clientv3.Config{Endpoints: addresses()[:1]}
	must(snapshot.SaveWithVersion(ctx, zap.NewNop(), config, file))(t)
	equal(t, "a file", must(os.Stat(file))(t).Size() > 0, true)
}
