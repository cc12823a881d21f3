//! The task that serves one stream of watches.

use std::collections::BTreeMap;
use std::future::{self, Future};
use std::mem;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{AbortHandle, Aborted, BoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use onefold_kv::{Header, Kv, KvError, WatchBatch, Watcher};
use onefold_types::Revision;
use tokio::sync::watch;
use tokio::time::{self, Instant, Interval};
use tonic::{Status, Streaming};

use super::answers::{Answers, Gone};
use super::create::Create;
use super::follow::{Followed, News, Waiting};
use super::fragment;
use super::leader::LeaderCheck;
use super::progress::{Asked, Round};
use crate::convert::{event, number};
use crate::errors;
use crate::gateway::{Gateway, present, present_with};
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::room::Taken;

/// The id in answers about no watch.
const NO_WATCH: i64 = -1;

type Creating = BoxFuture<'static, (Create, Result<(Header, Box<dyn Watcher>), KvError>)>;

/// The state of one stream.
pub(crate) struct Session {
    gateway: Gateway,
    /// The store that the stream is for.
    kv: Arc<dyn Kv>,
    answers: Answers,
    /// The open watches by id.
    watches: BTreeMap<i64, Watch>,
    /// One future for each open watch, and for canceled ones until they notice.
    following: FuturesUnordered<Waiting>,
    /// Clients take the answers to their creations in the order of these, so that there is one at
    /// a time, and no further request is read meanwhile.
    creating: Option<Creating>,
    id_next: i64,
    /// The latest that the stream knows of the store.
    latest: Header,
    progress: Progress,
    leader: LeaderCheck,
}

/// One open watch.
struct Watch {
    stop: AbortHandle,
    fragment: bool,
    progress_notify: bool,
    /// Nothing was sent since the clock asked for progress last.
    is_quiet: bool,
    _permit: Taken,
}

/// Questions for progress.
struct Progress {
    clock: Interval,
    /// What the next round is for.
    wanted: Asked,
    /// The store is being asked where it stands, which opens a round.
    asking: Option<BoxFuture<'static, Result<Header, KvError>>>,
    round: Option<Round>,
    /// Tells every watch that a round began.
    rounds: watch::Sender<u64>,
}

/// Why a session ends.
enum End {
    /// The client is gone or done.
    Quiet,
    /// The client is told.
    Told(Status),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Quiet
    }
}

impl Session {
    pub(crate) fn new(
        gateway: Gateway,
        kv: Arc<dyn Kv>,
        answers: Answers,
        requires_leader: bool,
    ) -> Self {
        let period = gateway.options.progress_interval;
        let progress = Progress {
            clock: time::interval_at(Instant::now() + period, period),
            wanted: Asked::default(),
            asking: None,
            round: None,
            rounds: watch::Sender::new(0),
        };
        Self {
            gateway,
            kv,
            answers,
            watches: BTreeMap::new(),
            following: FuturesUnordered::new(),
            creating: None,
            id_next: 0,
            latest: Header::default(),
            progress,
            leader: LeaderCheck::new(requires_leader),
        }
    }

    /// Serves the stream until either side ends it.
    pub(crate) async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let mut is_open = true;
        let end = loop {
            let stepped = self.step(&mut requests, &mut is_open).await;
            let sent = self.answers.flush().await.map_err(End::from);
            if let Err(end) = stepped.and(sent) {
                break end;
            }
        };
        if let End::Told(status) = end {
            // Fails only when the client is gone, which needs no answer.
            let _ = self.answers.end(status).await;
        }
    }

    /// Waits for what comes first and deals with it.
    async fn step(
        &mut self,
        requests: &mut Streaming<WatchRequest>,
        is_open: &mut bool,
    ) -> Result<(), End> {
        let is_creating = self.creating.is_some();
        let is_asking = self.progress.asking.is_some();
        if !*is_open && !is_creating && !is_asking && self.watches.is_empty() {
            return Err(End::Quiet);
        }
        tokio::select! {
            () = self.gateway.shutdown.cancelled() => Err(End::Told(errors::stopped())),
            () = self.answers.closed() => Err(End::Quiet),
            () = self.leader.lost(&*self.gateway.cluster) => Err(End::Told(errors::no_leader())),
            request = requests.message(), if *is_open && !is_creating => match request {
                Ok(Some(request)) => self.request(request).await,
                // A client may have nothing more to ask and still listen.
                Ok(None) => {
                    *is_open = false;
                    Ok(())
                }
                Err(_) => Err(End::Quiet),
            },
            (create, result) = finished(&mut self.creating) => self.created(create, result).await,
            Some(followed) = self.following.next() => self.followed(followed).await,
            present = finished(&mut self.progress.asking) => self.start_round(present).await,
            _ = self.progress.clock.tick() => {
                self.progress.wanted.by_clock = true;
                self.ask_for_progress();
                Ok(())
            }
        }
    }

    async fn request(&mut self, request: WatchRequest) -> Result<(), End> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress.wanted.by_client = true;
                self.ask_for_progress();
                Ok(())
            }
            // Etcd ignores what it does not know.
            None => Ok(()),
        }
    }
}

/// Creating and canceling.
impl Session {
    async fn create(&mut self, request: WatchCreateRequest) -> Result<(), End> {
        let create = match Create::parse(request) {
            Ok(create) => create,
            Err(reason) => return self.refuse(reason).await,
        };
        if create.id != 0 && self.watches.contains_key(&create.id) {
            return self.refuse(errors::DUPLICATE_WATCH_ID).await;
        }
        let kv = self.kv.clone();
        let creating = async move {
            let result = async {
                // The store may still have events of compacted history at hand, but etcd's clients
                // count on being told.
                let present = present_with(&*kv, create.request.from_revision).await?;
                let watcher = kv.watch(create.request.clone()).await?;
                Ok((present, watcher))
            };
            let result = result.await;
            (create, result)
        };
        self.creating = Some(creating.boxed());
        Ok(())
    }

    async fn created(
        &mut self,
        create: Create,
        result: Result<(Header, Box<dyn Watcher>), KvError>,
    ) -> Result<(), End> {
        match result {
            Ok((present, watcher)) => self.open(create, present, watcher).await,
            Err(KvError::Compacted { compacted, .. }) => {
                let id = self.assign(create.id);
                self.send(WatchResponse { created: true, ..self.response(id) }).await?;
                self.send(compacted_response(self.response(id), compacted)).await
            }
            Err(error) if interrupts(&error) => Err(interrupted(error)),
            Err(error) => self.refuse(errors::status(error).message()).await,
        }
    }

    async fn open(
        &mut self,
        create: Create,
        present: Header,
        watcher: Box<dyn Watcher>,
    ) -> Result<(), End> {
        let Some(permit) = self.gateway.admission.watch() else {
            return self.refuse(errors::too_many_requests().message()).await;
        };
        let id = self.assign(create.id);
        self.latest = present;
        if create.request.from_revision == Revision::ZERO {
            // A client resumes after this revision when it has to: it must be where this watch
            // begins.
            self.latest.revision = before(watcher.next_revision());
        }
        let mut rounds = self.progress.rounds.subscribe();
        if let Some(round) = &mut self.progress.round {
            round.joined(id);
            rounds.mark_changed();
        }
        let (stop, waiting) = Followed { id, watcher, rounds }.wait();
        self.following.push(waiting);
        let watch = Watch {
            stop,
            fragment: create.fragment,
            progress_notify: create.progress_notify,
            is_quiet: true,
            _permit: permit,
        };
        self.watches.insert(id, watch);
        self.send(WatchResponse { created: true, ..self.response(id) }).await
    }

    /// The wished id, or the next one that is free.
    fn assign(&mut self, wish: i64) -> i64 {
        if wish != 0 {
            return wish;
        }
        while self.watches.contains_key(&self.id_next) {
            self.id_next += 1;
        }
        self.id_next += 1;
        self.id_next - 1
    }

    /// Answers a creation that makes no watch.
    async fn refuse(&mut self, reason: &str) -> Result<(), End> {
        let response = WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..self.response(NO_WATCH)
        };
        self.send(response).await
    }

    /// Ends a watch; one that the stream does not have is ignored, as in etcd.
    async fn cancel(&mut self, id: i64) -> Result<(), End> {
        if !self.remove(id) {
            return Ok(());
        }
        self.send(WatchResponse { canceled: true, ..self.response(id) }).await?;
        self.finish_round().await
    }

    fn remove(&mut self, id: i64) -> bool {
        let Some(watch) = self.watches.remove(&id) else { return false };
        watch.stop.abort();
        if let Some(round) = &mut self.progress.round {
            round.gone(id);
        }
        true
    }
}

/// Events.
impl Session {
    /// Waits for what is next of a watch that is still open.
    fn follow(&mut self, followed: Followed) {
        if let Some(watch) = self.watches.get_mut(&followed.id) {
            let (stop, waiting) = followed.wait();
            watch.stop = stop;
            self.following.push(waiting);
        }
    }

    /// Deals with the news of one watch, and with those of others that have come by now.
    async fn followed(&mut self, first: Result<(Followed, News), Aborted>) -> Result<(), End> {
        let mut next = Some(first);
        while let Some(followed) = next {
            // A canceled watch has nothing to say.
            if let Ok((followed, news)) = followed {
                self.news(followed, news).await?;
            }
            next = match self.answers.has_room() {
                true => self.following.next().now_or_never().flatten(),
                false => None,
            };
        }
        Ok(())
    }

    async fn news(&mut self, followed: Followed, news: News) -> Result<(), End> {
        match news {
            News::Batch(batch) => self.batch(followed, batch).await,
            News::Bookmark(next) => {
                if let Some(round) = &mut self.progress.round {
                    round.told(followed.id, next);
                }
                self.follow(followed);
                self.finish_round().await
            }
            News::Failed(KvError::Compacted { compacted, .. }) => {
                self.history_is_gone(followed.id, compacted).await
            }
            News::Failed(KvError::Auth(error)) => {
                self.no_longer_permitted(followed.id, KvError::Auth(error)).await
            }
            News::Failed(error) => Err(interrupted(error)),
        }
    }

    async fn batch(&mut self, followed: Followed, batch: WatchBatch) -> Result<(), End> {
        let id = followed.id;
        self.latest = batch.header;
        if !batch.events.is_empty() {
            self.events(id, batch.events).await?;
        }
        if let Some(compacted) = batch.compacted {
            return self.history_is_gone(id, compacted).await;
        }
        self.follow(followed);
        Ok(())
    }

    async fn events(&mut self, id: i64, events: Vec<onefold_kv::Event>) -> Result<(), End> {
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
        watch.is_quiet = false;
        let splits = watch.fragment;
        let events = events.into_iter().map(event).collect();
        let response = WatchResponse { events, ..self.response(id) };
        let parts = if splits { fragment::split(response) } else { vec![response] };
        for part in parts {
            self.send(part).await?;
        }
        Ok(())
    }

    async fn history_is_gone(&mut self, id: i64, compacted: Revision) -> Result<(), End> {
        self.remove(id);
        self.send(compacted_response(self.response(id), compacted)).await?;
        self.finish_round().await
    }
}

/// What is no longer the client's.
impl Session {
    async fn no_longer_permitted(&mut self, id: i64, error: KvError) -> Result<(), End> {
        self.remove(id);
        let cancel_reason = errors::status(error).message().to_owned();
        let response = WatchResponse { canceled: true, cancel_reason, ..self.response(id) };
        self.send(response).await?;
        self.finish_round().await
    }
}

/// Progress.
impl Session {
    /// Begins a round if somebody wants one and none is in work.
    fn ask_for_progress(&mut self) {
        if self.progress.asking.is_some() || self.progress.round.is_some() {
            return;
        }
        if !self.watches.values().any(|watch| watch.progress_notify) {
            self.progress.wanted.by_clock = false;
        }
        if self.progress.wanted.is_any() {
            let kv = self.kv.clone();
            self.progress.asking = Some(async move { present(&*kv).await }.boxed());
        }
    }

    async fn start_round(&mut self, present: Result<Header, KvError>) -> Result<(), End> {
        let present = present.map_err(interrupted)?;
        self.latest = present;
        let asked = mem::take(&mut self.progress.wanted);
        self.progress.round = Some(Round::new(asked, present, self.watches.keys().copied()));
        self.progress.rounds.send_modify(|rounds| *rounds += 1);
        self.finish_round().await
    }

    /// Answers a round in which every watch has told.
    async fn finish_round(&mut self) -> Result<(), End> {
        let Some(round) = self.progress.round.take_if(|round| round.is_complete()) else {
            return Ok(());
        };
        if round.asked.by_clock {
            for (id, header) in round.of_watches() {
                self.notify(id, header).await?;
            }
        }
        if round.asked.by_client {
            let header = self.gateway.header(round.of_stream());
            self.send(WatchResponse { header, watch_id: NO_WATCH, ..Default::default() }).await?;
        }
        self.ask_for_progress();
        Ok(())
    }

    async fn notify(&mut self, id: i64, header: Header) -> Result<(), End> {
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
        let was_quiet = mem::replace(&mut watch.is_quiet, true);
        if !was_quiet || !watch.progress_notify {
            return Ok(());
        }
        let header = self.gateway.header(header);
        self.send(WatchResponse { header, watch_id: id, ..Default::default() }).await
    }
}

/// Answers.
impl Session {
    fn response(&self, watch_id: i64) -> WatchResponse {
        let header = self.gateway.header(self.latest);
        WatchResponse { header, watch_id, ..Default::default() }
    }

    async fn send(&mut self, response: WatchResponse) -> Result<(), End> {
        Ok(self.answers.send(response).await?)
    }
}

fn compacted_response(response: WatchResponse, compacted: Revision) -> WatchResponse {
    WatchResponse {
        canceled: true,
        compact_revision: number(compacted.get()),
        cancel_reason: errors::COMPACTED.to_owned(),
        ..response
    }
}

fn before(next: Revision) -> Revision {
    Revision(next.get().saturating_sub(1))
}

/// Whether an error is the store's, so that the same request may succeed later or elsewhere.
fn interrupts(error: &KvError) -> bool {
    matches!(
        error,
        KvError::TimedOut { .. }
            | KvError::Unavailable { .. }
            | KvError::Overloaded { .. }
            | KvError::Importing
            | KvError::Internal { .. }
    )
}

/// Ends the stream such that clients resume their watches, at this node or another.
fn interrupted(error: KvError) -> End {
    End::Told(Status::unavailable(errors::status(error).message()))
}

/// Waits for a future that there may be; it is gone afterwards.
async fn finished<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    let Some(running) = future else { return future::pending().await };
    let output = running.await;
    *future = None;
    output
}
