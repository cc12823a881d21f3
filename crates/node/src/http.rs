//! The node's HTTP port: whether it lives, whether it is ready, and its metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use onefold_admin::{NodeStatus, group_name};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::metrics;

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
        .route("/metrics", get(metrics_page))
        .with_state(admin);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

/// Ready means: each of the cluster's own groups has a leader. One keyspace without a leader keeps
/// nobody from the others.
async fn ready(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let status = admin.node_status();
    let waiting: Vec<String> = status
        .groups
        .iter()
        .filter(|group| group.leader.is_none() && !group.group.is_keyspace())
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

async fn metrics_page(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&admin.reading()))
}
