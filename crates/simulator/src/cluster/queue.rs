//! What happens next.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{clock::Micros, event::Event};

/// Events in the order of their time, then of their scheduling.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Time, order, and place in `events`: small, because the heap moves them around.
    heap: BinaryHeap<Reverse<(Micros, u64, u32)>>,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    scheduled: u64,
}

impl Queue {
    /// Puts an event at a time.
    pub(super) fn schedule(&mut self, at: Micros, event: Event) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() as u32 - 1
        });
        self.events[place as usize] = Some(event);
        self.scheduled += 1;
        self.heap.push(Reverse((at, self.scheduled, place)));
    }

    /// The next event, if it is not after `end`.
    pub(super) fn next(&mut self, end: Micros) -> Option<(Micros, Event)> {
        let Reverse((at, _, place)) = *self.heap.peek()?;
        if at > end {
            return None;
        }
        self.heap.pop();
        self.free.push(place);
        Some((at, self.events[place as usize].take().expect("each event is taken once")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_then_of_scheduling() {
        let mut queue = Queue::default();
        let event = |client| Event::Client { client, turn: 0 };
        for (at, client) in [(5, 1), (3, 2), (5, 3), (9, 4)] {
            queue.schedule(at, event(client));
        }
        let mut taken = Vec::new();
        while let Some((at, Event::Client { client, .. })) = queue.next(5) {
            taken.push((at, client));
        }
        assert_eq!(taken, [(3, 2), (5, 1), (5, 3)]);
        assert!(queue.next(u64::MAX).is_some());
    }
}
