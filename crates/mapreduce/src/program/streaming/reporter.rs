//! Standard error: the attempt's log, and lines for the framework.
//!
//! `reporter:counter:GROUP,NAME,AMOUNT` adds to a counter, `reporter:status:TEXT` is a sign of life.

use std::io::Read;

use memchr::memchr;

use crate::task::Attempt;

const READ_BYTES: usize = 16 << 10;

/// A line longer than this is logged in parts.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Reads standard error to its end.
pub(super) fn follow(attempt: &Attempt, mut stderr: impl Read) {
    let mut pending = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let bytes = match stderr.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        attempt.stop.note_activity();
        pending.extend_from_slice(&buffer[..bytes]);
        let mut start = 0;
        while let Some(feed) = memchr(b'\n', &pending[start..]) {
            take_line(attempt, &pending[start..=start + feed]);
            start += feed + 1;
        }
        pending.drain(..start);
        if pending.len() > LINE_BYTES_MAX {
            attempt.lock_log().append(&pending);
            pending.clear();
        }
    }
    if !pending.is_empty() {
        take_line(attempt, &pending);
    }
}

fn take_line(attempt: &Attempt, line: &[u8]) {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    if text.starts_with(b"reporter:status:") {
        return;
    }
    if let Some(counter) = text.strip_prefix(b"reporter:counter:") {
        if let Some((group, name, amount)) = parse_counter(counter)
            && attempt.count_for_user(&group, &name, amount)
        {
            return;
        }
        attempt.lock_log().append(b"[this counter was not accepted:] ");
    }
    attempt.lock_log().append(line);
}

/// `GROUP,NAME,AMOUNT`; the group may contain commas, and amounts are not negative.
fn parse_counter(text: &[u8]) -> Option<(String, String, u64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (rest, amount) = text.rsplit_once(',')?;
    let (group, name) = rest.rsplit_once(',')?;
    let named = !group.is_empty() && !name.is_empty();
    named.then_some(())?;
    Some((group.to_owned(), name.to_owned(), amount.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_three_parts() {
        let parse = |text: &str| parse_counter(text.as_bytes());
        let counter =
            |group: &str, name: &str, amount| Some((group.to_owned(), name.to_owned(), amount));
        assert_eq!(parse("My Group,lines,12"), counter("My Group", "lines", 12));
        assert_eq!(parse("a,b,c,1"), counter("a,b", "c", 1));
        for bad in ["", "a,b", "a,b,c", "a,b,-1", ",b,1", "a,,1", "a,b,99999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
