//! What happened in a run: always as a hash, on demand as text.

use std::{
    fmt,
    hash::{Hash, Hasher},
    io::{self, Write},
};

/// FNV-1a over words instead of bytes: the hash must be the same in every process, which the
/// standard library's is not, and cheap, because everything that happens goes through it.
#[derive(Clone)]
pub(crate) struct Fnv(u64);

impl Fnv {
    fn add(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3);
        // Multiplication carries upwards only.
        self.0 = mixed ^ (mixed >> 29);
    }
}

impl Default for Fnv {
    fn default() -> Self {
        Self(FNV_OFFSET)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.add(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.add(u64::from_le_bytes(word) ^ ((rest.len() as u64) << 56));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.add(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.add(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// A hash of one thing, the same in every process of this build.
pub(crate) fn hash_of(thing: &impl Hash) -> u64 {
    let mut fnv = Fnv::default();
    thing.hash(&mut fnv);
    fnv.finish()
}

/// The running hash of everything that happened, and a printer for who wants to read it.
pub struct Trace {
    fnv: Fnv,
    is_printed: bool,
}

impl Trace {
    /// A trace that is only hashed.
    pub fn hashed() -> Self {
        Self { fnv: Fnv::default(), is_printed: false }
    }

    /// A trace that also goes to standard output.
    pub fn printed() -> Self {
        Self { is_printed: true, ..Self::hashed() }
    }

    /// Adds something to the hash.
    pub(crate) fn add(&mut self, thing: &impl Hash) {
        thing.hash(&mut self.fnv);
    }

    /// Shows a line, if anyone reads it.
    pub(crate) fn show(&self, line: impl FnOnce() -> String) {
        if self.is_printed {
            // Whoever reads it may stop reading; the run goes on.
            let _ = writeln!(io::stdout(), "{}", line());
        }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.fnv.finish()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:016x})", self.hash())
    }
}
