//! Whatever bytes reach the parsers of this crate, from the network or from a log whose checksums are
//! right: they decode or they are refused, and what decodes leaves the core running.
//!
//! The files of `tests/corpus/` are replayed first. Each is one frame, envelope, piece or record in
//! hexadecimal; its name begins with which of them, and ends in `-good` if it must be taken whole.
//! A case that fails is printed like that.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use onefold_raft::{
    Body, Config, Entry, HardState, Input, Membership, Message, Payload, Raft, Restored,
    SnapshotMark, StepError,
};
use onefold_types::{GroupId, LogIndex, NodeId, Term, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::state::command::Envelope;
use crate::state::pairs;
use crate::wire::{Frame, beat, encode_beat, messages};

/// Which parser bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parser {
    /// A frame of Raft messages; what decodes is stepped into a core.
    Frame,
    /// A beat of another process.
    Beat,
    /// A command in its envelope.
    Envelope,
    /// The pairs of a piece of a snapshot.
    Piece,
    /// A record in the table or the log.
    Record,
}

impl Parser {
    const ALL: [Self; 5] = [Self::Frame, Self::Beat, Self::Envelope, Self::Piece, Self::Record];

    /// Parses bytes; false if any of them was refused.
    fn run(self, bytes: &Bytes) -> bool {
        match self {
            Self::Frame => step(bytes),
            Self::Beat => beat(bytes).is_some(),
            Self::Envelope => Envelope::open(bytes).is_ok_and(|envelope| {
                assert!(envelope.command.len() < bytes.len(), "the command is a part of it");
                true
            }),
            Self::Piece => pairs::parse(bytes).is_some_and(|pairs| {
                let taken: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
                assert!(taken <= bytes.len(), "the pairs are a part of it");
                true
            }),
            Self::Record => {
                crate::state::records::decode::<Membership>(GroupId::KV, "a record", bytes).is_ok()
            }
        }
    }
}

/// A core of three voters that has a few entries.
fn core() -> Raft {
    let voters = [1, 2, 3].map(NodeId);
    let entry = |index: u64| Entry {
        term: Term(2),
        index: LogIndex(index),
        payload: Payload::Command(Bytes::from_static(b"command")),
    };
    let restored = Restored {
        hard_state: HardState { term: Term(2), ..HardState::default() },
        snapshot: SnapshotMark::initial(Membership::of_voters(voters)),
        entries: (1..=5).map(entry).collect(),
        ..Restored::default()
    };
    Raft::new(Config::new(NodeId(1), GroupId::KV, 7), restored).expect("a plain configuration")
}

/// Steps the messages of a frame into cores, as they come from a member and from a stranger.
fn step(frame: &[u8]) -> bool {
    let mut is_whole = !frame.is_empty();
    for (from, campaigns) in [(NodeId(2), false), (NodeId(9), false), (NodeId(2), true)] {
        let mut core = core();
        if campaigns {
            core.step(Input::Campaign).expect("it may stand");
        }
        for message in messages(frame) {
            let Ok((_, message)) = message else {
                is_whole = false;
                break;
            };
            match core.step(Input::Message { from, message }) {
                // What the driver does about it: the replica stops.
                Err(
                    StepError::AcknowledgedEntriesLost { .. }
                    | StepError::CommittedEntryReplaced { .. },
                ) => break,
                Err(StepError::Contract { what }) => panic!("a message is no contract: {what}"),
                Err(_) | Ok(_) => {}
            }
            let _ = core.take_output();
        }
    }
    is_whole
}

/// A case that is printed as it would stand in the corpus.
#[derive(Clone)]
struct Case(Parser, Vec<u8>);

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: ", self.0)?;
        self.1.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[test]
fn the_corpus_is_refused_or_taken_as_its_names_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the corpus is there") {
        let path = file.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let parser = Parser::ALL
            .into_iter()
            .find(|parser| name.starts_with(&format!("{parser:?}").to_lowercase()))
            .unwrap_or_else(|| panic!("{name} names no parser"));
        let text = std::fs::read_to_string(&path).expect("hexadecimal");
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let bytes = digits.chunks_exact(2).map(|pair| {
            let pair = std::str::from_utf8(pair).expect("digits are ASCII");
            u8::from_str_radix(pair, 16).expect("two digits are a byte")
        });
        assert_eq!(parser.run(&bytes.collect()), name.ends_with("-good"), "{name}");
        count += 1;
    }
    assert!(count >= 10, "the corpus is not where it is looked for");
}

/// Runs cases; any of them may be refused, none may panic.
fn run(cases: impl Strategy<Value = Case>) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&cases, |Case(parser, bytes)| {
        let ran = catch_unwind(AssertUnwindSafe(|| parser.run(&bytes.into())));
        prop_assert!(ran.is_ok(), "it panicked");
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let parser = prop::sample::select(Parser::ALL.as_slice());
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    // With the first byte of a format that exists, and without one.
    run((parser, 0..4_u8, bytes).prop_map(|(parser, format, mut bytes)| {
        if let (Some(first), 1..) = (bytes.first_mut(), format) {
            *first = format;
        }
        Case(parser, bytes)
    }));
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..8_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        Just(Payload::Empty),
        Just(Payload::Command(Bytes::from_static(b"add"))),
        prop::collection::vec(0..5_u64, 0..4).prop_map(|voters| {
            Payload::Membership(Box::new(Membership::of_voters(voters.into_iter().map(NodeId))))
        }),
    ];
    (number(), number(), payload).prop_map(|(term, index, payload)| Entry {
        term: Term(term),
        index: LogIndex(index),
        payload,
    })
}

/// A message of any kind with any numbers, most of them close to those of the core.
fn message() -> impl Strategy<Value = Message> {
    let entries = prop::collection::vec(entry(), 0..4);
    let numbers = (number(), number(), number(), number());
    (0..18_u8, numbers, any::<bool>(), entries, any::<bool>()).prop_map(
        |(kind, (term, first, second, third), flag, mut entries, in_order)| {
            let (first, second, third) = (LogIndex(first), Term(second), LogIndex(third));
            if in_order {
                for (entry, step) in entries.iter_mut().zip(1..) {
                    entry.index = LogIndex(first.get().saturating_add(step));
                }
            }
            let voters = entries.iter().map(|entry| NodeId(entry.index.get() % 5));
            let mark = SnapshotMark {
                index: first,
                term: second,
                membership: Membership::of_voters(voters.collect::<Vec<_>>()),
            };
            let (last_index, last_term, round) = (first, second, third.get());
            let body = match kind {
                0 => Body::RequestPreVote { last_index, last_term },
                1 => Body::PreVoteResponse { granted: flag },
                2 => Body::RequestVote { last_index, last_term, transfer: flag },
                3 => Body::VoteResponse { granted: flag },
                4..=6 => {
                    Body::Append { prev_index: first, prev_term: second, entries, commit: third }
                }
                7 => Body::AppendAccepted { matched: first },
                8 => {
                    Body::AppendRejected { prev_index: first, hint_index: third, hint_term: second }
                }
                9 => Body::Heartbeat { commit: first, read_round: round },
                10 => Body::HeartbeatResponse { read_round: round, promised_micros: second.get() },
                11 => Body::InstallSnapshot { mark },
                12 => Body::SnapshotMissing { index: first },
                13 => Body::SnapshotInstalled { index: first },
                14 => Body::TimeoutNow,
                15 => Body::Quiesce { last: first },
                16 => Body::SnapshotWanted { least: first },
                _ if flag => Body::Awake,
                _ => Body::TermOver,
            };
            Message { term: Term(term), body }
        },
    )
}

fn sealed_frame(messages: &[Message]) -> Vec<u8> {
    let mut frame = Frame::default();
    for message in messages {
        assert!(frame.push(GroupId::KV, message).is_none(), "they are small");
    }
    frame.take().to_vec()
}

#[test]
fn messages_that_no_correct_server_sends_are_refused_or_taken_but_never_panic() {
    let messages = prop::collection::vec(message(), 1..6);
    run(messages.prop_map(|messages| Case(Parser::Frame, sealed_frame(&messages))));
}

/// Something that each parser takes.
fn good(parser: Parser) -> Vec<u8> {
    match parser {
        Parser::Frame => {
            let heartbeat = Body::Heartbeat { commit: LogIndex(3), read_round: 1 };
            let bodies = [Body::TimeoutNow, heartbeat, Body::Awake];
            sealed_frame(&bodies.map(|body| Message { term: Term(2), body }))
        }
        Parser::Beat => {
            encode_beat(crate::liveness::Beat { process: 7, count: 300 }, 1 << 50).to_vec()
        }
        Parser::Envelope => {
            let tag = crate::SessionTag {
                session: onefold_types::SessionId(9),
                sequence: 3,
                acknowledged_below: 1,
            };
            let sealed = crate::state::command::seal(Timestamp(5), Some(tag), b"command");
            sealed.expect("it is small").to_vec()
        }
        Parser::Piece => {
            let pair = [&[3, 0, 0, 0, 5, 0, 0, 0][..], b"keyvalue"].concat();
            [pair.clone(), pair].concat()
        }
        Parser::Record => {
            crate::state::records::encode(&Membership::of_voters([1, 2, 3].map(NodeId))).to_vec()
        }
    }
}

#[test]
fn what_is_good_is_taken() {
    for parser in Parser::ALL {
        assert!(parser.run(&good(parser).into()), "{parser:?}: {:?}", Case(parser, good(parser)));
    }
}

#[test]
fn damage_to_what_is_good_never_panics() {
    let parser = prop::sample::select(Parser::ALL.as_slice());
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let cut = any::<prop::sample::Index>();
    run((parser, damage, cut, any::<bool>()).prop_map(|(parser, damage, cut, is_cut)| {
        let mut bytes = good(parser);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        Case(parser, bytes)
    }));
}
