//! What no correct cluster does to itself: garbage at the peer port, folders that were copied or
//! mixed up, disks that change bits. One clear line, and the others go on.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use bytes::Bytes;
use onefold_admin::GetNodeStatus;
use onefold_transport::{CallError, Class, Identity, IdentityCell, Limits, Peers, Refusal};
use onefold_types::{ClusterId, NodeId};

use crate::local_cluster::{LocalCluster, Node, PATIENCE, free_base_port, onefold};

/// The group of the default keyspace.
const KV: u64 = 2;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("writable");
        }
    }
}

fn replace(folder: &Path, with: &Path) {
    fs::remove_dir_all(folder).expect("writable");
    copy(with, folder);
}

/// Flips a bit in the first batch of a log's oldest segment.
fn flip_a_bit(log: &Path) -> PathBuf {
    let segments =
        fs::read_dir(log).expect("a node has a log").map(|entry| entry.expect("readable").path());
    let segment = segments.filter(|path| path.extension().is_some_and(|e| e == "log")).min();
    let segment = segment.expect("a log has a segment");
    let mut bytes = fs::read(&segment).expect("readable");
    bytes[110] ^= 4;
    fs::write(&segment, bytes).expect("writable");
    segment
}

fn metric(node: &Node, name: &str, labels: &[&str]) -> u64 {
    let mut stream = TcpStream::connect(&node.http).expect("the node listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", node.http)
        .expect("the node reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("text");
    let line = page
        .lines()
        .find(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
        .unwrap_or_else(|| panic!("{name} {labels:?} is not in {page}"));
    line.rsplit_once(' ').expect("a value").1.parse().expect("a number")
}

impl LocalCluster {
    fn data_of(&self, id: u64) -> PathBuf {
        self.data_dir().join(format!("node{id}"))
    }

    /// What a node wrote to its log file.
    fn messages_of(&self, id: u64) -> String {
        fs::read_to_string(self.data_of(id).with_extension("log")).unwrap_or_default()
    }

    /// A node that must refuse to start, and the one line that it says.
    fn refuses(&self, id: u64) -> String {
        let data_dir = self.data_dir();
        let data_dir = data_dir.to_str().expect("a plain path");
        let output = self.run(&["dev", "node", "start", &id.to_string(), "--data-dir", data_dir]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let line = error.lines().find(|line| line.starts_with("error: "));
        line.unwrap_or_else(|| panic!("no error line in {error:?}")).to_owned()
    }

    fn assert_serves(&self, value: &str) {
        self.must(&["kv", "put", "witness", value]);
        assert_eq!(
            self.must(&["kv", "get", "witness", "--print-value-only"]),
            format!("{value}\n")
        );
    }
}

/// Starts a node on a folder by hand, on ports of its own.
fn start(folder: &Path, messages: &Path) -> Child {
    let base = free_base_port();
    let address = |plus: u16| format!("127.0.0.1:{}", base + plus);
    let messages = fs::File::create(messages).expect("writable");
    onefold()
        .args(["start", "--listen", &address(0), "--etcd-listen", &address(1)])
        .args(["--s3-listen", &address(2), "--http-listen", &address(3), "--data-dir"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages)
        .spawn()
        .expect("the program starts")
}

/// Waits until a process ended by itself; its exit code and the line that says why.
fn ending(mut child: Child, messages: &Path) -> (Option<i32>, String) {
    let give_up = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be asked") {
            break status;
        }
        if Instant::now() > give_up {
            child.kill().expect("a child can be killed");
            panic!("it goes on: {}", fs::read_to_string(messages).unwrap_or_default());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let text = fs::read_to_string(messages).expect("text");
    assert!(!text.contains("panicked"), "{text}");
    let mut errors = text.lines().filter(|line| line.starts_with("error: "));
    let line = errors.next().unwrap_or_else(|| panic!("no error line in {text:?}")).to_owned();
    assert_eq!(errors.next(), None, "one line says it");
    (status.code(), line)
}

#[test]
fn garbage_at_the_peer_port_is_counted_said_once_and_harms_nobody() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = LocalCluster::start(folder.path(), 3);
    let node = &cluster.nodes[0];
    let cut_off = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(&node.peer).expect("the node listens");
        // It may hang up before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    for round in 0..20_u8 {
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody\r\n\r\n";
        assert!(cut_off(request).is_empty());
        assert!(cut_off(&[&b"1FLD\x01\0\x01\0"[..], &[round; 300]].concat()).is_empty());
    }
    cluster.assert_serves("after the garbage");
    let malformed = |kind| {
        let labels = ["direction=\"inbound\"", kind];
        metric(node, "onefold_transport_frames_malformed_total", &labels)
    };
    assert_eq!(malformed("kind=\"magic\""), 20);
    assert_eq!(malformed("kind=\"header_checksum\""), 20);
    let messages = cluster.messages_of(1);
    let said = messages.lines().filter(|line| line.contains("closed a connection"));
    assert_eq!(said.count(), 2, "once for each kind: {messages}");

    // Another version of the protocol: a hello whose checksum nobody can know how to check.
    let answer = cut_off(&[&b"1FLD\x07\0\x01\0"[..], &[0; 32]].concat());
    assert_eq!(answer.get(..7), Some(&b"1FLD\x01\0\x02"[..]), "a refusal");
    let refused = |kind| {
        let labels = ["direction=\"inbound\"", kind];
        metric(node, "onefold_transport_handshakes_refused_total", &labels)
    };
    assert_eq!(refused("kind=\"other_version\""), 1);

    // A node of another cluster, and one that was never invited but knows this one.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let stranger = Identity::node(ClusterId(1), NodeId(1));
        let peers = Peers::new(std::sync::Arc::new(IdentityCell::new(stranger)), Limits::default());
        let call = peers.call_address::<GetNodeStatus>(
            &node.peer,
            Class::Call,
            &(),
            Bytes::new(),
            PATIENCE,
        );
        let error = call.await.expect_err("another cluster");
        let reason = Refusal::OtherCluster { dialler: ClusterId(1), listener: ClusterId(0) };
        let CallError::Refused { reason: found, .. } = &error else { panic!("{error}") };
        assert_eq!(found.kind(), reason.kind(), "{error}");
    });
    assert_eq!(refused("kind=\"other_cluster\""), 1);
    cluster.assert_serves("after the strangers");
    cluster.stop();
}

#[test]
fn a_copied_data_folder_is_refused_while_the_original_runs_and_later() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    cluster.assert_serves("before the copy");
    let victim = [1, 2, 3].into_iter().find(|id| *id != cluster.leader(KV)).expect("a follower");
    cluster.act("kill", victim);
    let copied = folder.path().join("copied");
    copy(&cluster.data_of(victim), &copied);
    cluster.act("start", victim);
    for round in 0..20 {
        cluster.assert_serves(&format!("after the copy {round}"));
    }

    // On another port while the original runs: the members know better.
    let messages = folder.path().join("copied.messages");
    let running = folder.path().join("copied-and-running");
    copy(&copied, &running);
    let (code, line) = ending(start(&running, &messages), &messages);
    assert_eq!(code, Some(1), "{line}");
    assert!(line.contains(&format!("node {victim}")) && line.contains("copy"), "{line}");
    cluster.assert_serves("after the copy ended");

    // In the place of the original: it has forgotten what it acknowledged.
    cluster.act("stop", victim);
    replace(&cluster.data_of(victim), &copied);
    let data_dir = cluster.data_dir();
    let data_dir = data_dir.to_str().expect("a plain path").to_owned();
    // It may come up before its leader finds out.
    cluster.run(&["dev", "node", "start", &victim.to_string(), "--data-dir", &data_dir]);
    cluster.wait_for("the copy to stop", |cluster| {
        cluster.read_nodes();
        cluster.messages_of(victim).contains("was acknowledged")
            && cluster.nodes.iter().any(|node| node.id == victim && node.pid == 0)
    });
    cluster.assert_serves("without the node");
    cluster.stop();
}

#[test]
fn a_damaged_or_foreign_log_keeps_its_node_down_and_the_others_serve() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = LocalCluster::start(folder.path(), 3);
    cluster.assert_serves("before the damage");
    cluster.act("stop", 3);
    let (second, third) = (cluster.data_of(2), cluster.data_of(3));
    let whole = folder.path().join("whole");
    let other_log = folder.path().join("other-log");
    copy(&third, &whole);
    copy(&third.join("log"), &other_log);

    let segment = flip_a_bit(&third.join("log"));
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    for _ in 0..2 {
        let line = cluster.refuses(3);
        assert!(line.contains(&name) && line.contains("damaged at byte"), "{line}");
        assert!(line.contains("join as a new node"), "it says what to do: {line}");
        cluster.assert_serves("without node 3");
    }
    // By hand the program ends with code 1 and that line.
    let messages = folder.path().join("messages");
    let (code, line) = ending(start(&third, &messages), &messages);
    assert_eq!(code, Some(1));
    assert!(line.contains(&name), "{line}");

    replace(&third, &whole);
    fs::remove_file(third.join("log").join(&name)).expect("it is there");
    let line = cluster.refuses(3);
    assert!(line.contains(&name) && line.contains("is missing"), "{line}");

    // All of the log, and all that was made of it: an empty node with old promises.
    fs::remove_dir_all(third.join("log")).expect("it is there");
    fs::remove_dir_all(third.join("table")).expect("it is there");
    let line = cluster.refuses(3);
    assert!(line.contains("manifest is missing"), "{line}");

    replace(&third, &whole);
    let manifest = third.join("log/manifest");
    let mut bytes = fs::read(&manifest).expect("readable");
    bytes.truncate(bytes.len() - 1);
    fs::write(&manifest, bytes).expect("writable");
    assert!(cluster.refuses(3).contains("manifest"), "a cut manifest is named");

    replace(&third, &whole);
    let identity = third.join("onefold.json");
    let text = fs::read_to_string(&identity).expect("readable");
    fs::write(&identity, text.replace("\"format\": ", "\"format\": 9")).expect("writable");
    assert!(cluster.refuses(3).contains("has format 9"), "a newer folder is refused by its number");

    // The others never noticed; whole again, the node is one of them. What the table holds comes
    // back from its log and from the others: no promise is kept there.
    replace(&third, &whole);
    fs::remove_dir_all(third.join("table")).expect("it is there");
    cluster.act("start", 3);
    cluster.act("kill", 2);
    cluster.assert_serves("with node 3");
    cluster.act("start", 2);
    cluster.act("stop", 2);
    let own_log = folder.path().join("own-log");
    copy(&second.join("log"), &own_log);
    replace(&second.join("log"), &other_log);
    let line = cluster.refuses(2);
    assert!(line.contains("belongs to data folder"), "{line}");
    cluster.assert_serves("without node 2");
    replace(&second.join("log"), &own_log);
    cluster.act("start", 2);
    cluster.assert_serves("with all again");
    cluster.stop();
}
