package clients

import (
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func TestAuth(t *testing.T) {
	client, ctx := connect(t), limited(t)
	equal(t, "auth before", must(client.AuthStatus(ctx))(t).Enabled, false)
	_, err := client.AuthEnable(ctx)
	fails(t, err, rpctypes.ErrRootUserNotExist)
	must(client.UserAdd(ctx, "root", "root's"))(t)
	must(client.RoleAdd(ctx, "root"))(t)
	must(client.UserGrantRole(ctx, "root", "root"))(t)
	must(client.UserAdd(ctx, "alice", "alice's"))(t)
	must(client.UserAddWithOptions(ctx, "token-only", "", &clientv3.UserAddOptions{NoPassword: true}))(t)
	_, err = client.UserAdd(ctx, "alice", "again")
	fails(t, err, rpctypes.ErrUserAlreadyExist)
	must(client.RoleAdd(ctx, "staff"))(t)
	_, err = client.RoleAdd(ctx, "staff")
	fails(t, err, rpctypes.ErrRoleAlreadyExist)
	readWrite, read := clientv3.PermissionType(clientv3.PermReadWrite), clientv3.PermissionType(clientv3.PermRead)
	must(client.RoleGrantPermission(ctx, "staff", "auth/", clientv3.GetPrefixRangeEnd("auth/"), readWrite))(t)
	must(client.RoleGrantPermission(ctx, "staff", "public", "", read))(t)
	_, err = client.UserGrantRole(ctx, "alice", "none")
	fails(t, err, rpctypes.ErrRoleNotFound)
	must(client.UserGrantRole(ctx, "alice", "staff"))(t)
	equal(t, "alice's role", must(client.UserGet(ctx, "alice"))(t).Roles[0], "staff")
	equal(t, "the users", len(must(client.UserList(ctx))(t).Users), 3)
	equal(t, "the roles", len(must(client.RoleList(ctx))(t).Roles), 2)
	equal(t, "the permissions", len(must(client.RoleGet(ctx, "staff"))(t).Perm), 2)
	must(client.AuthEnable(ctx))(t)

	root := connectWith(t, clientv3.Config{Endpoints: addresses(), Username: "root", Password: "root's"})
	// Whatever happens, the tests behind this one find the cluster open.
	t.Cleanup(func() {
		if _, err := root.AuthDisable(limited(t)); err != nil {
			t.Error(err)
		}
		for _, user := range []string{"root", "alice", "token-only"} {
			_, _ = client.UserDelete(limited(t), user)
		}
		for _, role := range []string{"root", "staff"} {
			_, _ = client.RoleDelete(limited(t), role)
		}
	})
	must(root.Put(ctx, "public", "1"))(t)
	_, err = client.Get(ctx, "public")
	fails(t, err, rpctypes.ErrUserEmpty)
	wrong := clientv3.Config{Endpoints: addresses(), Username: "alice", Password: "wrong", Logger: zap.NewNop()}
	_, err = clientv3.New(wrong)
	fails(t, err, rpctypes.ErrAuthFailed)

	alice := connectWith(t, clientv3.Config{Endpoints: addresses(), Username: "alice", Password: "alice's"})
	must(alice.Put(ctx, "auth/a", "1"))(t)
	equal(t, "a read", len(must(alice.Get(ctx, "auth/", clientv3.WithPrefix()))(t).Kvs), 1)
	equal(t, "a permitted key", len(must(alice.Get(ctx, "public"))(t).Kvs), 1)
	_, err = alice.Put(ctx, "public", "2")
	fails(t, err, rpctypes.ErrPermissionDenied)
	_, err = alice.Get(ctx, "", clientv3.WithPrefix())
	fails(t, err, rpctypes.ErrPermissionDenied)
	_, err = alice.UserList(ctx)
	fails(t, err, rpctypes.ErrPermissionDenied)
	denied := <-alice.Watch(ctx, "secret")
	equal(t, "a watch without permission", denied.Canceled, true)
	must(alice.Txn(ctx).Then(clientv3.OpPut("auth/b", "1")).Else(clientv3.OpGet("public")).Commit())(t)

	// The client logs in again by itself when its token ends with the password.
	must(root.UserChangePassword(ctx, "alice", "new"))(t)
	_, err = alice.Get(ctx, "public")
	equal(t, "a void password", err != nil, true)
	again := connectWith(t, clientv3.Config{Endpoints: addresses(), Username: "alice", Password: "new"})
	equal(t, "a permitted key", len(must(again.Get(ctx, "public"))(t).Kvs), 1)
	must(root.RoleRevokePermission(ctx, "staff", "public", ""))(t)
	_, err = again.Get(ctx, "public")
	fails(t, err, rpctypes.ErrPermissionDenied)
	must(root.UserRevokeRole(ctx, "alice", "staff"))(t)
	_, err = again.Get(ctx, "auth/a")
	fails(t, err, rpctypes.ErrPermissionDenied)
	must(root.RoleDelete(ctx, "staff"))(t)
	must(root.UserDelete(ctx, "alice"))(t)
}
