//! The etcd that is mirrored.

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use onefold_etcd::proto::etcdserverpb::kv_client::KvClient;
use onefold_etcd::proto::etcdserverpb::watch_client::WatchClient;
use onefold_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use onefold_etcd::proto::etcdserverpb::{
    RangeRequest, RangeResponse, ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use onefold_etcd::proto::mvccpb::KeyValue;
use onefold_kv::KeySpan;
use thiserror::Error;
use tonic::{Code, Status, Streaming};

use crate::kv::etcd::endpoint::{EtcdEndpoint, MESSAGE_BYTES_MAX};

/// Keys in one page of a copy. A page of keys with the largest values fits a message.
const PAGE_KEYS: i64 = 256;

/// The source does not answer as it should; later it may.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct SourceError(String);

impl From<Status> for SourceError {
    fn from(status: Status) -> Self {
        Self(format!("the source says: {} ({:?})", status.message(), status.code()))
    }
}

impl SourceError {
    /// The stream of events ended.
    pub fn ended() -> Self {
        Self("the source ended the stream of events".to_owned())
    }

    /// The watch was ended.
    pub fn canceled(reason: &str) -> Self {
        Self(format!("the source ended the watch: {reason}"))
    }
}

/// A prefix of keys in a running etcd.
pub struct Source {
    endpoint: EtcdEndpoint,
    key: Bytes,
    range_end: Bytes,
    cluster_id: u64,
    revision: i64,
}

/// Pages of keys at one revision.
pub struct Pages<'s> {
    source: &'s Source,
    revision: i64,
    /// Where the next page begins; none after the last.
    next: Option<Bytes>,
    page: std::vec::IntoIter<KeyValue>,
}

impl Source {
    pub async fn connect(
        addresses: &[String],
        user: Option<&str>,
        prefix: Bytes,
    ) -> anyhow::Result<Self> {
        let endpoint = match EtcdEndpoint::connect(addresses, user).await {
            Ok(endpoint) => endpoint,
            Err(error) => return Err(SourceError(format!("{error:#}")).into()),
        };
        let all = Bytes::from_static(&[0]);
        let (key, range_end) = match prefix.is_empty() {
            true => (all.clone(), all),
            false => (prefix.clone(), KeySpan::prefix_end(&prefix)),
        };
        let mut source = Self { endpoint, key, range_end, cluster_id: 0, revision: 0 };
        let header = source.header().await?;
        (source.cluster_id, source.revision) = (header.cluster_id, header.revision);
        Ok(source)
    }

    /// Its revision now.
    pub async fn present(&self) -> Result<i64, SourceError> {
        Ok(self.header().await?.revision)
    }

    async fn header(&self) -> Result<ResponseHeader, SourceError> {
        let count = RangeRequest {
            key: self.key.clone(),
            range_end: self.range_end.clone(),
            count_only: true,
            ..RangeRequest::default()
        };
        Ok(self.range(count).await?.header.unwrap_or_default())
    }

    /// Which cluster it is.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// Its revision when it was connected.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The keys in order as they stand at a revision.
    pub fn pages(&self, revision: i64) -> Pages<'_> {
        let next = Some(self.key.clone());
        Pages { source: self, revision, next, page: Vec::new().into_iter() }
    }

    /// The events from a revision on.
    pub async fn watch(&self, from: i64) -> Result<Streaming<WatchResponse>, SourceError> {
        let create = WatchCreateRequest {
            key: self.key.clone(),
            range_end: self.range_end.clone(),
            start_revision: from,
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The watch lasts for as long as the stream of requests is open.
        let requests = futures::stream::iter([create]).chain(futures::stream::pending());
        let mut client = WatchClient::new(self.endpoint.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(client.watch(self.endpoint.request(requests)).await?.into_inner())
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let mut client = KvClient::new(self.endpoint.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(client.range(self.endpoint.request(request)).await?.into_inner())
    }
}

/// What a page can be instead of keys.
pub enum PageError {
    /// The revision is compacted: begin anew with another one.
    Compacted,
    /// The source failed.
    Source(SourceError),
}

impl Pages<'_> {
    /// The next key.
    pub async fn next(&mut self) -> Result<Option<KeyValue>, PageError> {
        loop {
            if let Some(kv) = self.page.next() {
                return Ok(Some(kv));
            }
            let Some(key) = self.next.take() else { return Ok(None) };
            let request = RangeRequest {
                key,
                range_end: self.source.range_end.clone(),
                limit: PAGE_KEYS,
                revision: self.revision,
                ..RangeRequest::default()
            };
            let answer = match self.source.range(request).await {
                Ok(answer) => answer,
                Err(status) if status.code() == Code::OutOfRange => {
                    return Err(PageError::Compacted);
                }
                Err(status) => return Err(PageError::Source(status.into())),
            };
            if answer.more {
                self.next = answer.kvs.last().map(|last| after(&last.key));
            }
            self.page = answer.kvs.into_iter();
        }
    }
}

/// The smallest key after this one.
pub fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
