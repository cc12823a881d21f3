//! Clients that watch, lose their stream, and go on elsewhere with the next revision.

use std::time::Duration;

use onefold_checker::history::{Message, News, Span, Stream, Watch};
use onefold_etcd::proto::etcdserverpb::watch_client::WatchClient;
use onefold_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use onefold_etcd::proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use onefold_types::{NodeId, Revision};
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

use super::convert::{ends, event, revision, signed, unsigned};
use super::recorder::Recorder;
use super::session::Session;

/// How long a stream may take to open, or be silent although it was asked for progress.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Longest rest before a client goes on with another stream.
const RESUME_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How often progress is asked for.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(900);
/// How long a client stays with a stream before it leaves by itself, in milliseconds.
const STAY_MS: std::ops::Range<u64> = 1_000..12_000;
/// Requests of one stream that wait to be sent.
const REQUESTS_MAX: usize = 4;

/// When a watch is over.
#[derive(Clone)]
pub struct Ending {
    /// The revision that it must have told; none while more is to come.
    pub until: watch::Receiver<Option<Revision>>,
    /// Cancelled when nobody waits any longer.
    pub give_up: CancellationToken,
}

/// A stream of one watch.
pub struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

/// What is asked of a watch.
#[derive(Clone, Debug)]
pub struct Wish {
    pub span: Span,
    pub start: Option<Revision>,
    pub previous: bool,
    pub fragment: bool,
}

impl WatchStream {
    /// Opens a stream with one watch.
    pub async fn open(channel: Channel, wish: &Wish) -> Result<Self, tonic::Status> {
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let (key, range_end) = ends(&wish.span);
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: wish.start.map_or(0, |start| signed(start.get())),
            prev_kv: wish.previous,
            fragment: wish.fragment,
            ..Default::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The queue is empty and its other end is here.
        let _ = requests.try_send(create);
        let answers = client.watch(ReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { requests, answers })
    }

    /// Asks how far the watch has come. Too many questions at once are none.
    pub fn ask_for_progress(&self) {
        let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
        let _ = self.requests.try_send(WatchRequest { request_union: Some(request) });
    }

    /// The next message; none when the stream has ended.
    pub async fn next(&mut self, recorder: &Recorder) -> Result<Option<Message>, tonic::Status> {
        let answer = self.answers.message().await?;
        Ok(answer.map(|answer| Message {
            at: recorder.now(),
            revision: revision(answer.header.as_ref()),
            news: news(&answer),
        }))
    }
}

fn news(answer: &WatchResponse) -> News {
    if answer.canceled {
        return match answer.compact_revision {
            0 => News::Ended(answer.cancel_reason.clone()),
            oldest => News::Compacted { oldest: Revision(unsigned(oldest)) },
        };
    }
    if answer.created {
        return News::Created;
    }
    if answer.events.is_empty() {
        return News::Progress;
    }
    let events = answer.events.iter().map(event).collect();
    News::Events { events, is_fragment: answer.fragment }
}

/// A client that watches.
pub struct WatchingClient {
    pub session: Session,
    pub span: Span,
    pub previous: bool,
    pub ending: Ending,
    /// The first revision that was not told in full.
    next: Option<Revision>,
}

impl WatchingClient {
    pub fn new(session: Session, span: Span, previous: bool, ending: Ending) -> Self {
        Self { session, span, previous, ending, next: None }
    }

    /// Watches until everything up to the end was told.
    pub async fn run(mut self) {
        let mut streams = Vec::new();
        while !self.is_over() {
            let Some((node, channel)) = self.session.connect_anywhere().await else { continue };
            streams.push(self.listen(node, channel).await);
            self.session.rest(RESUME_PAUSE_MAX).await;
        }
        let Self { session, span, previous, .. } = self;
        session.recorder.watch(Watch { client: session.client, span, previous, streams });
    }

    fn is_over(&self) -> bool {
        let is_told = |until: Revision| self.next.is_some_and(|next| next > until);
        self.ending.give_up.is_cancelled() || self.ending.until.borrow().is_some_and(is_told)
    }

    /// Listens to one stream until it ends, is silent, or the client leaves it.
    async fn listen(&mut self, node: NodeId, channel: Channel) -> Stream {
        let wish = Wish {
            span: self.span.clone(),
            start: self.next,
            previous: self.previous,
            fragment: self.session.random.random(),
        };
        let mut stream = Stream { node, start: wish.start, messages: Vec::new() };
        let Ok(Ok(mut open)) = timeout(SILENCE_MAX, WatchStream::open(channel, &wish)).await else {
            return stream;
        };
        let leaves =
            Instant::now() + Duration::from_millis(self.session.random.random_range(STAY_MS));
        let mut silent_until = Instant::now() + SILENCE_MAX;
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let give_up = self.ending.give_up.clone();
        while !self.is_over() {
            let is_last = self.ending.until.borrow().is_some();
            tokio::select! {
                message = open.next(&self.session.recorder) => {
                    let Ok(Some(message)) = message else { break };
                    silent_until = Instant::now() + SILENCE_MAX;
                    self.note(&message);
                    let is_end = matches!(message.news, News::Compacted { .. } | News::Ended(_));
                    stream.messages.push(message);
                    if is_end {
                        break;
                    }
                }
                _ = progress.tick() => open.ask_for_progress(),
                () = sleep_until(silent_until) => break,
                () = sleep_until(leaves), if !is_last => break,
                () = give_up.cancelled() => break,
            }
        }
        stream
    }

    fn note(&mut self, message: &Message) {
        let next = match &message.news {
            News::Created => self.next.unwrap_or(message.revision.next()),
            News::Events { events, is_fragment: false } => {
                events.iter().map(|event| event.revision.next()).max().unwrap_or_default()
            }
            News::Progress => message.revision.next(),
            News::Compacted { oldest } => *oldest,
            News::Events { .. } | News::Ended(_) => return,
        };
        self.next = Some(self.next.unwrap_or_default().max(next));
    }
}
