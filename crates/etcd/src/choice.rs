//! How a client chooses its keyspace at a port that serves more than one.
//!
//! Who logs in as `team-a/root` is `root` of the keyspace `team-a`, and gets a token that begins with
//! `team-a/`; whatever is sent with it goes there. Neither the tokens of a keyspace nor its name hold
//! a slash, so that no token can be taken for another's. Who does not log in can name the keyspace in
//! the metadata `onefold-keyspace`.
//!
//! The choice is made in front of everything else, on the HTTP request, so that every method, stream
//! and path of the JSON gateway goes the same way, and the services behind know one keyspace each.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Request, Response};
use futures::future::{Either, Ready, ready};
use onefold_kv::{AuthError, AuthToken, KvError};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;
use tower::Layer;

use crate::errors;
use crate::gateway::{Gateway, TOKEN_SCHEME, present};
use crate::http::refusal;
use crate::keyspace::{Directory, Keyspace};
use crate::metrics::{CountCalls, Counting};

/// Metadata with the name of the keyspace that a call is for.
pub const KEYSPACE_METADATA: &str = "onefold-keyspace";

/// That, and the same as the JSON gateway takes metadata.
static KEYSPACE: [HeaderName; 2] = [
    HeaderName::from_static(KEYSPACE_METADATA),
    HeaderName::from_static("grpc-metadata-onefold-keyspace"),
];

/// Metadata in which clients show their token, and the same as the JSON gateway takes metadata.
static TOKENS: [HeaderName; 4] = [
    HeaderName::from_static("token"),
    header::AUTHORIZATION,
    HeaderName::from_static("grpc-metadata-token"),
    HeaderName::from_static("grpc-metadata-authorization"),
];

/// The method whose answer depends on the choice, and its path in the JSON gateway.
const AUTHENTICATE: [&str; 2] = ["/etcdserverpb.Auth/Authenticate", "/v3/auth/authenticate"];

/// Parts a keyspace from what is said of it.
const SLASH: char = '/';

/// A port: the keyspace that it belongs to, and those that can be chosen.
#[derive(Clone)]
pub(crate) struct Choice {
    own: Arc<Keyspace>,
    others: Arc<dyn Directory>,
}

/// Where a call goes.
enum Place {
    Own,
    Other(Arc<Keyspace>),
}

impl Choice {
    pub(crate) fn new(own: Arc<Keyspace>, others: Arc<dyn Directory>) -> Self {
        Self { own, others }
    }

    fn find(&self, name: &str) -> Option<Place> {
        if name == self.own.name() {
            return Some(Place::Own);
        }
        self.others.find(name).map(Place::Other)
    }

    /// Where the headers send a call. Takes out of them what the keyspace need not see.
    fn place(&self, headers: &mut HeaderMap) -> Result<Place, Status> {
        let of_token = take_from_tokens(headers)?;
        let named = KEYSPACE
            .iter()
            .find_map(|name| headers.get(name))
            .map(|value| value.to_str().unwrap_or_default().to_owned());
        let name = match (of_token, named) {
            (None, None) => return Ok(Place::Own),
            (Some(name), Some(other)) if name != other => {
                return Err(Status::invalid_argument(format!(
                    "the token is of the keyspace {name:?}, and onefold-keyspace says {other:?}; \
                     leave one of them out"
                )));
            }
            // A token of a keyspace that is no more is nobody's.
            (Some(name), _) => {
                return self
                    .find(&name)
                    .ok_or_else(|| errors::status(AuthError::InvalidToken.into()));
            }
            (None, Some(name)) => name,
        };
        let unknown = || {
            Status::not_found(format!(
                "there is no keyspace {name:?}; `onefold kv keyspace list` shows those that there are"
            ))
        };
        self.find(&name).ok_or_else(unknown)
    }

    /// Checks the password of a user of the keyspace that stands before its name, if one does.
    pub(crate) async fn authenticate(
        &self,
        gateway: &Gateway,
        name: String,
        password: String,
    ) -> Result<(AuthToken, Gateway), Status> {
        let Some((keyspace, user)) = name.split_once(SLASH) else {
            let answer = gateway.authenticate(name, password).await.map_err(errors::status)?;
            return Ok((answer, gateway.clone()));
        };
        let gateway = match self.find(keyspace) {
            Some(Place::Own) => gateway.clone(),
            Some(Place::Other(other)) => other.served().gateway.clone(),
            None => return self.authenticate_here(gateway, name, password).await,
        };
        let answer = match gateway.authenticate(user.to_owned(), password).await {
            Ok(AuthToken { header, token }) => {
                AuthToken { header, token: format!("{keyspace}{SLASH}{token}") }
            }
            // An etcd client that hears so goes on without a token, and would end up elsewhere. This
            // one says nothing but the keyspace.
            Err(KvError::Auth(AuthError::NotEnabled)) => {
                let header = present(gateway.own_store()).await.map_err(errors::status)?;
                AuthToken { header, token: format!("{keyspace}{SLASH}") }
            }
            Err(error) => return Err(errors::status(error)),
        };
        Ok((answer, gateway))
    }

    /// There is no such keyspace: it can only be a user whose name has a slash.
    async fn authenticate_here(
        &self,
        gateway: &Gateway,
        name: String,
        password: String,
    ) -> Result<(AuthToken, Gateway), Status> {
        let answer = gateway.authenticate(name, password).await.map_err(|error| match error {
            // Without users there is none, and who goes on would write into the wrong keyspace.
            KvError::Auth(AuthError::NotEnabled) => AuthError::WrongPassword.into(),
            error => error,
        });
        Ok((answer.map_err(errors::status)?, gateway.clone()))
    }
}

/// The keyspace that tokens name. They are shortened to what the keyspace itself gave out; one that
/// says nothing more is taken away.
fn take_from_tokens(headers: &mut HeaderMap) -> Result<Option<String>, Status> {
    let mut chosen: Option<String> = None;
    for name in &TOKENS {
        let Some(text) = headers.get(name).and_then(|value| value.to_str().ok()) else { continue };
        let token = text.strip_prefix(TOKEN_SCHEME).unwrap_or(text);
        let Some((keyspace, rest)) = token.split_once(SLASH) else { continue };
        let keyspace = keyspace.to_owned();
        let rest = (!rest.is_empty()).then(|| HeaderValue::try_from(rest));
        match rest.transpose().map_err(|_| errors::status(AuthError::InvalidToken.into()))? {
            Some(rest) => drop(headers.insert(name, rest)),
            None => drop(headers.remove(name)),
        }
        if chosen.replace(keyspace.clone()).is_some_and(|other| other != keyspace) {
            return Err(errors::status(AuthError::InvalidToken.into()));
        }
    }
    Ok(chosen)
}

/// Puts [`Choose`] in front of what serves a port's own keyspace.
#[derive(Clone)]
pub(crate) struct ChooseLayer(pub(crate) Choice);

impl Layer<CountCalls<Routes>> for ChooseLayer {
    type Service = Choose;

    fn layer(&self, own: CountCalls<Routes>) -> Choose {
        Choose { choice: self.0.clone(), own }
    }
}

/// Sends each call to the keyspace that it is for.
#[derive(Clone)]
pub(crate) struct Choose {
    choice: Choice,
    own: CountCalls<Routes>,
}

type Answer = Result<Response<Body>, Infallible>;

impl Service<Request<Body>> for Choose {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Counting<<Routes as Service<Request<Body>>>::Future>, Ready<Answer>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.choice.place(request.headers_mut()) {
            Ok(Place::Own) => {
                if AUTHENTICATE.contains(&request.uri().path()) {
                    request.extensions_mut().insert(self.choice.clone());
                }
                Either::Left(self.own.call(request))
            }
            Ok(Place::Other(other)) => Either::Left(other.served().service().call(request)),
            Err(status) => Either::Right(ready(Ok(refuse(request.headers(), &status)))),
        }
    }
}

fn refuse(headers: &HeaderMap, status: &Status) -> Response<Body> {
    let content = headers.get(header::CONTENT_TYPE);
    if content.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return status.clone().into_http();
    }
    refusal::answer(status).map(Body::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_keyspace_stands_before_the_token_however_it_is_sent() {
        for name in ["token", "authorization", "grpc-metadata-token"] {
            for value in ["team-a/abc", "Bearer team-a/abc"] {
                let mut headers = headers(&[(name, value)]);
                assert_eq!(
                    take_from_tokens(&mut headers).ok().flatten().as_deref(),
                    Some("team-a")
                );
                assert_eq!(headers[name], "abc");
            }
        }
    }

    #[test]
    fn a_token_that_says_the_keyspace_alone_is_taken_away() {
        let mut both = headers(&[("token", "a/"), ("authorization", "a/"), ("other", "b/c")]);
        assert_eq!(take_from_tokens(&mut both).ok().flatten().as_deref(), Some("a"));
        assert_eq!(both, headers(&[("other", "b/c")]));
    }

    #[test]
    fn other_tokens_pass_as_they_are_and_two_keyspaces_are_refused() {
        let mut plain = headers(&[("token", "abc_-9")]);
        assert!(matches!(take_from_tokens(&mut plain), Ok(None)));
        assert_eq!(plain, headers(&[("token", "abc_-9")]));
        let mut two = headers(&[("token", "a/x"), ("authorization", "b/x")]);
        assert!(take_from_tokens(&mut two).is_err());
    }
}
