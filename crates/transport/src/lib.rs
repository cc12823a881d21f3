//! Framed messages and calls between Onefold processes, over TCP on a node's peer port.
//!
//! ```text
//!   Peers ── Link (node, class) ── Connection ═══ TCP ═══ session ── Router ── handler
//!     address book   backoff        pending calls          admission    one task a request
//! ```
//!
//! A [`Server`] answers what its [`Router`] knows; [`Peers`] sends one-way messages and makes
//! calls. Calls are multiplexed on one connection for each (peer, [`Class`]) and answered in any
//! order. A service declares a call as a [`Method`]: its head is postcard, its body is bulk bytes
//! that are never copied between the socket and the handler. The wire format is
//! `docs/formats/transport.md`.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use bytes::Bytes;
//! use onefold_transport::*;
//!
//! struct Greet;
//! impl Method for Greet {
//!     const ID: MethodId = MethodId(1);
//!     const NAME: &'static str = "example.greet";
//!     type Request = String;
//!     type Response = String;
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut router = Router::default();
//! router.call::<Greet, _, _>(|_caller, name, body| async move {
//!     Ok((format!("hello, {name}"), body))
//! });
//! let server = Server::bind("127.0.0.1:0").await?;
//! let address = server.local_address().to_string();
//! let identity = Arc::new(IdentityCell::new(Identity::CLIENT));
//! tokio::spawn(server.serve(Arc::clone(&identity), router, Default::default()));
//!
//! let peers = Peers::new(identity, Limits::default());
//! let (name, timeout) = ("world".to_owned(), Duration::from_secs(10));
//! let (answer, _body) =
//!     peers.call_address::<Greet>(&address, Class::Call, &name, Bytes::new(), timeout).await?;
//! assert_eq!(answer, "hello, world");
//! # Ok(())
//! # }
//! ```
//!
//! What this room must never do: retry a call by itself (only the caller knows whether that is
//! safe; see [`CallError::is_unsent`]), hold an unbounded queue, or let a malformed frame do more
//! than end the connection that it came on.

mod complaints;
mod connection;
mod error;
mod frame;
mod hello;
mod identity;
mod limits;
mod link;
mod method;
mod peers;
mod registry;
mod router;
mod server;
mod session;
mod status;
mod wire;

pub use complaints::Complaints;
pub use error::{CallError, RemoteCode, RemoteError, ServeError};
pub use hello::Refusal;
pub use identity::{Identity, IdentityCell};
pub use limits::Limits;
pub use method::{Class, Method, MethodId};
pub use peers::{Peers, Routes};
pub use router::{Caller, Router};
pub use server::Server;
pub use status::{Counter, KindCounter, TransportStatus};
