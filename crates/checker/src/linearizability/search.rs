//! Wing and Gong's search with Lowe's memo.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasherDefault, DefaultHasher, Hash},
};

/// A sequential, deterministic object.
pub trait Model {
    /// All that it remembers.
    type State: Clone + Eq + Hash + fmt::Debug;
    /// What it is asked.
    type Input: Eq + fmt::Debug;
    /// What it answers.
    type Output: Eq + fmt::Debug;

    /// The state in which every history begins.
    fn initial(&self) -> Self::State;

    /// The state after an operation, and its answer.
    fn apply(&self, state: &Self::State, input: &Self::Input) -> (Self::State, Self::Output);

    /// Whether the state after it does not depend on the state before it.
    fn overwrites(&self, input: &Self::Input) -> bool;

    /// Whether its answer depends on the state before it.
    fn observes(&self, input: &Self::Input) -> bool;
}

/// One operation of a history. Times are those of one clock that all clients share; an operation
/// that returned before another was called came before it.
#[derive(Clone, Debug)]
pub struct Operation<I, O> {
    /// What was asked.
    pub input: I,
    /// What was answered; `None` if the outcome is unknown.
    pub output: Option<O>,
    /// When it was called.
    pub called: u64,
    /// When it returned, at least `called`; without meaning if the outcome is unknown.
    pub returned: u64,
}

/// Why a history was not found to be linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// It is not: no order explains its answers.
    Violated {
        /// The operation at which the longest order that explains something ends: the earliest
        /// return that could not be explained. Its position in the history.
        at: usize,
    },
    /// The search looked at as many configurations as it may and knows nothing.
    BudgetUsedUp {
        /// How many that were.
        configurations: usize,
    },
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violated { at } => write!(f, "nothing explains the answer of operation {at}"),
            Self::BudgetUsedUp { configurations } => {
                write!(f, "nothing is proven after {configurations} configurations")
            }
        }
    }
}

/// Looks for an order of the history's operations that explains every answer.
///
/// # Errors
/// [`Unproven`], when there is none or none was found within `configurations_max` configurations.
pub fn check<M: Model>(
    model: &M,
    history: &[Operation<M::Input, M::Output>],
    configurations_max: usize,
) -> Result<(), Unproven> {
    Search::new(model, history).run(configurations_max)
}

/// No event: the end of the list.
const END: usize = usize::MAX;

/// The call or the return of an operation, in a list that is linked both ways.
#[derive(Clone, Copy, Debug)]
struct Event {
    operation: usize,
    /// For a call the place of its return, which is [`END`] if the outcome is unknown.
    matching: Option<usize>,
    previous: usize,
    next: usize,
}

/// The set of operations that have their moment already.
type Done = Box<[u64]>;

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Input, M::Output>],
    events: Vec<Event>,
    first: usize,
    /// Operations with an answer that have no moment yet.
    left: usize,
    done: Done,
    state: M::State,
    /// Calls that were given their moment, with the state before them.
    order: Vec<(usize, M::State)>,
    seen: HashSet<(Done, M::State), BuildHasherDefault<DefaultHasher>>,
    /// For each operation whose outcome is unknown, the one before it that asked for the same.
    twins: Vec<Option<usize>>,
    /// The furthest return that the search ran into.
    stuck: Option<(u64, usize)>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Operation<M::Input, M::Output>]) -> Self {
        // At equal times calls come before returns: operations that touch are concurrent.
        let mut times: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * history.len());
        for (place, operation) in history.iter().enumerate() {
            times.push((operation.called, false, place));
            if operation.output.is_some() {
                times.push((operation.returned.max(operation.called), true, place));
            }
        }
        times.sort_unstable();
        let mut returns = vec![END; history.len()];
        for (event, &(_, is_return, operation)) in times.iter().enumerate() {
            if is_return {
                returns[operation] = event;
            }
        }
        let last = times.len().wrapping_sub(1);
        let event = |(place, &(_, is_return, operation)): (usize, &(u64, bool, usize))| Event {
            operation,
            matching: (!is_return).then(|| returns[operation]),
            previous: if place == 0 { END } else { place - 1 },
            next: if place == last { END } else { place + 1 },
        };
        Self {
            model,
            history,
            events: times.iter().enumerate().map(event).collect(),
            first: if times.is_empty() { END } else { 0 },
            left: history.iter().filter(|operation| operation.output.is_some()).count(),
            done: vec![0; history.len().div_ceil(64)].into(),
            state: model.initial(),
            order: Vec::new(),
            seen: HashSet::default(),
            twins: twins::<M>(history),
            stuck: None,
        }
    }

    fn run(mut self, configurations_max: usize) -> Result<(), Unproven> {
        let mut at = self.first;
        while self.left > 0 {
            let event = self.events[at];
            let Some(matching) = event.matching else {
                // A return whose call has no moment yet: nothing later may come before it.
                self.note_stuck(event.operation);
                let Some(call) = self.take_back() else {
                    let (_, at) = self.stuck.expect("the search ran into a return");
                    return Err(Unproven::Violated { at });
                };
                at = self.events[call].next;
                continue;
            };
            match self.state_after(event.operation) {
                Some(state) if self.is_new(event.operation, &state) => {
                    if self.seen.len() > configurations_max {
                        let configurations = self.seen.len();
                        return Err(Unproven::BudgetUsedUp { configurations });
                    }
                    self.place(at, matching, state);
                    at = self.first;
                }
                _ => at = event.next,
            }
        }
        Ok(())
    }

    /// The state after an operation if it may be next.
    fn state_after(&self, operation: usize) -> Option<M::State> {
        let Operation { input, output, .. } = &self.history[operation];
        // Of two that are the same to everybody, the one that was called first can do it all.
        let is_done = |twin: usize| self.done[twin / 64] & (1 << (twin % 64)) != 0;
        if self.twins[operation].is_some_and(|twin| !is_done(twin)) {
            return None;
        }
        let (state, answer) = self.model.apply(&self.state, input);
        match output {
            Some(output) if *output != answer => return None,
            // It need not have happened at all, so it happens only if it changes something.
            None if state == self.state => return None,
            _ => {}
        }
        // An unknown operation whose effect nobody saw need not have happened.
        let is_unseen = || {
            let sees = output.is_some() && self.model.observes(input);
            !sees && self.model.overwrites(input)
        };
        if self.is_last_unknown() && is_unseen() {
            return None;
        }
        Some(state)
    }

    fn is_last_unknown(&self) -> bool {
        let last = self.order.last().map(|(call, _)| self.events[*call].operation);
        last.is_some_and(|operation| self.history[operation].output.is_none())
    }

    /// Remembers the configuration; false if it was tried before.
    fn is_new(&mut self, operation: usize, state: &M::State) -> bool {
        let mut done = self.done.clone();
        done[operation / 64] |= 1 << (operation % 64);
        self.seen.insert((done, state.clone()))
    }

    fn place(&mut self, call: usize, matching: usize, state: M::State) {
        let operation = self.events[call].operation;
        self.done[operation / 64] |= 1 << (operation % 64);
        self.order.push((call, std::mem::replace(&mut self.state, state)));
        self.unlink(call);
        if matching != END {
            self.unlink(matching);
            self.left -= 1;
        }
    }

    /// Takes the moment away from the operation that got it last; gives its call.
    fn take_back(&mut self) -> Option<usize> {
        let (call, state) = self.order.pop()?;
        let Event { operation, matching, .. } = self.events[call];
        self.done[operation / 64] &= !(1 << (operation % 64));
        self.state = state;
        if let Some(matching) = matching.filter(|matching| *matching != END) {
            self.link(matching);
            self.left += 1;
        }
        self.link(call);
        Some(call)
    }

    fn unlink(&mut self, at: usize) {
        let Event { previous, next, .. } = self.events[at];
        match previous {
            END => self.first = next,
            _ => self.events[previous].next = next,
        }
        if next != END {
            self.events[next].previous = previous;
        }
    }

    /// Undoes the last [`Self::unlink`].
    fn link(&mut self, at: usize) {
        let Event { previous, next, .. } = self.events[at];
        match previous {
            END => self.first = at,
            _ => self.events[previous].next = at,
        }
        if next != END {
            self.events[next].previous = at;
        }
    }

    fn note_stuck(&mut self, operation: usize) {
        let now = (self.history[operation].returned, operation);
        self.stuck = Some(self.stuck.map_or(now, |furthest| furthest.max(now)));
    }
}

/// For each operation with an unknown outcome, the last one called before it with the same input.
fn twins<M: Model>(history: &[Operation<M::Input, M::Output>]) -> Vec<Option<usize>> {
    let mut unknown: Vec<usize> =
        (0..history.len()).filter(|&place| history[place].output.is_none()).collect();
    unknown.sort_by_key(|&place| history[place].called);
    let mut twins = vec![None; history.len()];
    for (order, &place) in unknown.iter().enumerate() {
        let before = unknown[..order].iter().rev();
        let mut same = before.filter(|&&other| history[other].input == history[place].input);
        twins[place] = same.next().copied();
    }
    twins
}
