//! The metrics under etcd's names, in Prometheus' text format, with the node's own behind them.
//!
//! Only what is true is shown: what etcd counts and this store does not have is left out.

use std::fmt::{Display, Write as _};

use onefold_types::{BUCKET_BOUNDS_SECONDS, DurationCounts};
use tonic::Code;

use super::{Check, Metrics, Probe, process};
use crate::admission::Admission;
use crate::gateway::Gateway;
use crate::{StatusView, version};

/// The type of the page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes the page of a node.
pub(crate) fn render(gateway: &Gateway) -> String {
    let mut page = Page::default();
    let member = gateway.cluster.member_id();
    server(&mut page, gateway, member);
    store(&mut page, &gateway.cluster.status());
    watching(&mut page, &gateway.metrics, &gateway.admission);
    network(&mut page, &gateway.metrics);
    calls(&mut page, &gateway.metrics);
    health(&mut page, &gateway.metrics);
    process::add(&mut page);
    page.0 + &gateway.cluster.own_metrics()
}

/// The text of a page.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// A number that only rises.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, "", value);
    }

    /// A number that is so now.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, counts: &DurationCounts) {
        self.family(name, "histogram", help);
        let bounds = BUCKET_BOUNDS_SECONDS.map(|bound| bound.to_string());
        let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
        let mut total = 0;
        for (bound, count) in bounds.zip(counts.buckets) {
            total += count;
            self.sample(&format!("{name}_bucket"), &format!("le=\"{bound}\""), total);
        }
        self.sample(&format!("{name}_sum"), "", counts.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), "", total);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// `labels` hold names of this program's own, which need no escapes.
    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }
}

fn server(page: &mut Page, gateway: &Gateway, member: u64) {
    let (status, leader) = (gateway.cluster.status(), gateway.cluster.leader());
    let own = |member_id: u64| member_id == member;
    let is_learner = gateway.cluster.members().iter().any(|m| own(m.id) && m.is_learner);
    let gauges = [
        ("has_leader", "1 while this member knows a leader.", u64::from(leader.is_some())),
        ("is_leader", "1 while this member leads.", u64::from(leader.is_some_and(own))),
        ("is_learner", "1 while this member does not vote.", u64::from(is_learner)),
        (
            "proposals_committed_total",
            "The last index that this member knows to be committed.",
            status.raft_index,
        ),
        ("proposals_applied_total", "The last index that this member has applied.", status.applied),
        (
            "proposals_pending",
            "Proposals that wait in this member to be taken up.",
            status.proposals_pending,
        ),
        (
            "quota_backend_bytes",
            "Bytes that the store may have; 0 for no bound.",
            status.db_size_quota,
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(&format!("etcd_server_{name}"), help, value);
    }
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Times that this member saw another leader than before.",
        status.leader_changes,
    );
    page.counter(
        "etcd_server_proposals_failed_total",
        "Proposals that this member did not take or whose outcome it could not tell.",
        status.proposals_failed,
    );
    let infos = [
        ("etcd_server_id", "The member's number.", format!("server_id=\"{member:x}\"")),
        (
            "etcd_server_version",
            "The etcd version whose API this is.",
            format!("server_version=\"{}\"", version::SERVER),
        ),
        (
            "etcd_cluster_version",
            "The version that all members understand.",
            format!("cluster_version=\"{}\"", version::CLUSTER),
        ),
    ];
    for (name, help, labels) in infos {
        page.family(name, "gauge", help);
        page.sample(name, &labels, 1);
    }
}

fn store(page: &mut Page, status: &StatusView) {
    page.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "How long syncs of the write-ahead log took, in seconds.",
        &status.fsync_durations,
    );
    page.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "How long atomic writes to the table took, in seconds.",
        &status.commit_durations,
    );
    let gauges = [
        (
            "etcd_mvcc_db_total_size_in_bytes",
            "Bytes of the table on this member's disk.",
            status.db_size,
        ),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes of the table that are in use.",
            status.db_size_in_use,
        ),
        (
            "etcd_debugging_mvcc_current_revision",
            "The newest revision that this member has applied.",
            status.revision,
        ),
        (
            "etcd_debugging_mvcc_compact_revision",
            "The oldest revision that can be read.",
            status.compacted,
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, value);
    }
}

fn watching(page: &mut Page, metrics: &Metrics, admission: &Admission) {
    page.gauge(
        "etcd_debugging_mvcc_watch_stream_total",
        "Open streams of watches.",
        metrics.watch_streams.get(),
    );
    page.gauge(
        "etcd_debugging_mvcc_watcher_total",
        "Open watches on all streams.",
        admission.watches_open(),
    );
}

fn network(page: &mut Page, metrics: &Metrics) {
    page.counter(
        "etcd_network_client_grpc_received_bytes_total",
        "Bytes read from the connections of clients.",
        metrics.received_bytes.get(),
    );
    page.counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "Bytes written to the connections of clients.",
        metrics.sent_bytes.get(),
    );
}

fn calls(page: &mut Page, metrics: &Metrics) {
    let labels = |call: &super::calls::MethodCounters| {
        let (kind, method, service) = (call.kind, &call.method, &call.service);
        format!("grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"")
    };
    let started = "grpc_server_started_total";
    page.family(started, "counter", "Calls that began.");
    for call in metrics.calls.methods() {
        page.sample(started, &labels(call), call.started.get());
    }
    let handled = "grpc_server_handled_total";
    page.family(handled, "counter", "Calls that ended, by how.");
    for call in metrics.calls.methods() {
        for code in 0..=16 {
            let code = Code::from_i32(code);
            let count = call.handled(code);
            if count > 0 || code == Code::Ok {
                let code = code_name(code);
                page.sample(handled, &format!("grpc_code=\"{code}\",{}", labels(call)), count);
            }
        }
    }
}

/// The name of a code in Go, which the dashboards know.
fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

fn health(page: &mut Page, metrics: &Metrics) {
    let [failures, successes] = metrics.health();
    page.counter("etcd_server_health_success", "Times that /health said yes.", successes);
    page.counter("etcd_server_health_failures", "Times that /health said no.", failures);
    let name = "etcd_server_healthchecks_total";
    page.family(name, "counter", "Checks of /livez and /readyz, by their outcome.");
    for probe in Probe::ALL {
        for check in Check::ALL {
            let outcomes = metrics.checks(probe, check);
            for (status, count) in [("error", outcomes[0]), ("success", outcomes[1])] {
                if count > 0 {
                    let (probe, check) = (probe.name(), check.name());
                    let labels = format!("name=\"{check}\",status=\"{status}\",type=\"{probe}\"");
                    page.sample(name, &labels, count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onefold_types::DurationHistogram;

    use super::*;

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let histogram = DurationHistogram::default();
        for milliseconds in [1, 3, 60_000] {
            histogram.add(Duration::from_millis(milliseconds));
        }
        let mut page = Page::default();
        page.histogram("x", "Help.", &histogram.counts());
        let lines: Vec<&str> = page.0.lines().collect();
        assert_eq!(lines[..2], ["# HELP x Help.", "# TYPE x histogram"]);
        assert_eq!(lines[2], "x_bucket{le=\"0.001\"} 1");
        assert_eq!(lines[4], "x_bucket{le=\"0.004\"} 2");
        assert_eq!(lines[15], "x_bucket{le=\"8.192\"} 2");
        assert_eq!(lines[16..], ["x_bucket{le=\"+Inf\"} 3", "x_sum 60.004", "x_count 3"]);
    }

    #[test]
    fn the_system_tells_about_this_process() {
        let mut page = Page::default();
        process::add(&mut page);
        for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds"] {
            let line = page.0.lines().find(|l| l.starts_with(&format!("process_{name} ")));
            let value = line.and_then(|line| line.rsplit_once(' ')).expect(name).1;
            assert!(value.parse::<f64>().expect("a number") > 0.0 || name == "cpu_seconds_total");
        }
    }
}
