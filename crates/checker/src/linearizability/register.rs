//! One key of a key-value store as a sequential object.

use std::collections::BTreeSet;

use super::{Model, Operation};

/// Stands for all values that nobody names.
const NAMELESS: u64 = u64::MAX;

/// A key that exists with a value, or does not exist. Values are named by numbers.
#[derive(Clone, Copy, Debug)]
pub struct Register;

/// What is done to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterInput {
    /// Reads it.
    Get,
    /// Writes it.
    Put(u64),
    /// Removes it.
    Delete,
    /// Writes `new` if it holds exactly `expected`.
    CompareAndSwap {
        /// `None` for "does not exist".
        expected: Option<u64>,
        /// What it becomes.
        new: u64,
    },
    /// Reads it and writes it, both at once.
    Swap(u64),
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOutput {
    /// The value that was read, or the one before the write.
    Value(Option<u64>),
    /// Written.
    Done,
    /// Whether there was something to do: a deletion that deleted, a comparison that held.
    Did(bool),
}

/// Takes from the history of a register what nobody could see: a value that no answer and no
/// comparison names is like any other such value, and a swap whose answer is unknown is like a put.
/// The history is linearizable if and only if it was before, and the search has fewer cases.
pub fn simplify(history: &mut [Operation<RegisterInput, RegisterOutput>]) {
    let mut named = BTreeSet::new();
    for operation in history.iter() {
        if let RegisterInput::CompareAndSwap { expected: Some(value), .. } = operation.input {
            named.insert(value);
        }
        if let Some(RegisterOutput::Value(Some(value))) = operation.output {
            named.insert(value);
        }
    }
    for operation in history {
        let rename = |value: u64| if named.contains(&value) { value } else { NAMELESS };
        operation.input = match operation.input {
            RegisterInput::Swap(value) if operation.output.is_none() => {
                RegisterInput::Put(rename(value))
            }
            RegisterInput::Put(value) => RegisterInput::Put(rename(value)),
            RegisterInput::Swap(value) => RegisterInput::Swap(rename(value)),
            RegisterInput::CompareAndSwap { expected, new } => {
                RegisterInput::CompareAndSwap { expected, new: rename(new) }
            }
            other @ (RegisterInput::Get | RegisterInput::Delete) => other,
        };
    }
}

impl Model for Register {
    type State = Option<u64>;
    type Input = RegisterInput;
    type Output = RegisterOutput;

    fn initial(&self) -> Self::State {
        None
    }

    fn apply(&self, state: &Self::State, input: &Self::Input) -> (Self::State, Self::Output) {
        let state = *state;
        match *input {
            RegisterInput::Get => (state, RegisterOutput::Value(state)),
            RegisterInput::Put(value) => (Some(value), RegisterOutput::Done),
            RegisterInput::Delete => (None, RegisterOutput::Did(state.is_some())),
            RegisterInput::CompareAndSwap { expected, new } => {
                let holds = state == expected;
                (if holds { Some(new) } else { state }, RegisterOutput::Did(holds))
            }
            RegisterInput::Swap(value) => (Some(value), RegisterOutput::Value(state)),
        }
    }

    fn overwrites(&self, input: &Self::Input) -> bool {
        match input {
            RegisterInput::Put(_) | RegisterInput::Delete | RegisterInput::Swap(_) => true,
            RegisterInput::Get | RegisterInput::CompareAndSwap { .. } => false,
        }
    }

    fn observes(&self, input: &Self::Input) -> bool {
        !matches!(input, RegisterInput::Put(_))
    }
}
