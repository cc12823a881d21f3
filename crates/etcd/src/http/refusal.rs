//! A gRPC status as an answer to a plain HTTP client.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// The answer for an error: its HTTP status, and what is wrong as JSON.
pub(crate) fn answer(status: &Status) -> Response {
    refuse(http_code(status.code()), status)
}

/// The same under another HTTP status.
pub(crate) fn refuse(http: StatusCode, status: &Status) -> Response {
    let body = body(status).to_string();
    (http, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// What is wrong, as grpc-gateway says it: `code` and `message`, and `error` as its older releases
/// called the latter.
fn body(status: &Status) -> Value {
    let message = status.message();
    json!({ "error": message, "code": i32::from(status.code()), "message": message })
}

/// The last line of a stream that failed, in the names of both of grpc-gateway's generations.
pub(crate) fn last_line(status: &Status) -> Value {
    let http = http_code(status.code());
    json!({ "error": {
        "grpc_code": i32::from(status.code()),
        "http_code": http.as_u16(),
        "message": status.message(),
        "http_status": http.canonical_reason().unwrap_or_default(),
        "code": i32::from(status.code()),
    } })
}

/// The mapping of `google.rpc.Code`.
fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // The one that nginx chose for "client closed request".
        Code::Cancelled => StatusCode::from_u16(499).expect("it is below 1000"),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
