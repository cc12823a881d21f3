//! What it costs to apply: CPU time per command that puts 256 bytes, over a table in memory.
//!
//! ```text
//! cargo run --release -p onefold-replica --example apply_cost
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use onefold_raft::{Entry, Membership, Payload};
use onefold_replica::state::{Generations, GroupState, seal_command};
use onefold_replica::{Apply, SessionTag, StateMachine};
use onefold_table::{MemoryTable, Space, SpaceView, TableError};
use onefold_types::{GroupId, LogIndex, NodeId, SessionId, Term, Timestamp};

const ENTRIES: u64 = 200_000;
const ROUND_BYTES: usize = 4 << 20;
const KEYS: u64 = 10_000;
const RUNS: u32 = 9;

/// Puts each command under one of some keys.
struct Puts;

impl StateMachine for Puts {
    fn apply(&mut self, context: &mut Apply<'_, '_>, command: &Bytes) -> Result<Bytes, TableError> {
        let key = context.index.get() % KEYS;
        context.table.put(key.to_be_bytes().to_vec(), command.clone());
        Ok(Bytes::new())
    }

    fn restored(&mut self, _: &SpaceView) -> Result<(), TableError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, has_session) in [("plain", false), ("with a session", true)] {
        let mut least = u64::MAX;
        for _ in 0..RUNS {
            least = least.min(nanoseconds_per_command(has_session)?);
        }
        println!("{name}: {least} ns of CPU per command (least of {RUNS} runs)");
    }
    Ok(())
}

/// What this thread spent on a CPU, so that what else runs on the machine does not count.
fn cpu_nanoseconds() -> Result<u64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn nanoseconds_per_command(has_session: bool) -> Result<u64, Box<dyn std::error::Error>> {
    let space = Space::new(Arc::new(MemoryTable::new()), GroupId::KV);
    let formed = Membership::of_voters([NodeId(1)]);
    let generations = Arc::new(Generations::open(GroupId::KV, space, &formed)?);
    let mut state = GroupState::open(generations, Box::new(Puts))?;
    let mut entries = VecDeque::new();
    for index in 1..=ENTRIES {
        let tag = SessionTag {
            session: SessionId(index % 64),
            sequence: index,
            acknowledged_below: index,
        };
        let command = seal_command(Timestamp(index), has_session.then_some(tag), &[7; 256])?;
        let payload = Payload::Command(command);
        entries.push_back(Entry { term: Term(1), index: LogIndex(index), payload });
    }
    let began = cpu_nanoseconds()?;
    while !entries.is_empty() {
        state.apply(&mut entries, ROUND_BYTES)?;
    }
    Ok((cpu_nanoseconds()? - began) / ENTRIES)
}
