//! What is served to plain HTTP clients, on the port of the gRPC clients.
//!
//! ```text
//! POST /v3/…                 json     ──► the gRPC services, called in this process
//! GET /health /livez /readyz health   ──► the store and the cluster
//! GET /version               version
//! GET /metrics               metrics
//! ```
//!
//! A request that is none of these and not gRPC is answered as a path that does not exist.

mod frames;
mod health;
mod json;
mod paths;
pub(crate) mod refusal;
mod values;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tonic::Status;
use tonic::service::Routes;

use crate::gateway::Gateway;
use crate::metrics::{CountCalls, page};
use crate::version;

/// Adds the HTTP paths to the gRPC services.
pub(crate) fn with_paths(grpc: Routes, gateway: &Gateway) -> Routes {
    let counted = CountCalls::new(grpc.clone().prepare(), Arc::clone(&gateway.metrics));
    let plain = Router::new()
        .route("/version", get(tell_version).fallback(only_get))
        .route("/metrics", get(tell_metrics).fallback(only_get))
        .with_state(gateway.clone());
    let router = grpc
        .into_axum_router()
        .merge(health::router(gateway))
        .merge(plain)
        .merge(json::router(gateway, counted))
        .fallback(unknown);
    Routes::from(router)
}

async fn tell_version() -> impl IntoResponse {
    let text = format!(
        r#"{{"etcdserver":"{}","etcdcluster":"{}","storage":"{}"}}"#,
        version::SERVER,
        version::CLUSTER,
        version::CLUSTER
    );
    ([(header::CONTENT_TYPE, "application/json")], text)
}

async fn tell_metrics(State(gateway): State<Gateway>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, page::CONTENT_TYPE)], page::render(&gateway))
}

/// Another method than GET on a path that only tells something.
async fn only_get() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")], "Method Not Allowed\n")
}

/// A path or a gRPC method that does not exist.
async fn unknown(request: Request) -> Response {
    let content = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = content.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let unknown = Status::unimplemented(format!("unknown method {}", request.uri().path()));
        return unknown.into_http::<axum::body::Body>();
    }
    refusal::refuse(StatusCode::NOT_FOUND, &Status::not_found("Not Found"))
}
