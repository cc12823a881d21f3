//! Imports: what comes of them, and that half of one is never taken for the whole.

use onefold_types::Term;

use super::*;
use crate::{
    ImportBegin, ImportProgress, ImportRecord, ImportResponse, ImportStep, KeyValue, LeaseId,
};

const ID: [u8; 32] = [7; 32];

fn begin(revision: u64, compacted: u64) -> ImportStep {
    let (revision, compacted) = (Revision(revision), Revision(compacted));
    ImportStep::Begin(ImportBegin { id: ID, revision, compacted })
}

fn put(sub: u32, key: &'static str, created: u64, revision: u64, version: u64) -> ImportRecord {
    let kv = KeyValue {
        key: key.into(),
        create_revision: Revision(created),
        mod_revision: Revision(revision),
        version,
        value: format!("{key}@{revision}").into(),
        lease: LeaseId::NONE,
    };
    ImportRecord { sub, kv, is_deletion: false }
}

fn deletion(sub: u32, key: &'static str, revision: u64) -> ImportRecord {
    let mod_revision = Revision(revision);
    let kv = KeyValue { key: key.into(), mod_revision, ..KeyValue::default() };
    ImportRecord { sub, kv, is_deletion: true }
}

fn records(after: u64, records: Vec<ImportRecord>) -> ImportStep {
    ImportStep::Records { id: ID, after, records }
}

fn end(leases: u64, records: u64) -> ImportStep {
    ImportStep::End { id: ID, expected: ImportProgress { leases, records } }
}

impl Fixture {
    fn import(&mut self, step: ImportStep) -> Result<ImportResponse, KvError> {
        match self.apply(&Command::Import(step))? {
            Answer::Import(response) => Ok(response),
            other => panic!("an import was answered with {other:?}"),
        }
    }
}

/// A store at revision 9, compacted at 5: what stood at 5, then every event.
fn imported() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.import(begin(9, 5)).unwrap();
    let leases = vec![(LeaseId(3), 60), (LeaseId(-4), 600)];
    fixture.import(ImportStep::Leases { id: ID, after: 0, leases }).unwrap();
    let mut leased = put(0, "leased", 9, 9, 1);
    leased.kv.lease = LeaseId(3);
    let first = vec![put(0, "a", 2, 4, 3), put(0, "b", 5, 5, 1), deletion(1, "z", 5)];
    fixture.import(records(0, first)).unwrap();
    let second = vec![put(0, "a", 2, 6, 4), put(1, "c", 6, 6, 1), deletion(0, "b", 7)];
    fixture.import(records(3, second)).unwrap();
    fixture.import(records(6, vec![put(0, "b", 8, 8, 1), leased])).unwrap();
    assert!(fixture.import(end(2, 8)).unwrap().is_open);
    fixture
}

#[test]
fn an_imported_store_is_as_the_other_one_was() {
    let mut fixture = imported();
    super::property::same_usage(&fixture);
    assert_eq!(fixture.revision(), 9);
    let all = RangeRequest::prefix("");
    let found = fixture.range(&all).unwrap();
    let versions = found
        .kvs
        .iter()
        .map(|kv| (kv.key.as_ref(), kv.create_revision.get(), kv.mod_revision.get(), kv.version));
    let expected: [(&[u8], u64, u64, u64); 4] =
        [(b"a", 2, 6, 4), (b"b", 8, 8, 1), (b"c", 6, 6, 1), (b"leased", 9, 9, 1)];
    assert!(versions.eq(expected));
    // History, down to the compacted revision and not below.
    let pairs = |revision: u64| {
        fixture.pairs(&RangeRequest { revision: Revision(revision), ..RangeRequest::prefix("") })
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(pairs(5), [pair("a", "a@4"), pair("b", "b@5")]);
    assert_eq!(pairs(7), [pair("a", "a@6"), pair("c", "c@6")]);
    let below = RangeRequest { revision: Revision(4), ..RangeRequest::prefix("") };
    assert!(matches!(fixture.range(&below), Err(KvError::Compacted { .. })));
    // Events, with what they superseded.
    let events = fixture.history(KeySpan::From("a".into()), 5, usize::MAX).unwrap().events;
    let told = events
        .iter()
        .map(|event| (event.kv.key.as_ref(), event.kv.mod_revision.get(), event.prev_kv.is_some()));
    let expected: [(&[u8], u64, bool); 7] = [
        (b"b", 5, false),
        (b"z", 5, false),
        (b"a", 6, true),
        (b"c", 6, false),
        (b"b", 7, true),
        (b"b", 8, false),
        (b"leased", 9, false),
    ];
    assert!(told.eq(expected));
    // It goes on as any store: leases end with their keys, compaction removes what is past.
    assert_eq!(fixture.put(PutRequest::new("a", "new")).unwrap().header.revision, Revision(10));
    fixture.apply(&Command::LeaseRevoke(LeaseId(3))).unwrap();
    assert_eq!(fixture.range(&RangeRequest::key("leased")).unwrap().kvs, []);
    fixture.compact(11).unwrap();
    fixture.sweep();
    super::property::same_usage(&fixture);
    assert_eq!(fixture.records(b'o'), 0);
    assert_eq!(fixture.records(b'l'), 1);
}

#[test]
fn the_observer_hears_of_another_state_and_of_its_leases() {
    let fixture = imported();
    let rounds = fixture.heard.lock().unwrap();
    let granted: usize = rounds.iter().map(|round| round.leases.len()).sum();
    assert_eq!(granted, 2);
    assert!(rounds.iter().all(|round| round.revisions.is_empty()));
    assert_eq!(rounds.last().unwrap().position.revision, Revision(9));
}

#[test]
fn half_an_import_answers_nothing_and_survives_a_restart() {
    let mut fixture = Fixture::new();
    fixture.import(begin(6, 0)).unwrap();
    fixture.import(records(0, vec![put(0, "a", 2, 2, 1)])).unwrap();
    let mut fixture = fixture.restarted();
    assert_eq!(fixture.put(PutRequest::new("k", "v")), Err(KvError::Importing));
    assert_eq!(State::read(&fixture.view()).map_err(KvError::from), Err(KvError::Importing));
    // The leader of leases is announced all the same.
    fixture.apply(&Command::Lead(Term(3))).unwrap();
    // The same import goes on where it stands; a piece that was written is not written again.
    assert_eq!(fixture.import(begin(6, 0)).unwrap().progress.records, 1);
    let again = fixture.import(records(0, vec![put(0, "a", 2, 2, 1)]));
    assert!(matches!(again, Err(KvError::ImportRefused { .. })), "{again:?}");
    let early = fixture.import(end(0, 2));
    assert!(matches!(early, Err(KvError::ImportRefused { .. })), "{early:?}");
    fixture.import(records(1, vec![put(0, "b", 6, 6, 1)])).unwrap();
    fixture.import(end(0, 2)).unwrap();
    let fixture = fixture.restarted();
    assert_eq!(fixture.revision(), 6);
    assert_eq!(State::read(&fixture.view()).unwrap().lessor_term, Term(3));
}

#[test]
fn an_aborted_import_leaves_an_empty_store() {
    let mut fixture = Fixture::new();
    fixture.import(begin(9, 0)).unwrap();
    let leases = vec![(LeaseId(3), 60)];
    fixture.import(ImportStep::Leases { id: ID, after: 0, leases }).unwrap();
    let history = (2..=9).map(|at| put(0, "a", 2, at, at - 1)).collect();
    fixture.import(records(0, history)).unwrap();
    let mut steps = 1;
    while !fixture.import(ImportStep::Abort { entries_max: 5 }).unwrap().is_open {
        assert!(fixture.import(begin(9, 0)).is_err(), "what is half removed cannot go on");
        steps += 1;
    }
    assert!(steps > 2, "it takes several steps");
    assert_eq!(b"cohlkn".map(|kind| fixture.records(kind)), [0; 6]);
    super::property::same_usage(&fixture);
    assert_eq!(fixture.put(PutRequest::new("k", "v")).unwrap().header.revision, Revision(2));
}

#[test]
fn what_no_store_has_written_is_refused_and_changes_nothing() {
    let cases = [
        ("version out of line", vec![put(0, "a", 6, 6, 2)]),
        ("created elsewhere", vec![put(0, "a", 6, 6, 1), put(0, "a", 5, 7, 2)]),
        ("out of order", vec![put(0, "a", 7, 7, 1), put(0, "b", 6, 6, 1)]),
        ("twice at one place", vec![put(0, "a", 6, 6, 1), put(0, "b", 6, 6, 1)]),
        ("beyond the end", vec![put(0, "a", 10, 10, 1)]),
        ("deletion of nothing", vec![deletion(0, "a", 6)]),
        ("empty key", vec![put(0, "", 6, 6, 1)]),
        ("no revision", vec![put(0, "a", 0, 0, 1)]),
    ];
    for (name, wrong) in cases {
        let mut fixture = Fixture::new();
        fixture.import(begin(9, 5)).unwrap();
        assert!(fixture.import(records(0, wrong)).is_err(), "{name}");
        assert_eq!(b"coh".map(|kind| fixture.records(kind)), [0; 3], "{name}");
        assert_eq!(fixture.import(begin(9, 5)).unwrap().progress.records, 0, "{name}");
    }
}

#[test]
fn only_an_empty_store_is_filled_and_only_by_one_import() {
    let mut fixture = Fixture::new();
    for step in [records(0, vec![]), end(0, 0), begin(0, 0), begin(4, 5), begin(u64::MAX, 0)] {
        assert!(fixture.import(step.clone()).is_err(), "{step:?}");
    }
    fixture.put(PutRequest::new("k", "v")).unwrap();
    assert!(matches!(fixture.import(begin(9, 0)), Err(KvError::ImportRefused { .. })));
    let mut fixture = Fixture::new();
    fixture.import(begin(9, 0)).unwrap();
    let other = ImportBegin { id: [8; 32], revision: Revision(9), compacted: Revision(0) };
    assert!(fixture.import(ImportStep::Begin(other)).is_err());
}
