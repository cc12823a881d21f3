//! gRPC's health checking protocol, by which clients and load balancers choose a node.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::time;
use tonic::{Request, Response, Status, async_trait};

use crate::gateway::Gateway;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::health_server::Health;
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse};

/// How often a watcher of the health is told of a change.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

#[async_trait]
impl Health for Gateway {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request.into_inner())?;
        Ok(Response::new(HealthCheckResponse { status: self.serving().into() }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        known(&request.into_inner())?;
        let shutdown = self.shutdown.clone();
        let changes = stream::unfold((self.clone(), None), |(gateway, told)| async move {
            let serving = loop {
                let serving = gateway.serving();
                if told != Some(serving) {
                    break serving;
                }
                time::sleep(CHECK_INTERVAL).await;
            };
            let answer = HealthCheckResponse { status: serving.into() };
            Some((Ok(answer), (gateway, Some(serving))))
        });
        Ok(Response::new(changes.take_until(shutdown.cancelled_owned()).boxed()))
    }
}

/// All services are as healthy as the server as a whole.
fn known(request: &HealthCheckRequest) -> Result<(), Status> {
    if request.service.is_empty() || request.service.starts_with("etcdserverpb.") {
        return Ok(());
    }
    Err(Status::not_found("unknown service"))
}

impl Gateway {
    /// A node without a leader can neither write nor read the latest.
    fn serving(&self) -> ServingStatus {
        match self.cluster.leader() {
            Some(_) => ServingStatus::Serving,
            None => ServingStatus::NotServing,
        }
    }
}
