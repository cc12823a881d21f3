//! Raft consensus as a pure state machine: no clock, no disk, no network, no thread, no random
//! source but a seed. The same inputs give the same outputs, byte for byte, so the code that serves
//! users is the code that the simulator runs.
//!
//! ```text
//!            Tick  Message  Propose  ReadIndex  Persisted  Applied  Compact  ...
//!              │      │        │         │          │         │        │
//!              ▼      ▼        ▼         ▼          ▼         ▼        ▼
//!            ┌──────────────────────────────────────────────────────────┐
//!            │ Raft::step      election · replication · read · snapshot  │
//!            │                 reconfiguration · transfer · quiescence   │
//!            │                 log (retained entries) · progress · quorum│
//!            └──────────────────────────────────────────────────────────┘
//!              │       │         │           │             │         │
//!              ▼       ▼         ▼           ▼             ▼         ▼
//!           messages persist committed  read_states  send/install  role_change
//!                                                      snapshot       (Raft::take_output)
//! ```
//!
//! # What the driver owes the core
//!
//! 1. Carry out every [`Persist`] in the order given, each one atomically, and step
//!    [`Input::Persisted`] with its sequence number once it is durable. That is the whole durability
//!    contract: messages that promise something (votes, acknowledgements of entries) stay inside the
//!    core until the writes that they depend on were reported durable, so a driver cannot send one
//!    too early. All messages in [`Output`] may be sent at once, before the writes beside them.
//! 2. Apply [`Output::committed`] in order and step [`Input::Applied`]. Entries are handed out only
//!    when they are committed *and* durable on this node, so a state machine is never ahead of its
//!    own log, save for a snapshot that was installed.
//! 3. After a restart give back what was durable as [`Restored`].
//! 4. Move snapshot data itself; see [`Output::send_snapshot`] and [`Output::install_snapshot`].
//! 5. With [`Config::quiesce_after_ticks`], watch whole nodes and step [`Input::NodeDown`] and
//!    [`Input::NodeUp`]: followers of a silent leader do not notice by themselves that it died.
//! 6. With [`Config::lease`], step [`Input::Now`] before other inputs, with a time that was read
//!    after they had arrived, from a clock that keeps the promise of [`Lease`].
//!
//! Messages may be lost, duplicated, delayed and reordered; no input that a network can produce
//! panics. Hints about nodes may be late or wrong. A violated invariant of the protocol itself
//! panics, because serving on would serve wrong data.
//!
//! # What is where
//!
//! | module | rules of the paper |
//! | --- | --- |
//! | `election` | terms, votes, pre-vote, check-quorum (§5.2, §5.4.1; dissertation 6.2, 9.6) |
//! | `replication`, `progress` | appends, their answers and limits, the commit rule (§5.3, §5.4.2) |
//! | `membership`, `reconfiguration`, `quorum` | learners and joint consensus (§6; dissertation 4) |
//! | `transfer` | handing leadership over, and leaving it (dissertation 3.10, 4.2.2) |
//! | `read`, `lease` | linearizable reads by rounds, or by leases (§8; dissertation 6.4) |
//! | `snapshot`, `log` | compaction, installing, rebuilding a lost state (§7) |
//! | `persistence` | nothing is promised before it is durable (figure 2) |
//! | `validity` | what a message must keep to be taken at all |
//! | `quiescence` | silence of idle groups; not in the paper |
//! | `patience` | timeouts that grow where elections do not help; not in the paper |
//!
//! Sections cited as "§5.2" are those of *In Search of an Understandable Consensus Algorithm
//! (Extended Version)*, Ongaro and Ousterhout; those cited as "dissertation" are of *Consensus:
//! Bridging Theory and Practice*, Ongaro, 2014.

mod config;
mod election;
mod entry;
mod fingerprint;
mod lease;
mod log;
mod membership;
mod message;
mod output;
mod patience;
mod persistence;
mod progress;
mod quiescence;
mod quorum;
mod raft;
mod random;
mod read;
mod reconfiguration;
mod replication;
mod snapshot;
mod status;
mod transfer;
mod validity;

pub use config::{Config, ConfigError, Lease, Restored};
pub use entry::{Entry, HardState, Payload, SnapshotMark};
pub use fingerprint::Fingerprint;
pub use membership::{Membership, MembershipChange};
pub use message::{Body, Message};
pub use output::{Output, ReadId, ReadState, RoleChange};
pub use persistence::{Persist, PersistSequence};
pub use raft::{Input, Raft, SnapshotOutcome, StepError, Stepped};
pub use status::{FollowerMode, FollowerStatus, Role, Status};
