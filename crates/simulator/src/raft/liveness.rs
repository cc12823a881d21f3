//! What nodes are told about each other: late, lost, wrong, and right in the end.

use onefold_raft::Input;
use onefold_types::NodeId;

use super::{checker::Checked, coverage::Branch, event::Event, plan::TICK, world::World};

impl World {
    /// A node crashed: the others notice at some time, or not.
    pub(super) fn spread_down(&mut self, about: NodeId) {
        self.spread(about, false, TICK * 5);
    }

    /// A node started: the others notice that it is another process, and that it is there.
    pub(super) fn spread_up(&mut self, about: NodeId) {
        self.spread(about, false, 1);
        self.spread(about, true, TICK * 2);
    }

    fn spread(&mut self, about: NodeId, is_up: bool, after: u64) {
        if self.is_healed || !self.plan.is_quiescent() {
            return;
        }
        let life = self.nodes[&about].life;
        for node in self.ids() {
            if node != about && !self.random.chance(self.plan.hint_loss) {
                let delay = after + self.random.within(1..=TICK * 30);
                self.schedule(delay, Event::Hint { node, about, life, is_up });
            }
        }
    }

    /// A node starts without any opinion.
    pub(super) fn know_nothing(&mut self, id: NodeId) {
        let lives = self.nodes.values().map(|node| (node.id, (node.life, true))).collect();
        self.nodes.get_mut(&id).expect("a node of this world").told = lives;
    }

    /// A node is told something, true or not.
    pub(super) fn hint(&mut self, node: NodeId, about: NodeId, life: u64, is_up: bool) -> Checked {
        if node == about || self.nodes[&node].core.is_none() {
            return Ok(());
        }
        let receiver = self.nodes.get_mut(&node).expect("a node of this world");
        receiver.told.insert(about, (life, is_up));
        let was_quiet = self.is_quiet(node);
        let input = if is_up { Input::NodeUp(about) } else { Input::NodeDown(about) };
        self.step(node, input)?;
        if was_quiet && !self.is_quiet(node) {
            self.coverage.hit(Branch::WokenByHint);
        }
        Ok(())
    }

    pub(super) fn is_quiet(&self, id: NodeId) -> bool {
        self.nodes[&id].core.as_ref().is_some_and(onefold_raft::Raft::is_quiet)
    }

    /// Somebody is told nonsense.
    pub(super) fn hint_wrongly(&mut self) -> Checked {
        let ids = self.ids();
        let (node, about) = (self.random.pick(&ids), self.random.pick(&ids));
        let is_up = self.random.chance(300);
        self.tell(|| format!("n{node} is told that n{about} is up: {is_up}"));
        let life = self.nodes[&about].life;
        self.hint(node, about, life, is_up)
    }

    /// The world is healed: everybody is told what it does not know yet, and nothing else.
    pub(super) fn tell_the_truth(&mut self) -> Checked {
        for node in self.ids() {
            for about in self.ids() {
                let life = self.nodes[&about].life;
                let (told_life, told_up) = self.nodes[&node].told[&about];
                if told_life != life {
                    self.hint(node, about, life, false)?;
                }
                if told_life != life || !told_up {
                    self.hint(node, about, life, true)?;
                }
            }
        }
        Ok(())
    }
}
