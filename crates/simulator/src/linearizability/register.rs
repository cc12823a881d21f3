//! One key of a key-value store as a sequential object.

use super::Model;

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
