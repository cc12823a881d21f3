//! The node's HTTP port: whether it lives, whether it is ready, and its metrics.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use onefold_admin::{NodeStatus, Role, group_name};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;

/// Serves until `shutdown` is cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    admin: Arc<Admin>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(admin);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

/// Ready means: every group that this node hosts has a leader.
async fn ready(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let status = admin.node_status();
    let waiting: Vec<String> = status
        .groups
        .iter()
        .filter(|group| group.leader.is_none())
        .map(|group| group_name(group.group))
        .collect();
    if waiting.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        let text = format!("no leader: {}\n", waiting.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<NodeStatus> {
    Json(admin.node_status())
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], render(&admin.node_status()))
}

/// Writes the status in Prometheus' text format.
fn render(status: &NodeStatus) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, samples: &[(String, u64)]| {
        let kind = "gauge";
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let plain = |value: u64| [(String::new(), value)];
    family("onefold_node_uptime_seconds", "Time since the start.", &plain(status.uptime_s));
    family("onefold_log_size_bytes", "Bytes of the write-ahead log.", &plain(status.log_bytes));
    family("onefold_table_size_bytes", "Bytes of the ordered table.", &plain(status.table_bytes));
    let each = |value: fn(&onefold_admin::GroupReport) -> u64| -> Vec<(String, u64)> {
        let label = |group: &onefold_admin::GroupReport| {
            (format!("{{group=\"{}\"}}", group_name(group.group)), value(group))
        };
        status.groups.iter().map(label).collect()
    };
    let leads = each(|group| u64::from(group.role == Role::Leader));
    family("onefold_raft_is_leader", "Whether this node leads the group.", &leads);
    family("onefold_raft_term", "The group's term.", &each(|group| group.term.get()));
    let commit = each(|group| group.commit.get());
    family("onefold_raft_commit_index", "The last index known to be committed.", &commit);
    family("onefold_raft_applied_index", "The last index applied.", &each(|g| g.applied.get()));
    text
}

#[cfg(test)]
mod tests {
    use onefold_admin::GroupReport;
    use onefold_types::{GroupId, LogIndex, NodeId, Term};

    use super::*;

    #[test]
    fn metrics_name_every_group() {
        let report = |group, role| GroupReport {
            group,
            role,
            term: Term(3),
            leader: Some(NodeId(1)),
            commit: LogIndex(9),
            applied: LogIndex(8),
            members: onefold_admin::GroupMembers::default(),
        };
        let status = NodeStatus {
            node: NodeId(1),
            version: "0".to_owned(),
            uptime_s: 5,
            etcd: String::new(),
            s3: String::new(),
            http: String::new(),
            groups: vec![
                report(GroupId::KV, Role::Leader),
                report(GroupId::NAMESPACE, Role::Follower),
            ],
            log_bytes: 1,
            table_bytes: 2,
        };
        let text = render(&status);
        assert!(text.contains("onefold_raft_is_leader{group=\"kv\"} 1\n"), "{text}");
        assert!(text.contains("onefold_raft_is_leader{group=\"files\"} 0\n"), "{text}");
        assert!(text.contains("# TYPE onefold_raft_term gauge\n"), "{text}");
    }
}
