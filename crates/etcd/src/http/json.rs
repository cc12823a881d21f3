//! The JSON gateway: a POST whose body is the JSON of a request becomes a call of the gRPC service in
//! this process, and the answer becomes JSON again.
//!
//! The mapping is protobuf's own, as grpc-gateway uses it for etcd: bytes in base64, 64-bit numbers as
//! text, fields under the names of the `.proto` files, what has its default left out; read is any
//! spelling that the mapping allows. Nothing here knows a single message.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http_body::Frame;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use prost::Message;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::Request as Call;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;

use super::frames::{Messages, frame};
use super::paths::PATHS;
use super::refusal;
use super::values::Values;
use crate::admission::Admission;
use crate::errors;
use crate::gateway::Gateway;
use crate::metrics::CountCalls;
use crate::proto::descriptors;

/// How long a client may take to send the body of a request, or the first part of a stream.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Bytes of JSON for each byte of a request: base64 takes a third more, names and spaces the rest.
const JSON_BYTES_PER_BYTE: usize = 2;

/// Headers with this prefix go on as metadata without it, as grpc-gateway does.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// The metadata in which etcd's clients send the token that they got from `Authenticate`.
const TOKEN: HeaderName = HeaderName::from_static("token");

/// The method whose answers go on when there are no more requests.
const WATCH: &str = "etcdserverpb.Watch.Watch";

/// The paths of all methods.
pub(crate) fn router(gateway: &Gateway, services: CountCalls<Routes>) -> Router {
    let json = Arc::new(Json {
        services,
        admission: gateway.admission.clone(),
        body_bytes_max: JSON_BYTES_PER_BYTE * gateway.options.message_bytes_max(),
    });
    let mut router = Router::new();
    for (path, name) in PATHS {
        let Some(method) = method(name) else { continue };
        let json = Arc::clone(&json);
        let call = move |request: Request| {
            let (json, method) = (Arc::clone(&json), method.clone());
            async move { json.call(&method, request).await }
        };
        router = router.route(path, post(call).fallback(only_post));
    }
    router
}

fn method(full_name: &str) -> Option<MethodDescriptor> {
    let (service, name) = full_name.rsplit_once('.')?;
    let service = descriptors().get_service_by_name(service)?;
    service.methods().find(|method| method.name() == name)
}

async fn only_post() -> impl IntoResponse {
    let status = Status::unimplemented("Method Not Allowed");
    ([(header::ALLOW, "POST")], refusal::refuse(StatusCode::METHOD_NOT_ALLOWED, &status))
}

struct Json {
    services: CountCalls<Routes>,
    admission: Admission,
    body_bytes_max: usize,
}

impl Json {
    async fn call(&self, method: &MethodDescriptor, request: Request) -> Response {
        let outcome = if method.is_server_streaming() {
            self.stream(method, request).await
        } else {
            self.unary(method, request).await
        };
        outcome.unwrap_or_else(|status| refusal::answer(&status))
    }

    /// One request, one answer.
    async fn unary(&self, method: &MethodDescriptor, request: Request) -> Result<Response, Status> {
        let (head, body) = request.into_parts();
        let message = {
            let info = head.extensions.get::<TcpConnectInfo>();
            let client = info.and_then(TcpConnectInfo::remote_addr);
            let _permit = self.admission.request(client, self.announced(&head.headers))?;
            let text = read(body, self.body_bytes_max).await?;
            decode(method.input(), &text)?
        };
        let body = Body::new(Full::new(frame(&message)));
        let mut messages = self.send(method, head, body).await;
        let answer = messages.next().await?;
        let answer = answer.ok_or_else(|| Status::internal("the service gave no answer"))?;
        let text = encode(method.output(), answer)?;
        Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
    }

    /// One or more requests, and a line of JSON for each answer.
    async fn stream(
        &self,
        method: &MethodDescriptor,
        request: Request,
    ) -> Result<Response, Status> {
        let (head, body) = request.into_parts();
        let mut values = Values::new(body, self.body_bytes_max);
        // What is wrong with the first one is said before the answers begin.
        let first = timeout(BODY_TIME_MAX, values.next()).await.map_err(|_| too_slow())??;
        let input = method.input();
        let first = first.map(|text| decode(input.clone(), &text)).transpose()?;
        let body = if method.is_client_streaming() {
            let holds_open = method.full_name() == WATCH;
            Body::new(StreamBody::new(frames(input, first, values, holds_open)))
        } else {
            Body::new(Full::new(frame(&first.unwrap_or_default())))
        };
        let mut messages = self.send(method, head, body).await;
        if let Some(status) = messages.refusal() {
            return Err(status);
        }
        let lines = lines(method.output(), messages);
        let body = HttpBody::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
        Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
    }

    /// Calls the gRPC service.
    async fn send(&self, method: &MethodDescriptor, head: Parts, body: Body) -> Messages {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let mut call = Call::new(body);
        *call.method_mut() = axum::http::Method::POST;
        *call.uri_mut() = path.parse().expect("names of methods are good paths");
        *call.headers_mut() = metadata(&head.headers);
        // Who the client is.
        *call.extensions_mut() = head.extensions;
        let Ok(response) = self.services.clone().call(call).await;
        let status = Status::from_header_map(response.headers());
        Messages::new(response.into_body(), status)
    }

    /// How large a body says that it is, or may be.
    fn announced(&self, headers: &HeaderMap) -> usize {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok());
        let length = length.and_then(|text| text.parse().ok()).unwrap_or(self.body_bytes_max);
        length.min(self.body_bytes_max)
    }
}

/// The whole body.
async fn read(body: HttpBody, bytes_max: usize) -> Result<Bytes, Status> {
    let collected = timeout(BODY_TIME_MAX, Limited::new(body, bytes_max).collect()).await;
    match collected.map_err(|_| too_slow())? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(errors::request_too_large()),
        Err(error) => Err(Status::cancelled(format!("the body did not arrive: {error}"))),
    }
}

fn too_slow() -> Status {
    let seconds = BODY_TIME_MAX.as_secs();
    Status::deadline_exceeded(format!("the body did not arrive within {seconds} s; send it faster"))
}

/// The metadata that HTTP headers ask for.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(METADATA_PREFIX) else { continue };
        if let Ok(name) = HeaderName::try_from(name) {
            metadata.append(name, value.clone());
        }
    }
    if let Some(token) = headers.get(header::AUTHORIZATION) {
        metadata.insert(header::AUTHORIZATION, token.clone());
        metadata.insert(TOKEN, token.clone());
    }
    let fixed = |text: &'static str| axum::http::HeaderValue::from_static(text);
    metadata.insert(header::CONTENT_TYPE, fixed("application/grpc"));
    metadata.insert(header::TE, fixed("trailers"));
    metadata
}

/// A request in the encoding of gRPC. No text at all is a request without fields.
fn decode(input: MessageDescriptor, text: &[u8]) -> Result<Vec<u8>, Status> {
    if text.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let name = input.name().to_owned();
    let invalid = |error: serde_json::Error| {
        Status::invalid_argument(format!("the body is not the JSON of a {name}: {error}"))
    };
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut json = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize_with_options(input, &mut json, &options);
    let message = message.map_err(&invalid)?;
    json.end().map_err(&invalid)?;
    Ok(message.encode_to_vec())
}

/// An answer as JSON.
fn encode(output: MessageDescriptor, answer: Bytes) -> Result<Vec<u8>, Status> {
    let internal = |error: &dyn std::fmt::Display| {
        Status::internal(format!("an answer has no JSON, which is an error of the server: {error}"))
    };
    let message = DynamicMessage::decode(output, answer).map_err(|error| internal(&error))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut json = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut json, &options).map_err(|error| internal(&error))?;
    Ok(json.into_inner())
}

/// The requests of a stream, as they arrive.
fn frames(
    input: MessageDescriptor,
    first: Option<Vec<u8>>,
    values: Values,
    holds_open: bool,
) -> BoxStream<'static, Result<Frame<Bytes>, Status>> {
    let rest = stream::try_unfold((input, values), |(input, mut values)| async move {
        let Some(text) = values.next().await? else { return Ok(None) };
        let message = decode(input.clone(), &text)?;
        Ok::<_, Status>(Some((message, (input, values))))
    });
    let all = stream::iter(first.map(Ok)).chain(rest);
    let all = all.map_ok(|message| Frame::data(frame(&message)));
    if holds_open { all.chain(stream::pending()).boxed() } else { all.boxed() }
}

/// The answers of a stream, a line each; the last one says what went wrong, if anything did.
fn lines(output: MessageDescriptor, messages: Messages) -> impl stream::Stream<Item = Bytes> {
    stream::unfold(Some((output, messages)), |state| async move {
        let (output, mut messages) = state?;
        let line = match messages.next().await {
            Ok(None) => return None,
            Ok(Some(answer)) => encode(output.clone(), answer),
            Err(status) => Err(status),
        };
        match line {
            Ok(json) => {
                let mut line = BytesMut::with_capacity(json.len() + 16);
                line.put_slice(b"{\"result\":");
                line.put_slice(&json);
                line.put_slice(b"}\n");
                Some((line.freeze(), Some((output, messages))))
            }
            Err(status) => Some((Bytes::from(format!("{}\n", refusal::last_line(&status))), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tonic::Code;

    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        descriptors().get_message_by_name(name).expect("it is in the files")
    }

    fn round(name: &str, text: &str) -> Result<String, Status> {
        let message = decode(descriptor(name), text.as_bytes())?;
        let json = encode(descriptor(name), message.into())?;
        Ok(String::from_utf8(json).expect("JSON is text"))
    }

    #[test]
    fn any_spelling_is_read_and_one_is_written() {
        let written = r#"{"key":"Zm9v","limit":"5","sort_order":"DESCEND","keys_only":true}"#;
        for text in [
            written,
            r#"{"key":"Zm9v","limit":5,"sortOrder":"DESCEND","keysOnly":true}"#,
            r#"{"key":"Zm9v","limit":"5","sort_order":2,"keys_only":true,"limit_of_later":1}"#,
            r#" {"key":"Zm9v","limit":5.0,"sortOrder":2,"keysOnly":true,"revision":null} "#,
        ] {
            assert_eq!(round("etcdserverpb.RangeRequest", text).expect(text), written);
        }
        assert_eq!(
            round("etcdserverpb.LeaseGrantRequest", r#"{"TTL":"9"}"#).unwrap(),
            r#"{"TTL":"9"}"#
        );
        assert_eq!(round("etcdserverpb.RangeRequest", "").unwrap(), "{}");
        let large = r#"{"ID":"18446744073709551615"}"#;
        assert_eq!(round("etcdserverpb.MemberRemoveRequest", large).unwrap(), large);
    }

    #[test]
    fn what_is_no_request_is_an_invalid_argument() {
        for text in
            ["{", "[]", "nonsense", r#"{"key":5}"#, r#"{"key":"%"}"#, r#"{"limit":"x"}"#, "{}{}"]
        {
            let error = round("etcdserverpb.RangeRequest", text).expect_err(text);
            assert_eq!(error.code(), Code::InvalidArgument, "{text}");
            assert!(error.message().contains("RangeRequest"), "{error}");
        }
    }

    #[test]
    fn headers_become_metadata_and_the_authorization_becomes_the_token() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-metadata-hasleader", "true".parse().unwrap());
        headers.insert(header::AUTHORIZATION, "abc.1".parse().unwrap());
        headers.insert("cookie", "x".parse().unwrap());
        let metadata = metadata(&headers);
        assert_eq!(metadata["hasleader"], "true");
        assert_eq!(metadata["token"], "abc.1");
        assert!(!metadata.contains_key("cookie"));
    }
}
