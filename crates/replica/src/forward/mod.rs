//! What a follower passes on to the leader, many at a time.

pub(crate) mod proposals;
pub(crate) mod reads;
