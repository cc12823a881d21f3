//! How replicas tell each other the hashes of their states: one frame for all groups.

use bytes::Bytes;
use onefold_transport::MethodId;
use onefold_types::GroupId;

use crate::state::Checkpoint;

/// The one-way message that carries checkpoints of any groups.
pub(crate) const CHECKPOINTS: MethodId = MethodId(22);

/// The format of such a frame and the way in which its hashes are made: this byte, then groups and
/// checkpoints up to its end. Hashes that are made in different ways can't be compared.
const FRAME_FORMAT: u8 = 1;

/// Most checkpoints in one frame; senders send another one, and receivers look no further.
pub(crate) const FRAME_CHECKPOINTS_MAX: usize = 4096;

/// Frames that carry these checkpoints.
pub(crate) fn frames(checkpoints: &[(GroupId, Checkpoint)]) -> impl Iterator<Item = Bytes> {
    checkpoints.chunks(FRAME_CHECKPOINTS_MAX).map(|some| {
        some.iter()
            .try_fold(vec![FRAME_FORMAT], |bytes, one| postcard::to_extend(one, bytes))
            .expect("checkpoints serialize into memory")
            .into()
    })
}

/// The checkpoints of a frame. One of another format holds none: its sender makes its hashes in
/// another way.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(frame: &[u8]) -> Result<Vec<(GroupId, Checkpoint)>, String> {
    let mut rest = match frame.split_first() {
        Some((&FRAME_FORMAT, rest)) => rest,
        Some(_) => return Ok(Vec::new()),
        None => return Err("it is empty".to_owned()),
    };
    let mut checkpoints = Vec::new();
    while !rest.is_empty() && checkpoints.len() < FRAME_CHECKPOINTS_MAX {
        let (one, left) = postcard::take_from_bytes(rest).map_err(|error| error.to_string())?;
        checkpoints.push(one);
        rest = left;
    }
    Ok(checkpoints)
}

#[cfg(test)]
mod tests {
    use onefold_types::LogIndex;

    use super::*;
    use crate::state::StateHash;

    #[test]
    fn frames_carry_all_checkpoints_in_order() {
        let count = FRAME_CHECKPOINTS_MAX as u64 + 5;
        let one = |number| Checkpoint { index: LogIndex(number), hash: StateHash(!number) };
        let sent: Vec<_> = (0..count).map(|number| (GroupId(number % 7), one(number))).collect();
        let frames: Vec<_> = frames(&sent).collect();
        assert_eq!(frames.len(), 2);
        let read = frames.iter().flat_map(|frame| read(frame).expect("it was just made"));
        assert_eq!(read.collect::<Vec<_>>(), sent);
    }

    #[test]
    fn a_frame_that_is_cut_is_an_error_and_one_of_another_format_holds_nothing() {
        let one = Checkpoint { index: LogIndex(1024), hash: StateHash(u64::MAX) };
        let frame = frames(&[(GroupId(1), one)]).next().expect("one frame");
        for end in 2..frame.len() {
            read(&frame[..end]).expect_err("it is cut");
        }
        read(&[]).expect_err("it has no format");
        assert_eq!(read(&[9, 1, 2, 3]), Ok(Vec::new()));
    }
}
