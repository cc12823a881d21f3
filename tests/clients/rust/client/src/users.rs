//! Users, roles and permissions.

use etcd_client::{
    Client, ConnectOptions, GetOptions, Permission, RoleRevokePermissionOptions, UserAddOptions,
};

use crate::{Cluster, refused};

pub async fn users(cluster: &Cluster) {
    let mut client = cluster.connect().await;
    for name in ["root", "carol"] {
        client.user_add(name, name, None).await.expect("added");
        client.role_add(name).await.expect("added");
        client.user_grant_role(name, name).await.expect("granted");
    }
    let no_password = UserAddOptions::new().with_no_pwd();
    client.user_add("token-only", "", Some(no_password)).await.expect("added");
    let permission = Permission::read_write("users/").with_prefix();
    client.role_grant_permission("carol", permission).await.expect("granted");
    client.role_grant_permission("carol", Permission::read("public")).await.expect("granted");
    assert_eq!(client.user_list().await.expect("listed").users().len(), 3);
    assert_eq!(client.role_list().await.expect("listed").roles().len(), 2);
    assert_eq!(client.user_get("carol").await.expect("told").roles(), ["carol"]);
    assert_eq!(client.role_get("carol").await.expect("told").permissions().len(), 2);
    refused(client.user_add("carol", "x", None).await, "user name already exists");
    client.auth_enable().await.expect("enabled");
    refused(client.put("users/a", "1", None).await, "user name is empty");

    let log_in = |name: &str, password: &str| {
        let options = ConnectOptions::new().with_user(name, password);
        cluster.connect_with(Some(options))
    };
    refused(log_in("carol", "wrong").await, "authentication failed");
    let mut root = log_in("root", "root").await.expect("logged in");
    let mut carol = log_in("carol", "carol").await.expect("logged in");
    permissions(&mut root, &mut carol).await;
    root.user_change_password("carol", "new").await.expect("changed");
    refused(carol.get("users/a", None).await, "invalid auth token");
    log_in("carol", "new").await.expect("logged in");

    root.user_revoke_role("carol", "carol").await.expect("revoked");
    root.auth_disable().await.expect("disabled");
    for name in ["root", "carol", "token-only"] {
        client.user_delete(name).await.expect("deleted");
    }
    for name in ["root", "carol"] {
        client.role_delete(name).await.expect("deleted");
    }
}

async fn permissions(root: &mut Client, carol: &mut Client) {
    carol.put("users/a", "1", None).await.expect("permitted");
    let prefix = GetOptions::new().with_prefix();
    carol.get("users/", Some(prefix.clone())).await.expect("permitted");
    carol.get("public", None).await.expect("permitted");
    let denied = "permission denied";
    refused(carol.put("public", "1", None).await, denied);
    refused(carol.get("", Some(prefix)).await, denied);
    refused(carol.user_list().await, denied);
    let none = Some(RoleRevokePermissionOptions::new());
    root.role_revoke_permission("carol", "public", none).await.expect("revoked");
    refused(carol.get("public", None).await, denied);
}
