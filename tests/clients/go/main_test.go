// Package clients drives Onefold with etcd's official Go client. See ../README.md.
package clients

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// How long anything may take before a test gives up. Never a measure of speed.
const patience = 60 * time.Second

var (
	onefold = flag.String("onefold", "", "the program onefold")
	dataDir = flag.String("data-dir", "", "the data folder of a running `onefold dev`")
)

// A node of the cluster, as dev.json lists it.
type node struct {
	ID   uint64 `json:"id"`
	Etcd string `json:"etcd"`
}

var nodes []node

func TestMain(m *testing.M) {
	flag.Parse()
	if err := errors.Join(readNodes(), empty()); err != nil {
		fmt.Fprintln(os.Stderr, "no cluster:", err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// Deletes what an earlier run left.
func empty() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{Endpoints: addresses(), Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Delete(ctx, "", clientv3.WithPrefix())
	return err
}

func readNodes() error {
	text, err := os.ReadFile(filepath.Join(*dataDir, "dev.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &nodes); err != nil {
		return err
	}
	if len(nodes) < 3 {
		return fmt.Errorf("three nodes are needed, there are %d", len(nodes))
	}
	return nil
}

// Does something to a node: kill (with SIGKILL) or start.
func act(t *testing.T, action string, id uint64) {
	t.Helper()
	command := exec.Command(*onefold, "dev", "node", action, fmt.Sprint(id), "--data-dir", *dataDir)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s node %d: %v: %s", action, id, err, output)
	}
}

func addresses() []string {
	all := make([]string, 0, len(nodes))
	for _, node := range nodes {
		all = append(all, node.Etcd)
	}
	return all
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func connectWith(t *testing.T, config clientv3.Config) *clientv3.Client {
	t.Helper()
	config.DialTimeout = 10 * time.Second
	config.Logger = zap.NewNop()
	client, err := clientv3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func connect(t *testing.T) *clientv3.Client {
	t.Helper()
	return connectWith(t, clientv3.Config{Endpoints: addresses()})
}

// Gives back what a call answers, which must not fail.
func must[T any](answer T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v instead of %v", what, got, want)
	}
}

func fails(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v instead of %v", err, want)
	}
}

// The keys of an answer, one behind the other.
func keys(answer *clientv3.GetResponse) string {
	text := ""
	for _, kv := range answer.Kvs {
		text += string(kv.Key) + " "
	}
	return text
}

// Puts keys, each in a revision of its own, and gives the first revision.
func put(t *testing.T, client *clientv3.Client, pairs ...string) int64 {
	t.Helper()
	first := int64(0)
	for i := 0; i < len(pairs); i += 2 {
		answer := must(client.Put(limited(t), pairs[i], pairs[i+1]))(t)
		if i == 0 {
			first = answer.Header.Revision
		}
	}
	return first
}
