//! A session of etcd's own command-line program, where it is installed.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::fixture::{LONG, Node};

struct Etcdctl {
    address: SocketAddr,
}

impl Etcdctl {
    /// The program, if this machine has it.
    async fn find(address: SocketAddr) -> Option<Self> {
        let version = Command::new("etcdctl").arg("version").env("ETCDCTL_API", "3").output().await;
        if !version.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: etcdctl is not installed (Debian: etcd-client)");
            return None;
        }
        Some(Self { address })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.address))
            // Logging in has the time to connect, which is short on a busy machine.
            .args(["--dial-timeout=60s", "--command-timeout=60s"])
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    /// What it prints on success.
    async fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output();
        let output = timeout(LONG, output).await.expect("it ends").expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it prints on failure.
    async fn fail(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output();
        let output = timeout(LONG, output).await.expect("it ends").expect("it starts");
        assert!(!output.status.success(), "etcdctl {arguments:?} should fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs it with a text on its standard input.
    async fn feed(&self, arguments: &[&str], input: &str) -> String {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).await.expect("it reads");
        drop(stdin);
        let output = timeout(LONG, child.wait_with_output()).await.expect("it ends");
        String::from_utf8_lossy(&output.expect("it ends").stdout).into_owned()
    }

    /// Runs it on, with its lines as they come.
    fn follow(&self, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
        let child = self.command(arguments).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        (child, lines)
    }
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = timeout(LONG, lines.next_line()).await.expect("it prints");
    line.expect("it prints text").expect("it goes on")
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_reads_and_writes() {
    let node = Node::start().await;
    let Some(etcdctl) = Etcdctl::find(node.address).await else { return };
    assert_eq!(etcdctl.run(&["put", "a", "1"]).await, "OK\n");
    assert_eq!(etcdctl.run(&["put", "b", "2"]).await, "OK\n");
    assert_eq!(etcdctl.run(&["put", "a", "3", "--prev-kv"]).await, "OK\na\n1\n");
    assert_eq!(etcdctl.run(&["get", "", "--prefix"]).await, "a\n3\nb\n2\n");
    assert_eq!(etcdctl.run(&["get", "a", "--rev=2", "--print-value-only"]).await, "1\n");
    let sorted = ["get", "--prefix", "", "--keys-only", "--order=DESCEND", "--sort-by=KEY"];
    assert_eq!(etcdctl.run(&sorted).await, "b\n\na\n\n");
    let json = etcdctl.run(&["get", "b", "-w", "json"]).await;
    assert!(json.contains(r#""revision":4"#) && json.contains(r#""create_revision":3"#), "{json}");
    let txn = "value(\"a\") = \"3\"\n\nput a 4\nget b\n\nput a never\n\n";
    let answer = etcdctl.feed(&["txn"], txn).await;
    assert!(answer.starts_with("SUCCESS\n\nOK\n\nb\n2\n"), "{answer}");
    assert_eq!(etcdctl.run(&["del", "a", "--prev-kv"]).await, "1\na\n4\n");
    assert_eq!(etcdctl.run(&["compact", "5"]).await, "compacted revision 5\n");
    let past = etcdctl.fail(&["get", "a", "--rev=2"]).await;
    assert!(past.contains("etcdserver: mvcc: required revision has been compacted"), "{past}");
    let empty = etcdctl.fail(&["put", "", "1"]).await;
    assert!(empty.contains("etcdserver: key is not provided"), "{empty}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_watches() {
    let node = Node::start().await;
    let Some(etcdctl) = Etcdctl::find(node.address).await else { return };
    node.put("a", "1").await;
    let (_child, mut lines) = etcdctl.follow(&["watch", "--prefix", "a", "--rev=2", "--prev-kv"]);
    for expected in ["PUT", "a", "1"] {
        assert_eq!(line(&mut lines).await, expected);
    }
    node.delete("a").await;
    for expected in ["DELETE", "a", "1", "a", ""] {
        assert_eq!(line(&mut lines).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_keeps_leases() {
    let node = Node::start().await;
    let Some(etcdctl) = Etcdctl::find(node.address).await else { return };
    let granted = etcdctl.run(&["lease", "grant", "60"]).await;
    let id = granted.split(' ').nth(1).expect("lease ID granted with TTL");
    assert_eq!(granted, format!("lease {id} granted with TTL(60s)\n"));
    etcdctl.run(&["put", "a", "1", &format!("--lease={id}")]).await;
    let kept = etcdctl.run(&["lease", "keep-alive", "--once", id]).await;
    assert_eq!(kept, format!("lease {id} keepalived with TTL(60)\n"));
    let left = etcdctl.run(&["lease", "timetolive", "--keys", id]).await;
    assert!(
        left.contains("granted with TTL(60s)") && left.contains("attached keys([a])"),
        "{left}"
    );
    assert!(etcdctl.run(&["lease", "list"]).await.contains(id));
    etcdctl.run(&["lease", "revoke", id]).await;
    assert_eq!(etcdctl.run(&["get", "a"]).await, "");
    let again = etcdctl.fail(&["lease", "revoke", id]).await;
    assert!(again.contains("etcdserver: requested lease not found"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_looks_after_the_cluster() {
    let node = Node::start().await;
    let Some(etcdctl) = Etcdctl::find(node.address).await else { return };
    let members = etcdctl.run(&["member", "list"]).await;
    let first = members.lines().next().expect("a line for each member");
    assert_eq!(first, "1, started, one, http://127.0.0.1:1, http://127.0.0.1:2, false");
    let status = etcdctl.run(&["endpoint", "status"]).await;
    // Endpoint, id, version, size, is leader, is learner, term, index, applied index, errors.
    let expected = format!("{}, 1, 3.5.21, 4.1 kB, true, false, 3, 12, 11, \n", node.address);
    assert_eq!(status, expected);
    etcdctl.run(&["endpoint", "health"]).await;
    assert_eq!(etcdctl.run(&["alarm", "list"]).await, "");
    etcdctl.run(&["defrag"]).await;
    let hash = etcdctl.run(&["endpoint", "hashkv"]).await;
    let (endpoint, hash) = hash.trim().split_once(", ").expect("an endpoint and a hash");
    assert_eq!(endpoint, node.address.to_string());
    assert!(hash.parse::<u32>().is_ok(), "{hash}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_manages_users_and_roles() {
    let node = Node::start().await;
    let Some(etcdctl) = Etcdctl::find(node.address).await else { return };
    etcdctl.run(&["user", "add", "root:secret"]).await;
    etcdctl.run(&["user", "add", "alice:wonder"]).await;
    assert_eq!(etcdctl.run(&["role", "add", "staff"]).await, "Role staff created\n");
    etcdctl.run(&["role", "grant-permission", "staff", "readwrite", "--prefix", "app/"]).await;
    etcdctl.run(&["role", "grant-permission", "staff", "read", "motd"]).await;
    etcdctl.run(&["user", "grant-role", "alice", "staff"]).await;
    etcdctl.run(&["user", "grant-role", "root", "root"]).await;
    assert_eq!(etcdctl.run(&["auth", "enable"]).await, "Authentication Enabled\n");

    let alice = "--user=alice:wonder";
    assert_eq!(etcdctl.run(&[alice, "put", "app/a", "1"]).await, "OK\n");
    assert_eq!(etcdctl.run(&[alice, "get", "--prefix", "app/"]).await, "app/a\n1\n");
    let other = etcdctl.fail(&[alice, "put", "motd", "hello"]).await;
    assert!(other.contains("etcdserver: permission denied"), "{other}");
    let wrong = etcdctl.fail(&["--user=alice:x", "get", "motd"]).await;
    assert!(wrong.contains("authentication failed, invalid user ID or password"), "{wrong}");
    let nobody = etcdctl.fail(&["get", "motd"]).await;
    assert!(nobody.contains("etcdserver: user name is empty"), "{nobody}");

    let root = "--user=root:secret";
    assert_eq!(etcdctl.run(&[root, "user", "list"]).await, "alice\nroot\n");
    assert_eq!(etcdctl.run(&[root, "role", "list"]).await, "staff\n");
    let told = etcdctl.run(&[root, "role", "get", "staff"]).await;
    assert!(told.contains("[app/, app0) (prefix app/)") && told.contains("motd"), "{told}");
    assert_eq!(etcdctl.run(&[root, "user", "get", "alice"]).await, "User: alice\nRoles: staff\n");
    etcdctl.run(&[root, "role", "revoke-permission", "staff", "--prefix", "app/"]).await;
    let revoked = etcdctl.fail(&[alice, "get", "app/a"]).await;
    assert!(revoked.contains("etcdserver: permission denied"), "{revoked}");
    etcdctl.feed(&[root, "user", "passwd", "alice", "--interactive=false"], "land\n").await;
    assert_eq!(etcdctl.run(&["--user=alice:land", "get", "motd"]).await, "");
    etcdctl.run(&[root, "user", "revoke-role", "alice", "staff"]).await;
    etcdctl.run(&[root, "role", "delete", "staff"]).await;
    etcdctl.run(&[root, "user", "delete", "alice"]).await;
    assert_eq!(etcdctl.run(&[root, "auth", "disable"]).await, "Authentication Disabled\n");
    assert_eq!(etcdctl.run(&["get", "app/a"]).await, "app/a\n1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_locks_and_elects() {
    let node = Node::start().await;
    let Some(etcdctl) = Etcdctl::find(node.address).await else { return };
    assert_eq!(etcdctl.run(&["lock", "job", "echo", "mine"]).await, "mine\n");
    let (_child, mut lines) = etcdctl.follow(&["elect", "post", "alice"]);
    let key = line(&mut lines).await;
    assert!(key.starts_with("post/"), "{key}");
    assert_eq!(line(&mut lines).await, "alice");
    let (_child, mut lines) = etcdctl.follow(&["elect", "--listen", "post"]);
    assert_eq!(line(&mut lines).await, key);
}
