//! Users, roles and what they may do, in the order of the log.

use proptest::prelude::*;

use super::*;
use crate::store::auth::change::AuthCommand;
use crate::store::auth::{AuthState, permit};
use crate::{
    AuthError, Compare, LeaseGrantRequest, LeaseId, Operation, Permission, PermissionKind, Proof,
    ROOT, TxnRequest,
};
use PermissionKind::{Read, ReadWrite, Write};

const KEY: [u8; 32] = [9; 32];

/// A store with authentication on: `root`, and `alice` with the role `staff`, which may do nothing.
fn guarded() -> Fixture {
    let mut fixture = Fixture::new();
    for user in [ROOT, "alice"] {
        fixture.auth(add(user)).unwrap();
    }
    fixture.auth(AuthCommand::RoleAdd { name: "staff".into() }).unwrap();
    fixture.auth(grant("alice", "staff")).unwrap();
    fixture.auth(grant(ROOT, ROOT)).unwrap();
    fixture.auth(AuthCommand::Enable { key: KEY }).unwrap();
    fixture
}

fn add(name: &str) -> AuthCommand {
    AuthCommand::UserAdd { name: name.into(), hash: Some(format!("hash of {name}'s")) }
}

fn grant(user: &str, role: &str) -> AuthCommand {
    AuthCommand::UserGrantRole { user: user.into(), role: role.into() }
}

fn permit_staff(kind: PermissionKind, key: &'static str, range_end: &'static str) -> AuthCommand {
    let permission = Permission { kind, key: key.into(), range_end: range_end.into() };
    AuthCommand::RoleGrantPermission { role: "staff".into(), permission }
}

impl Fixture {
    fn auth(&mut self, command: AuthCommand) -> Result<(), KvError> {
        self.apply(&Command::Auth(command)).map(|_| ())
    }

    fn auth_state(&self) -> AuthState {
        AuthState::read(&self.view()).unwrap()
    }

    /// Who logs in now.
    fn login(&self, name: &str) -> Caller {
        let revision = self.auth_state().switch.revision;
        Caller::User(Proof { name: name.into(), revision })
    }

    fn outcome_for(&mut self, caller: &Caller, command: Command) -> Result<(), KvError> {
        self.apply_for(caller, &command).map(|_| ())
    }

    fn put_for(&mut self, caller: &Caller, key: &'static str) -> Result<(), KvError> {
        self.outcome_for(caller, Command::Put(PutRequest::new(key, "v")))
    }
}

fn denied() -> Result<(), KvError> {
    Err(AuthError::PermissionDenied.into())
}

#[test]
fn authentication_needs_a_root_who_is_root() {
    let mut fixture = Fixture::new();
    let enable = || AuthCommand::Enable { key: KEY };
    assert_eq!(fixture.auth(enable()), Err(AuthError::RootUserNotFound.into()));
    fixture.auth(add(ROOT)).unwrap();
    assert_eq!(fixture.auth(enable()), Err(AuthError::RootRoleNotGranted.into()));
    fixture.auth(grant(ROOT, ROOT)).unwrap();
    fixture.auth(enable()).unwrap();
    assert_eq!(fixture.auth_state().enforced(), Some(3));
    // Etcd does not count turning it on, and does nothing the second time.
    fixture.auth(AuthCommand::Enable { key: [1; 32] }).unwrap();
    assert_eq!(fixture.auth_state().switch.key, KEY);
}

#[test]
fn everybody_may_do_everything_while_it_is_off() {
    let mut fixture = Fixture::new();
    fixture.put_for(&Caller::Anonymous, "a").unwrap();
    let nobody = Caller::User(Proof { name: "nobody".into(), revision: 0 });
    fixture.put_for(&nobody, "a").unwrap();
    fixture.outcome_for(&Caller::Anonymous, Command::Auth(add("bob"))).unwrap();
}

#[test]
fn nobody_may_do_anything_while_it_is_on() {
    let mut fixture = guarded();
    let put = fixture.put_for(&Caller::Anonymous, "a");
    assert_eq!(put, Err(AuthError::UserEmpty.into()));
    let grant = Command::LeaseGrant(LeaseGrantRequest::default());
    let grant = fixture.outcome_for(&Caller::Anonymous, grant);
    assert_eq!(grant, Err(AuthError::UserEmpty.into()));
    let stranger = fixture.login("stranger");
    assert_eq!(fixture.put_for(&stranger, "a"), Err(AuthError::InvalidToken.into()));
    // What the cluster does itself goes on.
    fixture.put_for(&Caller::Trusted, "a").unwrap();
    fixture.apply(&Command::Lead(onefold_types::Term(1))).unwrap();
}

#[test]
fn only_root_changes_users_and_compacts() {
    let mut fixture = guarded();
    let (root, alice) = (fixture.login(ROOT), fixture.login("alice"));
    assert_eq!(fixture.outcome_for(&alice, Command::Auth(add("bob"))), denied());
    assert_eq!(fixture.outcome_for(&alice, Command::Compact(Revision(1))), denied());
    assert_eq!(fixture.outcome_for(&alice, Command::Auth(AuthCommand::Disable)), denied());
    fixture.outcome_for(&root, Command::Auth(add("bob"))).unwrap();
    fixture.put_for(&root, "anything").unwrap();
    fixture.outcome_for(&root, Command::Compact(Revision(1))).unwrap();
}

#[test]
fn a_permission_that_was_taken_before_is_gone_for_commands_on_their_way() {
    let mut fixture = guarded();
    fixture.auth(permit_staff(Write, "a", "")).unwrap();
    let alice = fixture.login("alice");
    fixture.put_for(&alice, "a").unwrap();
    let revoke = AuthCommand::RoleRevokePermission {
        role: "staff".into(),
        key: "a".into(),
        range_end: "".into(),
    };
    // Both are in the log already, in this order and in one round.
    let put = Command::Put(PutRequest::new("a", "late"));
    let commands = [Command::Auth(revoke).encode(), put.encode_for(&alice)];
    let outcomes = fixture.apply_encoded(&commands);
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1], Err(AuthError::PermissionDenied.into()));
    assert_eq!(fixture.pairs(&RangeRequest::key("a")), [("a".into(), "v".into())]);
}

#[test]
fn a_new_password_makes_proofs_of_before_void() {
    let mut fixture = guarded();
    fixture.auth(permit_staff(Write, "a", "")).unwrap();
    let before = fixture.login("alice");
    let password = |hash| AuthCommand::UserChangePassword { name: "alice".into(), hash };
    fixture.auth(password(Some("another".into()))).unwrap();
    assert_eq!(fixture.put_for(&before, "a"), Err(AuthError::InvalidToken.into()));
    let after = fixture.login("alice");
    fixture.put_for(&after, "a").unwrap();
    assert_eq!(fixture.auth(password(None)), Err(AuthError::NoPassword.into()));
}

#[test]
fn a_user_who_comes_back_is_another_one() {
    let mut fixture = guarded();
    let before = fixture.login("alice");
    fixture.auth(AuthCommand::UserDelete { name: "alice".into() }).unwrap();
    assert_eq!(fixture.put_for(&before, "a"), Err(AuthError::InvalidToken.into()));
    fixture.auth(add("alice")).unwrap();
    assert_eq!(fixture.put_for(&before, "a"), Err(AuthError::InvalidToken.into()));
}

#[test]
fn turning_it_off_and_on_makes_proofs_void_and_changes_the_key() {
    let mut fixture = guarded();
    let root = fixture.login(ROOT);
    fixture.outcome_for(&root, Command::Auth(AuthCommand::Disable)).unwrap();
    fixture.put_for(&Caller::Anonymous, "a").unwrap();
    fixture.auth(AuthCommand::Enable { key: [1; 32] }).unwrap();
    assert_eq!(fixture.put_for(&root, "a"), Err(AuthError::InvalidToken.into()));
    assert_eq!(fixture.auth_state().switch.key, [1; 32]);
}

#[test]
fn root_cannot_lock_itself_out() {
    let mut fixture = guarded();
    let refused = Err(AuthError::InvalidManagement.into());
    assert_eq!(fixture.auth(AuthCommand::UserDelete { name: ROOT.into() }), refused);
    assert_eq!(fixture.auth(AuthCommand::RoleDelete { name: ROOT.into() }), refused);
    let revoke = AuthCommand::UserRevokeRole { user: ROOT.into(), role: ROOT.into() };
    assert_eq!(fixture.auth(revoke.clone()), refused);
    fixture.auth(AuthCommand::Disable).unwrap();
    fixture.auth(revoke).unwrap();
}

#[test]
fn a_put_needs_what_it_touches() {
    let mut fixture = guarded();
    fixture.auth(permit_staff(Write, "w", "")).unwrap();
    fixture.auth(permit_staff(Read, "r", "")).unwrap();
    let alice = fixture.login("alice");
    fixture.put_for(&alice, "w").unwrap();
    assert_eq!(fixture.put_for(&alice, "r"), denied());
    let with_previous = PutRequest { prev_kv: true, ..PutRequest::new("w", "v") };
    assert_eq!(fixture.outcome_for(&alice, Command::Put(with_previous)), denied());
    let delete = DeleteRangeRequest::key("w");
    let with_previous = DeleteRangeRequest { prev_kv: true, ..delete.clone() };
    assert_eq!(fixture.outcome_for(&alice, Command::DeleteRange(with_previous)), denied());
    fixture.outcome_for(&alice, Command::DeleteRange(delete)).unwrap();
    let wide = DeleteRangeRequest::prefix("w");
    assert_eq!(fixture.outcome_for(&alice, Command::DeleteRange(wide)), denied());
}

#[test]
fn a_lease_is_only_ended_by_who_may_delete_its_keys() {
    let mut fixture = guarded();
    fixture.auth(permit_staff(ReadWrite, "w", "")).unwrap();
    let alice = fixture.login("alice");
    let id = LeaseId(7);
    let grant = LeaseGrantRequest { id, ttl_seconds: 60 };
    fixture.outcome_for(&alice, Command::LeaseGrant(grant)).unwrap();
    let attached = |key| Command::Put(PutRequest { lease: id, ..PutRequest::new(key, "v") });
    fixture.outcome_for(&alice, attached("w")).unwrap();
    fixture.apply(&attached("x")).unwrap();
    assert_eq!(fixture.outcome_for(&alice, Command::LeaseRevoke(id)), denied());
    assert_eq!(fixture.outcome_for(&alice, attached("w")), denied());
    fixture.apply(&Command::DeleteRange(DeleteRangeRequest::key("x"))).unwrap();
    fixture.outcome_for(&alice, Command::LeaseRevoke(id)).unwrap();
}

#[test]
fn a_transaction_needs_all_of_both_branches() {
    let mut fixture = guarded();
    fixture.auth(permit_staff(ReadWrite, "a", "")).unwrap();
    let alice = fixture.login("alice");
    let put = |key: &'static str| Operation::Put(PutRequest::new(key, "v"));
    let txn = |compare: &'static str, success, failure| {
        let compare = vec![Compare::absent(compare)];
        Command::Txn(TxnRequest { compare, success, failure })
    };
    fixture.outcome_for(&alice, txn("a", vec![put("a")], vec![])).unwrap();
    assert_eq!(fixture.outcome_for(&alice, txn("b", vec![put("a")], vec![])), denied());
    assert_eq!(fixture.outcome_for(&alice, txn("a", vec![], vec![put("b")])), denied());
    let read = Operation::Range(RangeRequest::key("b"));
    let inner = TxnRequest { success: vec![read], ..TxnRequest::default() };
    let nested = vec![put("a"), Operation::Txn(inner)];
    assert_eq!(fixture.outcome_for(&alice, txn("a", vec![], nested)), denied());
}

#[test]
fn names_and_spans_are_checked_as_in_etcd() {
    let mut fixture = guarded();
    assert_eq!(fixture.auth(add("")), Err(AuthError::UserEmpty.into()));
    assert_eq!(fixture.auth(add("alice")), Err(AuthError::UserExists.into()));
    let role = |name: &str| AuthCommand::RoleAdd { name: name.into() };
    assert_eq!(fixture.auth(role("")), Err(AuthError::RoleEmpty.into()));
    assert_eq!(fixture.auth(role("staff")), Err(AuthError::RoleExists.into()));
    assert_eq!(fixture.auth(grant("bob", "staff")), Err(AuthError::UserNotFound.into()));
    assert_eq!(fixture.auth(grant("alice", "x")), Err(AuthError::RoleNotFound.into()));
    fixture.auth(grant("alice", "staff")).expect("twice is once");
    let revoke = AuthCommand::UserRevokeRole { user: "alice".into(), role: "x".into() };
    assert_eq!(fixture.auth(revoke), Err(AuthError::RoleNotGranted.into()));
    for (key, range_end) in [("", ""), ("b", "a"), ("b", "b")] {
        let refused = fixture.auth(permit_staff(Read, key, range_end));
        assert_eq!(refused, Err(AuthError::InvalidManagement.into()), "{key} {range_end}");
    }
    let revoke = |key: &'static str| AuthCommand::RoleRevokePermission {
        role: "staff".into(),
        key: key.into(),
        range_end: "".into(),
    };
    assert_eq!(fixture.auth(revoke("a")), Err(AuthError::PermissionNotGranted.into()));
}

#[test]
fn a_permission_on_the_same_span_replaces_the_one_before() {
    let mut fixture = guarded();
    fixture.auth(permit_staff(ReadWrite, "a", "c")).unwrap();
    fixture.auth(permit_staff(Read, "a", "c")).unwrap();
    let alice = fixture.login("alice");
    assert_eq!(fixture.put_for(&alice, "a"), denied());
    assert_eq!(fixture.auth_state().roles["staff"].role.permissions.len(), 1);
}

#[test]
fn deleting_a_role_takes_it_from_its_users() {
    let mut fixture = guarded();
    fixture.auth(AuthCommand::RoleDelete { name: "staff".into() }).unwrap();
    fixture.auth(AuthCommand::RoleAdd { name: "staff".into() }).unwrap();
    assert!(fixture.auth_state().users["alice"].roles.is_empty());
}

#[test]
fn a_restart_and_a_snapshot_keep_all_of_it() {
    let mut fixture = guarded();
    fixture.auth(permit_staff(Write, "a", "")).unwrap();
    let before = fixture.auth_state();
    let alice = fixture.login("alice");
    let mut fixture = fixture.restarted();
    assert_eq!(fixture.auth_state(), before);
    fixture.put_for(&alice, "a").unwrap();
    assert_eq!(fixture.put_for(&alice, "b"), denied());
    assert_eq!(State::read(&fixture.view()).unwrap().enforced, before.enforced());
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut fixture = guarded();
    let before = fixture.auth_state();
    fixture.heard.lock().unwrap().clear();
    fixture.auth(grant("alice", "x")).unwrap_err();
    assert_eq!(fixture.auth_state(), before);
    assert!(fixture.heard.lock().unwrap().iter().all(|round| round.auth.is_none()));
}

/// What one who may not do everything can be asked to do.
fn command() -> impl Strategy<Value = AuthCommand> {
    let name = || prop_oneof![Just("alice"), Just("bob"), Just(ROOT)].prop_map(String::from);
    let role = || prop_oneof![Just("staff"), Just("guests"), Just(ROOT)].prop_map(String::from);
    let key = || prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(Bytes::from);
    let kind = prop_oneof![Just(Read), Just(Write), Just(ReadWrite)];
    prop_oneof![
        Just(AuthCommand::Enable { key: KEY }),
        Just(AuthCommand::Disable),
        name().prop_map(|name| add(&name)),
        name().prop_map(|name| AuthCommand::UserDelete { name }),
        name().prop_map(|name| AuthCommand::UserChangePassword { name, hash: Some("x".into()) }),
        (name(), role()).prop_map(|(user, role)| AuthCommand::UserGrantRole { user, role }),
        (name(), role()).prop_map(|(user, role)| AuthCommand::UserRevokeRole { user, role }),
        role().prop_map(|name| AuthCommand::RoleAdd { name }),
        role().prop_map(|name| AuthCommand::RoleDelete { name }),
        (role(), kind, key(), key()).prop_map(|(role, kind, key, range_end)| {
            let permission = Permission { kind, key, range_end };
            AuthCommand::RoleGrantPermission { role, permission }
        }),
        (role(), key(), key()).prop_map(|(role, key, range_end)| {
            AuthCommand::RoleRevokePermission { role, key, range_end }
        }),
    ]
}

proptest! {
    #[test]
    fn memory_and_table_never_differ(commands in proptest::collection::vec(command(), 1..60)) {
        let mut fixture = Fixture::new();
        let mut told = AuthState::default();
        for command in commands {
            let _ = fixture.auth(command);
            for round in fixture.heard.lock().unwrap().drain(..) {
                told = round.auth.unwrap_or(told);
            }
            prop_assert_eq!(&fixture.auth_state(), &told);
            prop_assert_eq!(State::read(&fixture.view()).unwrap().enforced, told.enforced());
        }
    }

    #[test]
    fn while_it_is_on_there_is_a_root(commands in proptest::collection::vec(command(), 1..60)) {
        let mut fixture = Fixture::new();
        for command in commands {
            let _ = fixture.auth(command);
            let state = fixture.auth_state();
            if state.enforced().is_some() {
                let root = fixture.login(ROOT);
                prop_assert!(state.rights(&root).unwrap().is_root());
                let anything = Command::Put(PutRequest::new("k", "v"));
                let rights = state.rights(&root).unwrap();
                prop_assert!(permit::command(&rights, &fixture.view(), &anything).is_ok());
            }
        }
    }
}
