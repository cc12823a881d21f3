//! The envelope around each command in a group's log.
//!
//! ```text
//! format 1   flags 1   time 8   [session 8   sequence 8   acknowledged below 8]   command …
//! ```
//!
//! Numbers are little-endian; bit 0 of the flags says that a session tag follows.

use bytes::{BufMut, Bytes, BytesMut};
use onefold_types::limits::COMMAND_BYTES_MAX;
use onefold_types::{SessionId, Timestamp};

use super::records::wrong_format;
use crate::{ProposeError, SessionTag};

const FORMAT: u8 = 2;
const WITH_SESSION: u8 = 1;
const PLAIN_BYTES: usize = 10;
const TAG_BYTES: usize = 24;

/// A command as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The clock of the leader that proposed it.
    pub(crate) time: Timestamp,
    /// Makes it exactly-once.
    pub(crate) session: Option<SessionTag>,
    /// What the state machine gets.
    pub(crate) command: Bytes,
}

/// Puts a command into the envelope in which it is replicated. `time` is the proposing leader's
/// clock; with a session tag the command is executed at most once.
///
/// # Errors
/// [`ProposeError::TooLarge`] when it is larger than an entry of the log may be.
pub fn seal(
    time: Timestamp,
    session: Option<SessionTag>,
    command: &[u8],
) -> Result<Bytes, ProposeError> {
    let bytes = PLAIN_BYTES + session.map_or(0, |_| TAG_BYTES) + command.len();
    if bytes > COMMAND_BYTES_MAX {
        let bytes_max = COMMAND_BYTES_MAX - PLAIN_BYTES - TAG_BYTES;
        return Err(ProposeError::TooLarge { bytes: command.len(), bytes_max });
    }
    let mut sealed = BytesMut::with_capacity(bytes);
    sealed.put_u8(FORMAT);
    sealed.put_u8(if session.is_some() { WITH_SESSION } else { 0 });
    sealed.put_u64_le(time.get());
    if let Some(tag) = session {
        sealed.put_u64_le(tag.session.get());
        sealed.put_u64_le(tag.sequence);
        sealed.put_u64_le(tag.acknowledged_below);
    }
    sealed.put_slice(command);
    Ok(sealed.freeze())
}

impl Envelope {
    /// Takes a command out of its envelope, without copying it.
    ///
    /// # Errors
    /// What is wrong with it; a log whose checksums are right holds such a thing only when a newer
    /// program wrote it.
    pub(crate) fn open(sealed: &Bytes) -> Result<Self, String> {
        let plain = sealed.first_chunk::<PLAIN_BYTES>();
        let [format, flags, time @ ..] = plain.ok_or("it is shorter than its envelope")?;
        if *format != FORMAT {
            return Err(wrong_format(*format, FORMAT));
        }
        if *flags & !WITH_SESSION != 0 {
            return Err(format!("its flags are {flags:#04x}, of which this program knows bit 0"));
        }
        let time = Timestamp(u64::from_le_bytes(*time));
        if flags & WITH_SESSION == 0 {
            return Ok(Self { time, session: None, command: sealed.slice(PLAIN_BYTES..) });
        }
        let number = |at: usize| {
            let bytes = sealed.get(at..)?.first_chunk::<8>()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let tag = || {
            Some(SessionTag {
                session: SessionId(number(PLAIN_BYTES)?),
                sequence: number(PLAIN_BYTES + 8)?,
                acknowledged_below: number(PLAIN_BYTES + 16)?,
            })
        };
        let session = Some(tag().ok_or("it ends within its session tag")?);
        Ok(Self { time, session, command: sealed.slice(PLAIN_BYTES + TAG_BYTES..) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: SessionTag =
        SessionTag { session: SessionId(u64::MAX), sequence: 7, acknowledged_below: 3 };

    #[test]
    fn an_envelope_gives_back_what_was_put_in() {
        for session in [None, Some(TAG)] {
            let sealed = seal(Timestamp(9), session, b"add").expect("a small command");
            let opened = Envelope::open(&sealed).expect("it was just sealed");
            let command = Bytes::from_static(b"add");
            assert_eq!(opened, Envelope { time: Timestamp(9), session, command });
        }
    }

    #[test]
    fn every_cut_off_envelope_is_refused_or_has_a_shorter_command() {
        let sealed = seal(Timestamp(9), Some(TAG), b"").expect("a small command");
        for end in 0..sealed.len() {
            Envelope::open(&sealed.slice(..end)).expect_err("its tag is cut");
        }
    }

    #[test]
    fn unknown_formats_and_flags_are_refused() {
        let sealed = seal(Timestamp(9), None, b"add").expect("a small command");
        for at in [0, 1] {
            let mut other = sealed.to_vec();
            other[at] = 0x82;
            Envelope::open(&other.into()).expect_err("format or flags are unknown");
        }
    }

    #[test]
    fn the_largest_command_fits_with_a_session_and_no_larger_one() {
        let bytes_max = COMMAND_BYTES_MAX - PLAIN_BYTES - TAG_BYTES;
        let largest = vec![0; bytes_max];
        assert!(seal(Timestamp(1), Some(TAG), &largest).is_ok());
        let refused = seal(Timestamp(1), Some(TAG), &[&largest[..], b"."].concat());
        assert_eq!(refused, Err(ProposeError::TooLarge { bytes: bytes_max + 1, bytes_max }));
    }
}
