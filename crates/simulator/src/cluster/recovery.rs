//! The end of a run: everything is healed, and the cluster must become whole in a bounded time.

use onefold_kv::{RangeRequest, core as kv};
use onefold_raft::{Raft, Role};
use onefold_types::{LogIndex, NodeId};

use super::{
    checker::{Checked, Violation, ensure},
    clock::SECOND,
    coverage::Branch,
    event::Event,
    history::{key_bytes, value_of},
    node::Standing,
    plan::TICK,
    world::World,
};

/// How often the cluster is looked at while it recovers.
const LOOK_INTERVAL: u64 = 5 * TICK;

impl World {
    /// Ends all faults and restarts what is down. Every group must elect a leader, bring every
    /// member up to date, finish every change of its members, answer every client, and fall quiet
    /// at last. If the seed wants it so, a minority is then lost for a while, and the rest must go
    /// on without it.
    pub(super) fn recover(&mut self) -> Checked {
        self.is_healed = true;
        self.plan.heal();
        self.network.heal();
        self.start_all()?;
        self.schedule(SECOND, Event::Operator);
        self.tell(|| "everything is healed, and all nodes run".into());
        self.probe();
        self.run_until_holds("a healed cluster becomes whole", Self::is_whole)?;
        self.run_until_holds("leases that nobody keeps alive end", Self::are_leases_over)?;
        self.fall_quiet()?;
        if self.plan.is_minority_lost && self.lose_minority()? {
            self.probe();
            let is_answered = |world: &Self| world.clients.iter().all(|client| !client.is_busy());
            self.run_until_holds("a majority goes on without the others", is_answered)?;
            self.start_all()?;
            self.run_until_holds("nodes that come back catch up", Self::is_whole)?;
            self.fall_quiet()?;
        }
        self.run_until_holds("watchers are told everything", Self::are_watchers_told)?;
        self.check_states()?;
        self.judge_stores()?;
        self.history.check_linearizable()
    }

    fn are_leases_over(&self) -> bool {
        (0..self.plan.groups).filter(|group| self.plan.is_store(*group)).all(|group| {
            let leader = self.leader(group).and_then(|id| self.node(id).process.as_ref());
            leader.is_some_and(|process| {
                let leases = kv::leases(&process.groups[group].state.view());
                leases.is_ok_and(|leases| leases.is_empty())
            })
        })
    }

    fn are_watchers_told(&self) -> bool {
        self.watchers.iter().all(|watcher| watcher.has_heard(self.accounts[watcher.group].end()))
    }

    /// The checkers of real clusters judge what clients and watchers of whole stores saw.
    fn judge_stores(&mut self) -> Checked {
        let mut watches: Vec<Vec<_>> = (0..self.plan.groups).map(|_| Vec::new()).collect();
        for (client, watcher) in (1000..).zip(std::mem::take(&mut self.watchers)) {
            watches[watcher.group].push(watcher.into_watch(client));
        }
        for (group, watches) in watches.into_iter().enumerate() {
            if !self.plan.is_store(group) {
                continue;
            }
            let Some((_, members)) = self.members(group) else { continue };
            let mut replicas = Vec::new();
            for id in members {
                let hosted = self.hosted(id, group).expect("the cluster is whole");
                replicas.push((id, hosted.state.view()));
            }
            let mut account = std::mem::take(&mut self.accounts[group]);
            account.watches = watches;
            let looked = account.judge(group, &replicas, self.plan.drift_ppm_max)?;
            self.looked.add(&looked);
        }
        Ok(())
    }

    fn start_all(&mut self) -> Checked {
        for id in self.serving() {
            let now = self.now;
            let node = self.node_mut(id);
            node.end_pause(now);
            node.misled.iter_mut().for_each(|(_, until)| *until = now);
            node.disk.is_full = false;
            node.disk.is_failing = false;
            node.disk.stalled_until = now;
            self.start(id)?;
        }
        Ok(())
    }

    fn fall_quiet(&mut self) -> Checked {
        if self.plan.quiesce_after_ticks.is_none() {
            return Ok(());
        }
        self.run_until_holds("groups without work fall quiet", Self::is_quiet)?;
        // They tell each other their hashes, and some may learn that they are wrong.
        self.run_until(self.now + 2 * SECOND)?;
        let holds = |world: &Self| world.is_whole() && world.is_quiet();
        self.run_until_holds("groups without work fall quiet", holds)
    }

    /// Each client writes to every group once more, after what it still waits for.
    fn probe(&mut self) {
        let groups = self.plan.groups;
        for client in &mut self.clients {
            client.probe(groups);
        }
        self.wake_clients();
    }

    fn run_until_holds(&mut self, what: &'static str, holds: impl Fn(&Self) -> bool) -> Checked {
        let cores = self.nodes.iter().flat_map(|node| (0..self.plan.groups).map(|g| node.raft(g)));
        let longest = cores.flatten().map(|core| core.last_index().0 + 1 - core.first_index().0);
        let longest = longest.max().unwrap_or(0);
        let limit = self.plan.recovery_time_max(longest);
        let deadline = self.now + limit;
        while !holds(self) {
            if self.now >= deadline {
                let detail = format!("not within {} s:\n{}", limit / SECOND, self.picture());
                return Err(Violation { invariant: what, detail });
            }
            self.run_until(self.now + LOOK_INTERVAL)?;
        }
        Ok(())
    }

    /// The members that each group has in the end, by its leader.
    fn members(&self, group: usize) -> Option<(NodeId, Vec<NodeId>)> {
        let leader = self.leader(group)?;
        let members = self.node(leader).raft(group)?.membership().members();
        Some((leader, members.into_iter().collect()))
    }

    fn is_whole(&self) -> bool {
        self.operator.is_idle()
            && self.clients.iter().all(|client| !client.is_busy())
            && (0..self.plan.groups).all(|group| self.is_group_whole(group))
    }

    fn is_group_whole(&self, group: usize) -> bool {
        let Some((leader, members)) = self.members(group) else { return false };
        let core = self.node(leader).raft(group).expect("it leads");
        let last = core.last_index();
        let membership = core.membership();
        let is_settled = !membership.is_joint() && membership.joining.is_empty();
        is_settled
            && members.iter().all(|&member| {
                self.node(member).process.as_ref().is_some_and(|process| {
                    let hosted = &process.groups[group];
                    let core = &hosted.raft;
                    (core.commit_index(), core.last_index()) == (last, last)
                        && core.applied_index() == last
                        && hosted.state.applied() == last
                        && hosted.reads.is_empty()
                })
            })
    }

    fn is_quiet(&self) -> bool {
        (0..self.plan.groups).all(|group| {
            self.members(group).is_some_and(|(_, members)| {
                members.iter().all(|&id| self.node(id).raft(group).is_some_and(Raft::is_quiet))
            })
        })
    }

    /// As many nodes go down for now as every group can bear, leaders first. False if it is none.
    fn lose_minority(&mut self) -> Result<bool, Violation> {
        let mut candidates = self.serving();
        let leads = |world: &Self, id: &NodeId| {
            (0..world.plan.groups).any(|group| world.leader(group) == Some(*id))
        };
        candidates.sort_by_key(|id| !leads(self, id));
        let mut lost: Vec<NodeId> = Vec::new();
        for id in candidates {
            lost.push(id);
            let is_bearable = (0..self.plan.groups).all(|group| {
                let Some((leader, _)) = self.members(group) else { return false };
                let Some(core) = self.node(leader).raft(group) else { return false };
                let voters = &core.membership().voters;
                let left = voters.iter().filter(|voter| !lost.contains(voter)).count();
                left > voters.len() / 2
            });
            if !is_bearable {
                lost.pop();
            }
        }
        let was_leading = lost.iter().any(|id| leads(self, id));
        for &id in &lost {
            self.end_process(id);
        }
        if was_leading && self.plan.quiesce_after_ticks.is_some() {
            self.coverage.hit(Branch::QuietLeaderReplaced);
        }
        self.tell(|| format!("a minority is lost: {lost:?}"));
        Ok(!lost.is_empty())
    }

    /// Every replica has what the log says.
    fn check_states(&mut self) -> Checked {
        for group in 0..self.plan.groups {
            let Some((_, members)) = self.members(group) else { continue };
            self.check_hashes_equal(group, &members)?;
            if self.plan.is_store(group) {
                continue;
            }
            for id in members {
                let hosted = self.hosted(id, group).expect("the cluster is whole");
                let view = hosted.state.view();
                let failed = |error: onefold_kv::KvError| Violation {
                    invariant: "states can be read",
                    detail: format!("g{group} n{id}: {error}"),
                };
                let expected: Vec<_> = self.history.final_values(group).collect();
                for (key, value) in expected {
                    let read = kv::read(&view, &RangeRequest::key(key_bytes(key)));
                    let read = read.map_err(failed)?;
                    let found = read.kvs.first().and_then(|kv| value_of(&kv.value));
                    ensure(found == value, "nothing acknowledged is lost", || {
                        format!("g{group} n{id} key {key}: {found:?}, not {value:?}")
                    })?;
                }
                let revision = kv::read(&view, &RangeRequest::key(key_bytes(0))).map_err(failed)?;
                let (found, expected) =
                    (revision.header.revision.get(), self.history.final_revision(group));
                ensure(found == expected, "commands are executed exactly once", || {
                    format!("g{group} n{id} is at revision {found}, not {expected}")
                })?;
            }
        }
        Ok(())
    }

    /// The state of everything, for whoever looks into a failure.
    fn picture(&self) -> String {
        let mut lines = Vec::new();
        for node in &self.nodes {
            if node.standing != Standing::Serving && node.process.is_none() {
                continue;
            }
            let Some(process) = &node.process else {
                lines.push(format!("n{} is down", node.id));
                continue;
            };
            for (group, hosted) in process.groups.iter().enumerate() {
                let applied: LogIndex = hosted.state.applied();
                let leads = if hosted.raft.role() == Role::Leader { "*" } else { " " };
                lines.push(format!(
                    "{leads} g{group} state {applied}, {} reads: {:?}",
                    hosted.reads.len(),
                    hosted.raft.status()
                ));
            }
        }
        let busy = self.clients.iter().filter(|client| client.is_busy());
        lines.push(format!("operator {:?}", self.operator));
        busy.for_each(|client| lines.push(format!("{client:?}")));
        lines.join("\n")
    }
}
