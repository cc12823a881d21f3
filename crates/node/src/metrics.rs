//! The metrics page: every number that a node counts, in Prometheus' text format.
//!
//! A name says whose number it is and, at its end, its unit; one that ends in `_total` only rises
//! while the process lives, every other one is what is so now. `docs/metrics.md` lists them all, and
//! a test keeps that list true.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use onefold_admin::{KeyspaceUsage, group_name};
use onefold_log::LogStatus;
use onefold_replica::{GroupMetrics, GroupStatus, HostMetrics, Role, SnapshotMetrics};
use onefold_transport::{Counter, KindCounter, TransportStatus};
use onefold_types::{GroupId, NodeId};

use crate::keyspaces::DEFAULT_NAME;

/// The type of the page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the page is made of, read at one moment.
pub(crate) struct Reading {
    pub(crate) node: NodeId,
    pub(crate) uptime_s: u64,
    pub(crate) log: LogStatus,
    pub(crate) table_bytes: u64,
    pub(crate) host: HostMetrics,
    pub(crate) groups: Vec<GroupStatus>,
    /// The names of the keyspaces, by their groups.
    pub(crate) names: BTreeMap<GroupId, String>,
    /// What they take, the cluster's own ones included.
    pub(crate) keyspaces: Vec<KeyspaceUsage>,
    /// What other processes opened; none before the peer port is served.
    pub(crate) inbound: Option<Arc<TransportStatus>>,
    /// What this process opened.
    pub(crate) outbound: Arc<TransportStatus>,
}

/// Writes the page.
pub(crate) fn render(reading: &Reading) -> String {
    let mut page = Page { node: reading.node, families: Vec::new() };
    let uptime = "Seconds since the process started.";
    page.add("onefold_node_uptime_seconds", uptime, &[], reading.uptime_s);
    let table_bytes = "Bytes of the ordered table on the disk.";
    page.add("onefold_table_size_bytes", table_bytes, &[], reading.table_bytes);
    log(&mut page, &reading.log);
    if let Some(inbound) = &reading.inbound {
        transport(&mut page, inbound, "inbound");
    }
    transport(&mut page, &reading.outbound, "outbound");
    for status in &reading.groups {
        let name = reading.names.get(&status.group).cloned();
        let name = name.unwrap_or_else(|| group_name(status.group));
        group(&mut page, &name, status, reading.host.groups.get(&status.group));
    }
    for usage in &reading.keyspaces {
        keyspace(&mut page, reading, usage);
    }
    for (name, help, value) in reading.host.node.each() {
        page.add(&format!("onefold_replica_{name}"), help, &[], value);
    }
    snapshots(&mut page, &reading.host.snapshots);
    page.write()
}

/// The families of a page, in the order in which they were first added.
struct Page {
    node: NodeId,
    families: Vec<Family>,
}

struct Family {
    name: String,
    help: &'static str,
    samples: Vec<(String, u64)>,
}

impl Page {
    /// Adds a sample; `help` is that of the family.
    fn add(&mut self, name: &str, help: &'static str, labels: &[(&str, &str)], value: u64) {
        let mut text = format!("node=\"{}\"", self.node);
        for (label, value) in labels {
            // Values are names of this program's own, which need no escapes.
            let _ = write!(text, ",{label}=\"{value}\"");
        }
        let sample = (text, value);
        match self.families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.samples.push(sample),
            None => {
                let name = name.to_owned();
                self.families.push(Family { name, help, samples: vec![sample] });
            }
        }
    }

    fn write(&self) -> String {
        let mut text = String::new();
        for Family { name, help, samples } in &self.families {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        }
        text
    }
}

fn log(page: &mut Page, log: &LogStatus) {
    let numbers = [
        ("segments", "Segment files of the write-ahead log.", log.segments),
        (
            "size_bytes",
            "Bytes of the log's segment files, with what is laid out in advance.",
            log.bytes,
        ),
        ("appends_total", "Appends that became durable.", log.appends),
        ("fsyncs_total", "Syncs of the log; fewer than appends when many waited.", log.fsyncs),
        ("written_bytes_total", "Bytes written to the log.", log.written_bytes),
        (
            "carried_entries_total",
            "Entries of slow or idle groups that were written once more, so that old segments can go.",
            log.carried_entries,
        ),
        ("segments_removed_total", "Segments that nothing needed any more.", log.removed_segments),
        (
            "torn_bytes",
            "Bytes of a torn write, which was never acknowledged, that were cut off at the start.",
            log.torn_bytes,
        ),
        ("queued_bytes", "Bytes of appends that wait.", log.queued_bytes),
        (
            "failed",
            "1 when a write or sync failed: the log takes no more, and the node stops.",
            u64::from(log.is_poisoned),
        ),
    ];
    for (name, help, value) in numbers {
        page.add(&format!("onefold_log_{name}"), help, &[], value);
    }
}

fn transport(page: &mut Page, status: &TransportStatus, direction: &str) {
    let labels = [("direction", direction)];
    let plain: [(&str, &'static str, &Counter); 17] = [
        ("connections_open", "Connections that are open.", &status.connections_open),
        ("connections_total", "Connections that were opened.", &status.connections_total),
        (
            "connect_failures_total",
            "Attempts to connect that nobody answered.",
            &status.connect_failures_total,
        ),
        (
            "connections_silent_total",
            "Connections that were given up because the other side fell silent.",
            &status.connections_silent_total,
        ),
        ("frames_sent_total", "Frames written.", &status.frames_sent_total),
        ("sent_bytes_total", "Bytes written.", &status.bytes_sent_total),
        ("frames_received_total", "Frames read.", &status.frames_received_total),
        ("received_bytes_total", "Bytes read.", &status.bytes_received_total),
        ("one_way_total", "Messages without an answer, sent or taken.", &status.one_way_total),
        (
            "one_way_dropped_total",
            "Messages that were dropped: no room, nobody reachable, or nobody here to take them.",
            &status.one_way_dropped_total,
        ),
        ("calls_total", "Calls made or handled.", &status.calls_total),
        ("calls_in_flight", "Calls that wait for their answer.", &status.calls_in_flight),
        (
            "calls_timed_out_total",
            "Calls that were not answered in time.",
            &status.calls_timed_out_total,
        ),
        ("calls_cancelled_total", "Calls whose caller went away.", &status.calls_cancelled_total),
        (
            "calls_overloaded_total",
            "Calls that were refused since too much was under way.",
            &status.calls_overloaded_total,
        ),
        (
            "response_bytes",
            "Bytes of responses that are in memory or expected.",
            &status.response_bytes,
        ),
        (
            "handlers_panicked_total",
            "Handlers of calls that panicked.",
            &status.handlers_panicked_total,
        ),
    ];
    for (name, help, counter) in plain {
        page.add(&format!("onefold_transport_{name}"), help, &labels, counter.get());
    }
    let by_kind: [(&str, &'static str, &KindCounter); 2] = [
        (
            "handshakes_refused_total",
            "Connections refused, by the rule that forbids them.",
            &status.handshakes_refused_total,
        ),
        (
            "frames_malformed_total",
            "Connections closed over bytes that are no valid frame, by what was wrong.",
            &status.frames_malformed_total,
        ),
    ];
    for (name, help, counter) in by_kind {
        for (kind, value) in counter.kinds() {
            let labels = [("direction", direction), ("kind", kind)];
            page.add(&format!("onefold_transport_{name}"), help, &labels, value);
        }
    }
}

fn group(page: &mut Page, name: &str, status: &GroupStatus, metrics: Option<&GroupMetrics>) {
    let labels = [("group", name)];
    let numbers = [
        (
            "is_leader",
            "1 on the node that leads the group.",
            u64::from(status.role == Role::Leader),
        ),
        (
            "leader_node",
            "The node that leads the group as far as this one knows; 0 if it knows none.",
            status.leader.map_or(0, NodeId::get),
        ),
        ("term", "The term that this replica is in.", status.term.get()),
        ("last_index", "The last index of this replica's log.", status.last.get()),
        ("voters", "Members with a vote.", status.voters.len() as u64),
        ("learners", "Members without a vote.", status.learners.len() as u64),
        (
            "is_quiet",
            "1 while the group is silent, since nothing happens in it.",
            u64::from(status.is_quiet),
        ),
        (
            "is_state_lost",
            "1 while this replica lost its state and waits for a snapshot.",
            u64::from(status.is_state_lost),
        ),
    ];
    for (name, help, value) in numbers {
        page.add(&format!("onefold_raft_{name}"), help, &labels, value);
    }
    for (name, help, value) in metrics.map(GroupMetrics::each).unwrap_or_default() {
        page.add(&format!("onefold_raft_{name}"), help, &labels, value);
    }
    for (member, progress) in status.progress.iter().flatten() {
        let member = member.to_string();
        let labels = [("group", name), ("member", member.as_str())];
        let lag = "On the leader: entries that a member still lacks.";
        page.add("onefold_raft_member_lag_entries", lag, &labels, progress.lag);
        let active = "On the leader: 1 if a member answered lately.";
        page.add("onefold_raft_member_is_active", active, &labels, u64::from(progress.is_active));
    }
}

/// There are no more keyspaces than a cluster may have, so that the label's values are bounded.
fn keyspace(page: &mut Page, reading: &Reading, usage: &KeyspaceUsage) {
    let name = match usage.group {
        GroupId::KV => Some(DEFAULT_NAME),
        GroupId::SYSTEM => Some("system"),
        group => reading.names.get(&group).map(String::as_str),
    };
    // One that goes has no name any more.
    let Some(name) = name else { return };
    let labels = [("keyspace", name)];
    let numbers = [
        ("keys", "Keys that exist.", usage.keys),
        ("revision", "The newest revision that this replica has applied.", usage.revision),
        (
            "compacted_revision",
            "The oldest revision that can be read; 0 when nothing was compacted yet.",
            usage.compacted,
        ),
        ("live_bytes", "Bytes of current versions and leases.", usage.live_bytes),
        ("history_bytes", "Bytes of superseded versions and events.", usage.history_bytes),
        ("quota_bytes", "Most bytes of both together; 0 for no bound.", usage.quota_bytes),
        ("is_full", "1 while growth is refused at the quota.", u64::from(usage.is_full)),
        ("watchers", "Watches that read from this replica.", usage.watchers),
        ("leases", "Leases that live, on the node that leads; 0 elsewhere.", usage.leases),
    ];
    for (name, help, value) in numbers {
        page.add(&format!("onefold_kv_{name}"), help, &labels, value);
    }
}

fn snapshots(page: &mut Page, snapshots: &SnapshotMetrics) {
    let numbers = [
        ("pieces_sent_total", "Pieces of snapshots that followers took.", snapshots.pieces_sent),
        ("sent_bytes_total", "Bytes of pieces that followers took.", snapshots.bytes_sent),
        ("delivered_total", "Snapshots that followers have whole.", snapshots.delivered),
        (
            "interrupted_total",
            "Attempts to deliver a snapshot that ended early; each is followed by another.",
            snapshots.interrupted,
        ),
        ("pieces_received_total", "Pieces that were written here.", snapshots.pieces_received),
        (
            "received_bytes_total",
            "Bytes of pieces that were written here.",
            snapshots.bytes_received,
        ),
        (
            "pieces_refused_total",
            "Pieces refused here: a wrong checksum, number, total or content.",
            snapshots.pieces_refused,
        ),
        (
            "resumed_total",
            "Transfers that went on where an earlier attempt had stopped.",
            snapshots.resumed,
        ),
        (
            "given_up_total",
            "Transfers to this node that were given up, and what they had staged removed.",
            snapshots.given_up,
        ),
    ];
    for (name, help, value) in numbers {
        page.add(&format!("onefold_snapshot_{name}"), help, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use onefold_replica::{MemberProgress, ProgressMode};
    use onefold_types::{GroupId, LogIndex, Term};

    use super::*;

    fn usage(group: GroupId) -> KeyspaceUsage {
        KeyspaceUsage {
            group,
            keys: 12,
            revision: 30,
            compacted: 20,
            live_bytes: 100,
            history_bytes: 50,
            quota_bytes: 1000,
            is_full: false,
            watchers: 3,
            leases: 2,
        }
    }

    /// A node on which every number exists.
    fn reading() -> Reading {
        let progress = MemberProgress {
            mode: ProgressMode::Replicate,
            matched: LogIndex(7),
            lag: 2,
            in_flight_messages: 0,
            in_flight_bytes: 0,
            is_active: true,
        };
        let status = |group, role| GroupStatus {
            group,
            node: NodeId(1),
            role,
            term: Term(3),
            leader: Some(NodeId(1)),
            commit: LogIndex(9),
            applied: LogIndex(8),
            last: LogIndex(9),
            voters: [1, 2, 3].map(NodeId).into(),
            outgoing: BTreeSet::new(),
            learners: BTreeSet::new(),
            joining: BTreeSet::new(),
            is_quiet: false,
            is_state_lost: false,
            is_removed: false,
            progress: (role == Role::Leader).then(|| [(NodeId(2), progress)].into()),
        };
        let groups = vec![
            status(GroupId::KV, Role::Leader),
            status(GroupId(77), Role::Follower),
            status(GroupId(78), Role::Follower),
        ];
        let applied = GroupMetrics { applied_index: 8, ..GroupMetrics::default() };
        let host = HostMetrics {
            groups: groups.iter().map(|status| (status.group, applied)).collect(),
            ..HostMetrics::default()
        };
        Reading {
            node: NodeId(1),
            uptime_s: 5,
            log: LogStatus { bytes: 4096, is_poisoned: true, ..LogStatus::default() },
            table_bytes: 2,
            host,
            groups,
            names: [(GroupId(78), "team-a".to_owned())].into(),
            keyspaces: [GroupId::KV, GroupId(77), GroupId(78)].map(usage).into(),
            inbound: Some(Arc::default()),
            outbound: Arc::default(),
        }
    }

    #[test]
    fn samples_name_node_group_direction_and_kind() {
        let page = render(&reading());
        for line in [
            "onefold_raft_is_leader{node=\"1\",group=\"kv\"} 1",
            "onefold_raft_is_leader{node=\"1\",group=\"group 77\"} 0",
            "onefold_raft_is_leader{node=\"1\",group=\"team-a\"} 0",
            "onefold_raft_applied_index{node=\"1\",group=\"kv\"} 8",
            "onefold_raft_member_lag_entries{node=\"1\",group=\"kv\",member=\"2\"} 2",
            "onefold_kv_keys{node=\"1\",keyspace=\"default\"} 12",
            "onefold_kv_watchers{node=\"1\",keyspace=\"team-a\"} 3",
            "onefold_log_size_bytes{node=\"1\"} 4096",
            "onefold_log_failed{node=\"1\"} 1",
            "onefold_transport_calls_in_flight{node=\"1\",direction=\"outbound\"} 0",
            "onefold_transport_frames_malformed_total\
             {node=\"1\",direction=\"inbound\",kind=\"header_checksum\"} 0",
            "onefold_transport_handshakes_refused_total\
             {node=\"1\",direction=\"inbound\",kind=\"removed_node\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn every_family_stands_once_with_type_and_help_before_its_samples() {
        let page = render(&reading());
        let mut seen = BTreeSet::new();
        let mut family = "";
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a name and a text");
                assert!(text.ends_with('.'), "{line}");
                assert!(seen.insert(name), "{name} stands twice");
                family = name;
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let is_counter = family.ends_with("_total");
                let expected = if is_counter { "counter" } else { "gauge" };
                assert_eq!(kind, format!("{family} {expected}"));
            } else {
                assert!(line.starts_with(&format!("{family}{{")), "{line} is not of {family}");
            }
        }
        assert!(seen.len() > 60, "{} families", seen.len());
    }

    #[test]
    fn the_document_lists_every_metric_as_the_page_shows_it() {
        let page = render(&reading());
        let listed = |line: &str| line.starts_with("| `onefold_");
        let mut expected = Vec::new();
        let mut help = "";
        for line in page.lines() {
            if let Some(text) = line.strip_prefix("# HELP ") {
                help = text.split_once(' ').map_or("", |(_, help)| help);
            } else if let Some(text) = line.strip_prefix("# TYPE ") {
                let (name, kind) = text.split_once(' ').expect("a name and a kind");
                expected.push(format!("| `{name}` | {kind} | {help} |"));
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let document = std::fs::read_to_string(path).expect("the document exists");
        let found: Vec<&str> = document.lines().filter(|line| listed(line)).collect();
        let expected = expected.join("\n");
        assert_eq!(
            found.join("\n"),
            expected,
            "docs/metrics.md should hold these rows:\n{expected}"
        );
    }
}
