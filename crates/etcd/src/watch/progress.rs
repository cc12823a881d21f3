//! Rounds of progress: up to which revision has everything been told?
//!
//! The store is asked first, then every watch for its bookmark. No later event can have a revision
//! up to the lowest of these: that is the answer.

use std::collections::BTreeMap;

use onefold_kv::Header;
use onefold_types::Revision;

/// Who wants to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The client, about the whole stream.
    pub(crate) by_client: bool,
    /// The time, about each quiet watch that wants to be notified.
    pub(crate) by_clock: bool,
}

impl Asked {
    /// Whether anybody does.
    pub(crate) fn is_any(self) -> bool {
        self.by_client || self.by_clock
    }
}

/// One round in work.
pub(crate) struct Round {
    pub(crate) asked: Asked,
    /// Where the store stood at the start.
    present: Header,
    /// The watches, with their bookmarks as far as they told.
    bookmarks: BTreeMap<i64, Option<Revision>>,
}

impl Round {
    pub(crate) fn new(
        asked: Asked,
        present: Header,
        watches: impl IntoIterator<Item = i64>,
    ) -> Self {
        let bookmarks = watches.into_iter().map(|id| (id, None)).collect();
        Self { asked, present, bookmarks }
    }

    /// A watch was created meanwhile and has to tell, too.
    pub(crate) fn joined(&mut self, id: i64) {
        self.bookmarks.insert(id, None);
    }

    /// A watch tells the first revision of which it has not told all.
    pub(crate) fn told(&mut self, id: i64, next: Revision) {
        if let Some(bookmark) = self.bookmarks.get_mut(&id) {
            *bookmark = Some(next);
        }
    }

    /// A watch is gone and will not tell.
    pub(crate) fn gone(&mut self, id: i64) {
        self.bookmarks.remove(&id);
    }

    /// Whether every watch has told.
    pub(crate) fn is_complete(&self) -> bool {
        self.bookmarks.values().all(Option::is_some)
    }

    /// Up to where all has been told on the stream.
    pub(crate) fn of_stream(&self) -> Header {
        let lowest = self.bookmarks.values().flatten().min();
        self.up_to(lowest.copied())
    }

    /// Up to where all has been told, for each watch.
    pub(crate) fn of_watches(&self) -> impl Iterator<Item = (i64, Header)> {
        self.bookmarks.iter().map(|(id, next)| (*id, self.up_to(*next)))
    }

    fn up_to(&self, next: Option<Revision>) -> Header {
        let told = next.map_or(u64::MAX, |next| next.get().saturating_sub(1));
        let revision = Revision(told.min(self.present.revision.get()));
        Header { revision, ..self.present }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(watches: &[i64]) -> Round {
        let present = Header { revision: Revision(20), ..Header::default() };
        Round::new(Asked { by_client: true, by_clock: false }, present, watches.iter().copied())
    }

    #[test]
    fn a_stream_has_told_as_much_as_its_slowest_watch() {
        let mut round = round(&[1, 2]);
        round.told(1, Revision(21));
        assert!(!round.is_complete());
        round.told(2, Revision(11));
        assert!(round.is_complete());
        assert_eq!(round.of_stream().revision, Revision(10));
    }

    #[test]
    fn a_watch_of_the_future_does_not_promise_more_than_the_present() {
        let mut round = round(&[1]);
        round.told(1, Revision(99));
        assert_eq!(round.of_stream().revision, Revision(20));
    }

    #[test]
    fn nobody_waits_for_a_watch_that_is_gone() {
        let mut round = round(&[1, 2]);
        round.told(2, Revision(21));
        round.gone(1);
        assert!(round.is_complete());
    }

    #[test]
    fn a_stream_without_watches_has_told_everything() {
        let round = round(&[]);
        assert!(round.is_complete());
        assert_eq!(round.of_stream().revision, Revision(20));
    }
}
