//! Watchers, and the replicas that tell them what happens.
//!
//! A stream is like a connection: what is sent over it arrives in order or not at all, and it breaks
//! with the process at its other end.

use onefold_checker::history::{Message, News, Span, Stream, Watch};
use onefold_kv::WatchRequest;
use onefold_types::{NodeId, Revision};

use super::{
    super::{
        checker::{Checked, Violation},
        clock::{MILLISECOND, Micros, SECOND},
        coverage::{Branch, FaultKind},
        event::Event,
        plan::Plan,
        sabotage::Sabotage,
        world::World,
    },
    record::nanos,
    words,
};
use crate::random::Random;

/// How long a replica may be silent, although it was asked how far it is, before it is left.
const SILENCE_MAX: Micros = 4 * SECOND;

/// How often it is asked.
const QUESTION_INTERVAL: Micros = 900 * MILLISECOND;

/// A watcher, over all its streams.
#[derive(Debug)]
pub(in super::super) struct Watcher {
    pub(in super::super) group: usize,
    span: Span,
    previous: bool,
    /// The first revision that was not told in full.
    next: Option<Revision>,
    current: Option<Listening>,
    /// Streams that were opened.
    opened: u64,
    turn: u64,
    streams: Vec<Stream>,
}

/// The stream that a watcher has.
#[derive(Debug)]
struct Listening {
    node: NodeId,
    stream: Stream,
    /// When the last thing that was sent over it arrives.
    arrives: Micros,
    /// Nothing that would arrive later does.
    breaks: Option<Micros>,
    heard: Micros,
    leaves: Micros,
}

/// What a replica says on a stream; nothing when the stream is over.
pub(in super::super) type Told = Option<(Revision, News)>;

impl Watcher {
    pub(in super::super) fn new(group: usize, span: Span, previous: bool) -> Self {
        Self {
            group,
            span,
            previous,
            next: None,
            current: None,
            opened: 0,
            turn: 0,
            streams: Vec::new(),
        }
    }

    /// Whether everything up to a revision was told.
    pub(in super::super) fn has_heard(&self, end: Revision) -> bool {
        self.next.is_some_and(|next| next > end)
    }

    /// Those of a seed: of everything, of some keys, of one.
    pub(in super::super) fn of_plan(plan: &Plan, random: &mut Random) -> Vec<Self> {
        let mut watchers = Vec::new();
        for group in (0..plan.groups).filter(|group| plan.is_store(*group)) {
            for _ in 0..plan.store.watchers {
                let span = match random.within(0..=2) {
                    0 => Span::everything(),
                    1 => Span::prefix("k0"),
                    _ => Span::key("k11"),
                };
                watchers.push(Self::new(group, span, random.chance(500)));
            }
        }
        watchers
    }

    /// What it heard.
    pub(in super::super) fn into_watch(mut self, client: u64) -> Watch {
        self.streams.extend(self.current.take().map(|current| current.stream));
        Watch { client, span: self.span, previous: self.previous, streams: self.streams }
    }

    fn note(&mut self, message: &Message) {
        let next = match &message.news {
            News::Created => self.next.unwrap_or(message.revision.next()),
            News::Events { events, .. } => {
                events.iter().map(|event| event.revision.next()).max().unwrap_or_default()
            }
            News::Progress => message.revision.next(),
            News::Compacted { oldest } => *oldest,
            News::Ended(_) => return,
        };
        self.next = Some(self.next.unwrap_or_default().max(next));
    }
}

impl World {
    /// All watchers begin.
    pub(in super::super) fn wake_watchers(&mut self) {
        for watcher in 0..self.watchers.len() {
            let delay = self.random.within(0..=5 * SECOND);
            self.plan_watcher(watcher, delay);
        }
    }

    fn plan_watcher(&mut self, watcher: usize, delay: Micros) {
        self.watchers[watcher].turn += 1;
        let turn = self.watchers[watcher].turn;
        self.schedule(delay, Event::Watcher { watcher, turn });
    }

    /// A watcher opens a stream, asks how far it is, or leaves it.
    pub(in super::super) fn watcher_turn(&mut self, watcher: usize, turn: u64) {
        if self.watchers[watcher].turn != turn {
            return;
        }
        let now = self.now;
        let Some(current) = &self.watchers[watcher].current else {
            self.open_stream(watcher);
            return;
        };
        let is_over =
            now >= current.heard + SILENCE_MAX || (now >= current.leaves && !self.is_healed);
        if is_over {
            self.leave_stream(watcher);
            return;
        }
        let (node, stream) = (current.node, self.watchers[watcher].opened);
        let delay = self.random.within(1..=5 * MILLISECOND);
        self.schedule(delay, Event::AskedForProgress { node, watcher, stream });
        self.plan_watcher(watcher, QUESTION_INTERVAL);
    }

    fn open_stream(&mut self, watcher: usize) {
        let group = self.watchers[watcher].group;
        let members = self.leader(group).map(|leader| self.membership(leader, group).members());
        let serving = self.serving();
        let mut node = self.random.pick(&serving);
        // Who is no member any more says nothing: now and then it is asked all the same.
        if let Some(members) = members.filter(|members| !members.is_empty())
            && (self.is_healed || self.random.chance(900))
        {
            let members: Vec<NodeId> = members.into_iter().collect();
            node = self.random.pick(&members);
        }
        let stay = self.random.within(500 * MILLISECOND..=self.plan.store.stay_max);
        let delay = self.random.within(1..=5 * MILLISECOND);
        let state = &mut self.watchers[watcher];
        state.opened += 1;
        let start = state.next;
        if start.is_some() {
            self.coverage.hit(Branch::WatchResumed);
        }
        state.current = Some(Listening {
            node,
            stream: Stream { node, start, messages: Vec::new() },
            arrives: self.now,
            breaks: None,
            heard: self.now,
            leaves: self.now + stay,
        });
        let stream = state.opened;
        self.schedule(delay, Event::WatchAsked { node, watcher, stream, start });
        self.plan_watcher(watcher, QUESTION_INTERVAL);
    }

    fn leave_stream(&mut self, watcher: usize) {
        let state = &mut self.watchers[watcher];
        let Some(current) = state.current.take() else { return };
        state.streams.push(current.stream);
        let stream = state.opened;
        let group = state.group;
        if let Some(hosted) = self.hosted(current.node, group) {
            hosted.watches.remove(&(watcher, stream));
        }
        let pause = self.random.within(1..=2 * SECOND);
        self.plan_watcher(watcher, pause);
    }

    /// A replica is to tell what happens.
    pub(in super::super) fn watch_asked(
        &mut self,
        id: NodeId,
        watcher: usize,
        stream: u64,
        start: Option<Revision>,
    ) -> Checked {
        let state = &self.watchers[watcher];
        if state.opened != stream || state.current.is_none() {
            return Ok(());
        }
        let (group, previous) = (state.group, state.previous);
        let (key, range_end) = words::ends(&state.span);
        let mut from_revision = start.unwrap_or_default();
        if self.sabotage == Some(Sabotage::WatchResumesTooEarly) && from_revision.get() > 2 {
            from_revision = Revision(from_revision.get() - 2);
        }
        let request =
            WatchRequest { key, range_end, from_revision, prev_kv: previous, ..Default::default() };
        let bytes_max = self.plan.store.batch_bytes;
        let Some(hosted) = self.hosted(id, group) else {
            self.tell_watcher(watcher, stream, None);
            return Ok(());
        };
        if hosted.raft.is_state_lost() {
            self.tell_watcher(watcher, stream, None);
            return Ok(());
        }
        let watching = hosted.desk().attendant.watch(request, bytes_max);
        let watching = watching.map_err(|error| Violation {
            invariant: "requests are well-formed",
            detail: format!("g{group} n{id}: {error}"),
        })?;
        let current = watching.current();
        hosted.watches.insert((watcher, stream), watching);
        self.tell_watcher(watcher, stream, Some((current, News::Created)));
        self.tell_news(id, group);
        Ok(())
    }

    /// A watcher wants to know how far it is.
    pub(in super::super) fn asked_for_progress(&mut self, id: NodeId, watcher: usize, stream: u64) {
        let group = self.watchers[watcher].group;
        let is_hasty = self.sabotage == Some(Sabotage::BookmarkAhead);
        if !is_hasty {
            self.tell_all_news(id, group, watcher, stream);
        }
        let Some(hosted) = self.hosted(id, group) else { return };
        let Some(watching) = hosted.watches.get(&(watcher, stream)) else { return };
        let told = watching.next_revision().get().saturating_sub(1);
        let current = watching.current();
        let revision = if is_hasty { current } else { Revision(told.min(current.get())) };
        self.tell_watcher(watcher, stream, Some((revision, News::Progress)));
    }

    /// A replica has applied something: whoever watches it hears of it, now or soon.
    pub(in super::super) fn tell_news(&mut self, id: NodeId, group: usize) {
        let delay_max = self.plan.store.watch_delay_max;
        let life = self.node(id).life;
        let Some(hosted) = self.hosted(id, group) else { return };
        if hosted.watches.is_empty() || hosted.is_telling {
            return;
        }
        if delay_max > 0 {
            hosted.is_telling = true;
            let delay = self.random.within(1..=delay_max);
            self.schedule(delay, Event::Tell { node: id, life, group });
            return;
        }
        self.tell_now(id, group);
    }

    pub(in super::super) fn tell_now(&mut self, id: NodeId, group: usize) {
        let Some(hosted) = self.hosted(id, group) else { return };
        hosted.is_telling = false;
        let watches: Vec<(usize, u64)> = hosted.watches.keys().copied().collect();
        for (watcher, stream) in watches {
            self.tell_all_news(id, group, watcher, stream);
        }
    }

    fn tell_all_news(&mut self, id: NodeId, group: usize, watcher: usize, stream: u64) {
        loop {
            let Some(hosted) = self.hosted(id, group) else { return };
            let is_state_lost = hosted.raft.is_state_lost();
            let view = hosted.state.view();
            let Some(watching) = hosted.watches.get_mut(&(watcher, stream)) else { return };
            let heard = watching.next(&view);
            let (current, compacted) = (watching.current(), watching.compacted());
            match (heard, compacted) {
                (Ok(events), None) if events.is_empty() => return,
                (Ok(events), None) => {
                    let events = events.iter().map(words::event).collect();
                    self.tell_events(watcher, stream, current, events);
                }
                (Ok(_), Some(oldest)) if !is_state_lost => {
                    self.coverage.hit(Branch::WatchCompacted);
                    self.tell_watcher(watcher, stream, Some((current, News::Compacted { oldest })));
                    return self.close_stream(id, group, watcher, stream);
                }
                _ => return self.close_stream(id, group, watcher, stream),
            }
        }
    }

    fn tell_events(
        &mut self,
        watcher: usize,
        stream: u64,
        current: Revision,
        mut events: Vec<onefold_checker::history::Event>,
    ) {
        if self.sabotage == Some(Sabotage::WatchSplitsRevision) && events.len() > 1 {
            let rest = events.split_off(1);
            let news = News::Events { events, is_fragment: false };
            self.tell_watcher(watcher, stream, Some((current, news)));
            events = rest;
        }
        let news = News::Events { events, is_fragment: false };
        self.tell_watcher(watcher, stream, Some((current, news)));
    }

    fn close_stream(&mut self, id: NodeId, group: usize, watcher: usize, stream: u64) {
        if let Some(hosted) = self.hosted(id, group) {
            hosted.watches.remove(&(watcher, stream));
        }
        self.tell_watcher(watcher, stream, None);
    }

    /// Sends something over a stream.
    fn tell_watcher(&mut self, watcher: usize, stream: u64, told: Told) {
        let delay = self.random.within(1..=5 * MILLISECOND);
        let overtakes = self.sabotage == Some(Sabotage::WatchOvertakes);
        let now = self.now;
        let state = &mut self.watchers[watcher];
        if state.opened != stream {
            return;
        }
        let Some(current) = state.current.as_mut() else { return };
        let arrives = if overtakes { now + delay } else { (now + delay).max(current.arrives + 1) };
        current.arrives = current.arrives.max(arrives);
        self.schedule_at(arrives, Event::Told { watcher, stream, told: Box::new(told) });
    }

    /// A process ended: the streams that it served break, and some lose what was under way.
    pub(in super::super) fn break_streams(&mut self, id: NodeId) {
        for watcher in 0..self.watchers.len() {
            let now = self.now;
            let is_cut = self.random.chance(500);
            let state = &mut self.watchers[watcher];
            let Some(current) = state.current.as_mut().filter(|current| current.node == id) else {
                continue;
            };
            if is_cut {
                current.breaks.get_or_insert(now);
            }
            let stream = state.opened;
            self.faults.hit(FaultKind::StreamBroken);
            self.tell_watcher(watcher, stream, None);
        }
    }

    /// Something arrives at a watcher.
    pub(in super::super) fn told(&mut self, watcher: usize, stream: u64, told: Told) {
        let now = self.now;
        let state = &mut self.watchers[watcher];
        if state.opened != stream {
            return;
        }
        let Some(current) = state.current.as_mut() else { return };
        let is_lost = current.breaks.is_some_and(|breaks| breaks <= now);
        let Some((revision, news)) = told.filter(|_| !is_lost) else {
            return self.leave_stream(watcher);
        };
        if matches!(news, News::Events { .. }) {
            self.coverage.hit(Branch::WatchTold);
        }
        let is_over = matches!(news, News::Compacted { .. } | News::Ended(_));
        let message = Message { at: nanos(now), revision, news };
        current.heard = now;
        state.note(&message);
        let current = state.current.as_mut().expect("it is listened to");
        current.stream.messages.push(message);
        if is_over {
            self.leave_stream(watcher);
        }
    }
}
