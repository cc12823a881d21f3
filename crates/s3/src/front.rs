//! One request: let in or turned away, its body wrapped, its answer completed.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue, ORIGIN, SERVER,
};
use hyper::{Method, Request, Response, StatusCode};
use onefold_files::{Setting, VersionedFiles};
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3Result, StdError, s3_error};

use crate::REGION;
use crate::admission::{Admission, Place, TRANSFER_BYTES};
use crate::body::{BodyChecks, FaultCell, Framing, RequestBody, SIGNED_CHUNK_BYTES_MAX};
use crate::config::Config;
use crate::cors::Rules;
use crate::{errors, settings};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// What all connections of a listener share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) admission: Arc<Admission>,
    pub(crate) files: Arc<dyn VersionedFiles>,
    pub(crate) next_request: AtomicU64,
}

/// One connection's requests.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) service: S3Service,
    pub(crate) shared: Arc<Shared>,
}

impl Front {
    /// Answers a request. What goes wrong becomes an answer, too.
    pub(crate) async fn handle(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let id = format!("{:016X}", self.shared.next_request.fetch_add(1, Ordering::Relaxed));
        let resource = request.uri().path().to_owned();
        let method = request.method().clone();
        let page = PageRequest::of(&request);
        let served = match &page {
            Some(page) if method == Method::OPTIONS => self.preflight(page).await,
            _ => self.serve(request).await,
        };
        let (mut response, place) = match served {
            Ok((response, place)) => (response, Some(place)),
            Err(error) => (error_response(error), None),
        };
        if response.status() == StatusCode::OK && response.headers().contains_key(CONTENT_RANGE) {
            // The library beneath forgets this for HEAD.
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        if let Some(page) = page.filter(|_| method != Method::OPTIONS)
            && let Some(headers) = self.cors_headers(&page, method.as_str()).await
        {
            response.headers_mut().extend(headers);
        }
        if !response.status().is_success() {
            complete_error(&mut response, &resource, &id);
        }
        tracing::debug!(%method, resource, status = response.status().as_u16(), id, "answered");
        let headers = response.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static("Onefold"));
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        Ok(response.map(|body| AnswerBody { body, _place: place }))
    }

    /// Answers a browser that asks what a page may do. It needs no signature, and learns nothing
    /// but the rules.
    async fn preflight(&self, page: &PageRequest) -> S3Result<(Response<Body>, Place)> {
        let place = self.shared.admission.request().await?;
        let headers = match Rules::asked_method(&page.headers) {
            Some(method) => self.cors_headers(page, method).await,
            None => {
                let why = "insufficient information. Origin request header needed";
                return Err(s3_error!(InvalidRequest, "{why}"));
            }
        };
        let headers = headers.ok_or_else(|| {
            let status = StatusCode::FORBIDDEN;
            let why = "CORSResponse: this CORS request is not allowed by the rules of the bucket";
            errors::custom("AccessForbidden", status, why)
        })?;
        let mut response = Response::new(Body::empty());
        response.headers_mut().extend(headers);
        Ok((response, place))
    }

    async fn cors_headers(&self, page: &PageRequest, method: &str) -> Option<HeaderMap> {
        let files = &*self.shared.files;
        let rules = settings::load::<Rules>(files, &page.bucket, Setting::Cors).await;
        rules.ok()??.judge(method, &page.headers)
    }

    async fn serve(&self, request: Request<Incoming>) -> S3Result<(Response<Body>, Place)> {
        let place = self.shared.admission.request().await?;
        refuse_forms(&request)?;
        refuse_region(request.headers())?;
        let _memory = self.shared.admission.memory(self.body_memory(&request)).await?;
        let fault = FaultCell::default();
        let request = self.wrap(request, fault.clone())?;
        let answer = self.service.call(request).await;
        let response = match (answer, fault.get()) {
            (Ok(response), None) => response,
            (Ok(response), _) if response.status().is_success() => response,
            (_, Some(fault)) => error_response(fault.to_s3_error()),
            (Err(error), None) => {
                let error = StdError::from(error);
                tracing::warn!(%error, "an answer could not be made");
                error_response(s3_error!(InternalError))
            }
        };
        Ok((response, place))
    }

    /// Bytes that the request's body will have in memory at most.
    fn body_memory(&self, request: &Request<Incoming>) -> u64 {
        let length = request.body().size_hint().exact().unwrap_or(u64::MAX);
        if request.method() == Method::POST {
            return length.min(self.shared.config.xml_bytes_max as u64);
        }
        let framing = if streaming(request.headers()) == Some(Streaming::Signed) {
            SIGNED_CHUNK_BYTES_MAX
        } else {
            0
        };
        length.min(TRANSFER_BYTES + framing)
    }

    fn wrap(&self, request: Request<Incoming>, fault: FaultCell) -> S3Result<Request<Body>> {
        let (head, body) = request.into_parts();
        let framing = streaming(&head.headers).map(|_| Framing::new());
        let is_command = head.method == Method::POST;
        let checks = if is_command && framing.is_none() {
            let query = head.uri.query().unwrap_or_default();
            let is_delete = query.split('&').any(|pair| pair.split('=').next() == Some("delete"));
            Some(BodyChecks::from_headers(&head.headers, is_delete)?)
        } else {
            None
        };
        let expects_continue = head.headers.contains_key(EXPECT);
        let config = &self.shared.config;
        let body = RequestBody::new(body, config, fault, framing, checks, expects_continue);
        Ok(Request::from_parts(head, Body::http_body_unsync(body)))
    }
}

/// A request that a browser makes for a web page: it says whose.
struct PageRequest {
    bucket: String,
    headers: HeaderMap,
}

impl PageRequest {
    fn of(request: &Request<Incoming>) -> Option<Self> {
        request.headers().get(ORIGIN)?;
        let bucket = request.uri().path().trim_start_matches('/').split('/').next()?.to_owned();
        let asked = [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_REQUEST_HEADERS];
        let headers = asked.into_iter().filter_map(|name| {
            let value = request.headers().get(&name)?.clone();
            Some((name, value))
        });
        Some(Self { bucket, headers: headers.collect() })
    }
}

/// Whether the body has the framing of `aws-chunked`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Streaming {
    Signed,
    Unsigned,
}

fn streaming(headers: &HeaderMap) -> Option<Streaming> {
    let value = headers.get("x-amz-content-sha256")?.to_str().ok()?;
    if value.starts_with("STREAMING-UNSIGNED") {
        Some(Streaming::Unsigned)
    } else {
        value.starts_with("STREAMING-").then_some(Streaming::Signed)
    }
}

/// Uploads by HTML form would be buffered as a whole before anybody looked at their signature.
fn refuse_forms(request: &Request<Incoming>) -> S3Result<()> {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_form = content_type.is_some_and(|value| {
        value.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
    });
    if is_form && request.method() == Method::POST {
        return Err(errors::not_implemented("an upload by HTML form"));
    }
    Ok(())
}

/// The library beneath takes any region of lower-case letters, digits and hyphens, and has no answer
/// from which a client could learn a better one; s3cmd, whose default is `US`, asks for that.
fn refuse_region(headers: &HeaderMap) -> S3Result<()> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential = authorization.and_then(|text| text.split_once("Credential="));
    let Some(region) = credential.and_then(|(_, scope)| scope.split('/').nth(2)) else {
        return Ok(());
    };
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !region.is_empty() && region.bytes().all(is_plain) {
        return Ok(());
    }
    Err(s3_error!(
        AuthorizationHeaderMalformed,
        "the authorization header is malformed; the region {region:?} is wrong; expecting {REGION:?}"
    ))
}

fn error_response(error: S3Error) -> Response<Body> {
    error.to_http_response().unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// Adds to an error's document what the library beneath does not know: words for every code, the
/// resource and the request's id.
fn complete_error(response: &mut Response<Body>, resource: &str, id: &str) {
    if response.status() == StatusCode::NOT_MODIFIED {
        *response.body_mut() = Body::empty();
        return;
    }
    let Some(bytes) = response.body().bytes() else { return };
    let Some(text) =
        std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix("</Error>"))
    else {
        return;
    };
    let mut text = text.to_owned();
    if !text.contains("<Message>") {
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let message = errors::default_message(code.map_or("", |(code, _)| code));
        text.push_str(&format!("<Message>{message}</Message>"));
    }
    if text.contains("<Code>AuthorizationHeaderMalformed</Code>") {
        text.push_str(&format!("<Region>{REGION}</Region>"));
    }
    let resource = resource.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.push_str(&format!("<Resource>{resource}</Resource><RequestId>{id}</RequestId></Error>"));
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = Body::from(text);
}

/// An answer's body, which keeps its request's place until it was sent.
pub(crate) struct AnswerBody {
    body: Body,
    _place: Option<Place>,
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
