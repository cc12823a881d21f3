//! A state of the whole group, in numbers.

use super::scope::Scope;

/// Numbers of servers, of the history and of the messages that are on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) servers: [u32; Scope::SERVERS_MAX],
    pub(super) history: u32,
    pub(super) counters: Counters,
    /// In order, each once.
    pub(super) messages: Vec<u32>,
}

/// How often something happened that may happen so often only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Counters {
    pub(super) crashes: u8,
    pub(super) changes: u8,
    pub(super) reads: u8,
    pub(super) transfers: u8,
}

impl State {
    /// Appends this state to the bytes of many.
    pub(super) fn pack(&self, bytes: &mut Vec<u8>) {
        let head = self.servers.iter().copied().chain([self.history]);
        head.for_each(|number| pack(number, bytes));
        let Counters { crashes, changes, reads, transfers } = self.counters;
        bytes.extend([crashes, changes, reads, transfers]);
        pack(self.messages.len() as u32, bytes);
        let mut before = 0;
        for &message in &self.messages {
            pack(message - before, bytes);
            before = message;
        }
    }

    /// Takes the first state off the bytes of many.
    pub(super) fn unpack(bytes: &mut &[u8]) -> Self {
        let servers = std::array::from_fn(|_| unpack(bytes));
        let history = unpack(bytes);
        let counters =
            Counters { crashes: bytes[0], changes: bytes[1], reads: bytes[2], transfers: bytes[3] };
        *bytes = &bytes[4..];
        let count = unpack(bytes);
        let mut before = 0;
        let next = |_| {
            before += unpack(bytes);
            before
        };
        let messages = (0..count).map(next).collect();
        Self { servers, history, counters, messages }
    }
}

/// Seven bits a byte, the last byte below 128.
fn pack(mut number: u32, bytes: &mut Vec<u8>) {
    while number >= 128 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn unpack(bytes: &mut &[u8]) -> u32 {
    let mut number = 0;
    for (place, &byte) in bytes.iter().enumerate() {
        number |= u32::from(byte & 127) << (7 * place);
        if byte < 128 {
            *bytes = &bytes[place + 1..];
            break;
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back_as_they_were_packed() {
        let state = |messages: &[u32]| State {
            servers: [0, 127, 128],
            history: 70_000,
            counters: Counters { crashes: 1, changes: 2, reads: 3, transfers: 4 },
            messages: messages.to_vec(),
        };
        let states = [state(&[]), state(&[0]), state(&[3, 4, 300, 1 << 25])];
        let mut bytes = Vec::new();
        states.iter().for_each(|state| state.pack(&mut bytes));
        let mut rest = bytes.as_slice();
        for state in states {
            assert_eq!(State::unpack(&mut rest), state);
        }
        assert!(rest.is_empty());
    }
}
