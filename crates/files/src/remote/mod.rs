//! The file system for processes that are no nodes, such as the command line: any node does the
//! work, over the transport.

mod client;
mod methods;
mod service;

pub use client::RemoteFiles;
pub(crate) use service::RemoteService;
