//! Which history is kept when nobody says so: by age, or by number.
//!
//! The store notes now and then at which revision it was. It does so by the time that the log has,
//! so that neither a change of leader nor a restart makes it forget, and all replicas give up the
//! same.

use onefold_table::{Overlay, TableError, View};
use onefold_types::{Revision, Timestamp};

use super::command::Retention;
use super::state::State;
use super::stored::damaged;
use super::{compact, keys};

/// The parts of the kept time that samples are apart at least.
const SAMPLES_PER_AGE: u64 = 16;

/// When the store was at which revision, oldest first.
type Samples = Vec<(Timestamp, Revision)>;

/// Gives up what is not wanted. Nothing happens when that is nothing.
pub(crate) fn retain(
    table: &mut Overlay<'_>,
    state: &mut State,
    retention: Retention,
    now: Timestamp,
) -> Result<(), TableError> {
    let target = match retention {
        Retention::Revisions(count) => newest(state, count),
        Retention::Age { millis, revisions_min } => {
            let mut samples = read(table)?;
            let old = oldest_kept(&mut samples, state.revision, millis, now);
            write(table, &samples);
            old.min(newest(state, revisions_min))
        }
    };
    if target > state.compacted {
        compact::compact(state, target).expect("a revision that exists and is not compacted");
    }
    Ok(())
}

/// The first of the newest revisions, so many.
fn newest(state: &State, count: u64) -> Revision {
    Revision(state.revision.get().saturating_sub(count))
}

/// The revision that was current `millis` ago, or a somewhat older one; zero when that is not known.
/// Notes the present one if it is time to, and drops what will not be asked for again.
fn oldest_kept(samples: &mut Samples, revision: Revision, millis: u64, now: Timestamp) -> Revision {
    let since = |sample: &(Timestamp, Revision)| now.get().saturating_sub(sample.0.get());
    if samples.last().is_none_or(|last| since(last) >= millis / SAMPLES_PER_AGE) {
        samples.push((now, revision));
    }
    let old_enough = samples.iter().take_while(|sample| since(sample) >= millis).count();
    samples.drain(..old_enough.saturating_sub(1));
    let oldest = samples.first().filter(|sample| since(sample) >= millis);
    oldest.map_or(Revision::ZERO, |(_, revision)| *revision)
}

fn read(view: &dyn View) -> Result<Samples, TableError> {
    let Some(stored) = view.get(keys::SAMPLES)? else { return Ok(Vec::new()) };
    postcard::from_bytes(&stored).map_err(|_| damaged("the samples of time"))
}

fn write(table: &mut Overlay<'_>, samples: &Samples) {
    table.put(keys::SAMPLES, postcard::to_stdvec(samples).expect("numbers always serialize"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const MINUTE: u64 = HOUR / 60;

    #[test]
    fn what_was_current_within_the_time_is_kept() {
        let mut samples = Samples::new();
        for minute in 0..200 {
            let now = Timestamp(minute * MINUTE);
            let kept = oldest_kept(&mut samples, Revision(minute), HOUR, now);
            assert!(kept.get() <= minute.saturating_sub(60), "minute {minute} keeps {kept}");
            if minute >= 70 {
                assert!(kept.get() >= minute - 70, "minute {minute} keeps {kept} on");
            }
            assert!(samples.len() <= SAMPLES_PER_AGE as usize + 2);
        }
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing_up() {
        let mut samples = Samples::new();
        for revision in 1..100 {
            let now = Timestamp(HOUR);
            assert_eq!(oldest_kept(&mut samples, Revision(revision), HOUR, now), Revision::ZERO);
        }
        assert_eq!(samples.len(), 1);
    }

    #[test]
    fn one_sample_far_in_the_past_is_enough_after_a_long_rest() {
        let mut samples = vec![(Timestamp(0), Revision(7))];
        let now = Timestamp(100 * HOUR);
        assert_eq!(oldest_kept(&mut samples, Revision(9), HOUR, now), Revision(7));
    }
}
