//! Counting gRPC calls: which began, and how they ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{Body as HttpBody, Service};
use tonic::{Code, Status};
use tower::Layer;

use super::{Counter, Metrics};
use crate::proto::descriptors;

/// The codes of gRPC, from 0 on.
const CODES: usize = 17;

/// The counters of every method.
pub(crate) struct CallCounters {
    /// In the order of their paths.
    methods: Box<[MethodCounters]>,
}

/// The counters of one method.
pub(crate) struct MethodCounters {
    path: String,
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) kind: &'static str,
    is_unary: bool,
    pub(crate) started: Counter,
    handled: [Counter; CODES],
}

impl Default for CallCounters {
    fn default() -> Self {
        let services = descriptors().services();
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        let mut methods: Box<[_]> = methods.map(|method| MethodCounters::new(&method)).collect();
        methods.sort_by(|a, b| a.path.cmp(&b.path));
        Self { methods }
    }
}

impl CallCounters {
    /// Every method, by service and name.
    pub(crate) fn methods(&self) -> &[MethodCounters] {
        &self.methods
    }

    fn place(&self, path: &str) -> Option<usize> {
        self.methods.binary_search_by(|method| method.path.as_str().cmp(path)).ok()
    }
}

impl MethodCounters {
    fn new(method: &prost_reflect::MethodDescriptor) -> Self {
        let service = method.parent_service().full_name().to_owned();
        let is_unary = !method.is_client_streaming() && !method.is_server_streaming();
        Self {
            path: format!("/{service}/{}", method.name()),
            service,
            method: method.name().to_owned(),
            kind: match (method.is_client_streaming(), method.is_server_streaming()) {
                (false, false) => "unary",
                (false, true) => "server_stream",
                (true, false) => "client_stream",
                (true, true) => "bidi_stream",
            },
            is_unary,
            started: Counter::default(),
            handled: Default::default(),
        }
    }

    /// How many calls ended with a code.
    pub(crate) fn handled(&self, code: Code) -> u64 {
        self.handled[code as usize].get()
    }

    fn end(&self, code: Code) {
        self.handled[code as usize].add(1);
    }
}

/// Puts [`CountCalls`] in front of services.
#[derive(Clone)]
pub(crate) struct CountCallsLayer(pub(crate) Arc<Metrics>);

impl<S> Layer<S> for CountCallsLayer {
    type Service = CountCalls<S>;

    fn layer(&self, inner: S) -> CountCalls<S> {
        CountCalls::new(inner, Arc::clone(&self.0))
    }
}

/// Counts the calls of a service that are gRPC; others pass.
#[derive(Clone)]
pub(crate) struct CountCalls<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> CountCalls<S> {
    pub(crate) fn new(inner: S, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl<S> Service<Request<Body>> for CountCalls<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Counting<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Counting<S::Future> {
        let place = self.metrics.calls.place(request.uri().path());
        let call = place.map(|place| Call::begin(&self.metrics, place));
        Counting { inner: self.inner.call(request), call }
    }
}

/// One call in work.
struct Call {
    metrics: Arc<Metrics>,
    place: usize,
    code: Code,
}

impl Call {
    fn begin(metrics: &Arc<Metrics>, place: usize) -> Self {
        metrics.calls.methods[place].started.add(1);
        // Until its end is seen: then the client went away.
        Self { metrics: Arc::clone(metrics), place, code: Code::Cancelled }
    }

    fn is_unary(&self) -> bool {
        self.metrics.calls.methods[self.place].is_unary
    }

    fn ends_as(&mut self, headers: &HeaderMap) {
        self.code = Status::from_header_map(headers).map_or(Code::Ok, |status| status.code());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics.calls.methods[self.place].end(self.code);
    }
}

/// A call on the way to its answer.
pub(crate) struct Counting<F> {
    inner: F,
    call: Option<Call>,
}

impl<F, E> Future for Counting<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let response = ready!(Pin::new(&mut self.inner).poll(context))?;
        let Some(mut call) = self.call.take() else { return Poll::Ready(Ok(response)) };
        // A call with one answer has failed in its headers, or not at all.
        if call.is_unary() || response.headers().contains_key(Status::GRPC_STATUS) {
            call.ends_as(response.headers());
            return Poll::Ready(Ok(response));
        }
        Poll::Ready(Ok(response.map(|inner| Body::new(CountedBody { inner, call }))))
    }
}

/// The answers of a stream, whose end is seen in its trailers.
struct CountedBody {
    inner: Body,
    call: Call,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.ends_as(trailers);
                }
            }
            Some(Err(status)) => self.call.code = status.code(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}
