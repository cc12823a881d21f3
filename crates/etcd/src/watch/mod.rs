//! The Watch service: one stream carries any number of watches.
//!
//! ```text
//! requests ──► session ◄── follow (one per watch) ◄── dyn Watcher
//!                 │
//!                 └──► a short queue ──► answers
//! ```
//!
//! One task, the [`session`], serves a stream. It takes events from the watches that have some, and only
//! when the queue to the client has room. A client that does not read therefore costs a few batches of
//! events and delays nobody: its watchers are not asked, and read what they missed from history.

mod answers;
mod create;
mod follow;
mod fragment;
mod leader;
mod progress;
mod session;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::gateway::Gateway;
use crate::proto::etcdserverpb::watch_server::Watch;
use crate::proto::etcdserverpb::{WatchRequest, WatchResponse};
use session::Session;

#[async_trait]
impl Watch for Gateway {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let stream = self.admit_stream(request).await?;
        let (answers, queue) = answers::queue();
        let counted = self.metrics.watch_streams.count();
        let session = Session::new(self.clone(), stream.kv, answers, stream.requires_leader);
        tokio::spawn(async move {
            let _counted = counted;
            session.run(stream.requests).await;
        });
        Ok(Response::new(queue))
    }
}
