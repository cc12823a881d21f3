//! What is wrong with what others send is logged once for each sender and kind, and counted always.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::wire::lock;

/// Pairs of sender and kind that are remembered. When that many were logged lately, further ones
/// are only counted: whoever floods a node from many addresses does not flood its log.
const REMEMBERED_MAX: usize = 256;
/// How long a pair is remembered. What is still wrong then is logged again.
const REMEMBERED_FOR: Duration = Duration::from_secs(60 * 60);

/// What was logged, and when. Pure: it is told the time.
#[derive(Debug, Default)]
pub struct Complaints {
    logged: BTreeMap<(String, &'static str), Duration>,
}

impl Complaints {
    /// Whether something of this kind from this sender should be logged now: it is the first, or the
    /// last time was an hour ago. `now` is the time since any fixed moment, and never goes back.
    pub fn is_news(&mut self, sender: &str, kind: &'static str, now: Duration) -> bool {
        let is_stale = |logged: Duration| now.saturating_sub(logged) >= REMEMBERED_FOR;
        let key = (sender.to_owned(), kind);
        if let Some(logged) = self.logged.get_mut(&key) {
            let is_news = is_stale(*logged);
            if is_news {
                *logged = now;
            }
            return is_news;
        }
        if self.logged.len() >= REMEMBERED_MAX {
            self.logged.retain(|_, logged| !is_stale(*logged));
        }
        let has_room = self.logged.len() < REMEMBERED_MAX;
        if has_room {
            self.logged.insert(key, now);
        }
        has_room
    }
}

/// The complaints of a server, or of all links of a process.
#[derive(Debug)]
pub(crate) struct SharedComplaints {
    complaints: Mutex<Complaints>,
    since: Instant,
}

impl Default for SharedComplaints {
    fn default() -> Self {
        Self { complaints: Mutex::default(), since: Instant::now() }
    }
}

impl SharedComplaints {
    pub(crate) fn is_news(&self, sender: &str, kind: &'static str) -> bool {
        lock(&self.complaints).is_news(sender, kind, self.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = REMEMBERED_FOR;
    const LATER: Duration = Duration::from_secs(1);

    #[test]
    fn each_kind_of_each_sender_is_news_once_an_hour() {
        let mut complaints = Complaints::default();
        for (sender, kind) in [("a", "magic"), ("b", "magic"), ("a", "checksum")] {
            assert!(complaints.is_news(sender, kind, LATER));
            assert!(!complaints.is_news(sender, kind, HOUR));
        }
        assert!(complaints.is_news("a", "magic", HOUR + LATER));
        assert!(!complaints.is_news("a", "magic", HOUR + HOUR));
    }

    #[test]
    fn a_flood_of_senders_is_bounded_in_memory_and_in_the_log_and_mutes_nothing_for_good() {
        let mut complaints = Complaints::default();
        let senders = (0..10_000).map(|sender| sender.to_string());
        let logged = senders.filter(|sender| complaints.is_news(sender, "magic", LATER)).count();
        assert_eq!(logged, REMEMBERED_MAX);
        assert_eq!(complaints.logged.len(), REMEMBERED_MAX);
        assert!(complaints.is_news("another", "magic", HOUR + LATER));
    }
}
