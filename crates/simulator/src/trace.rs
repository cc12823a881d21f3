//! What happened in a run: always as a hash, on demand as text.

use std::{
    fmt,
    hash::{Hash, Hasher},
    io::{self, Write},
};

/// FNV-1a: the hash must be the same in every process, which the standard library's is not.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// A hash of one thing, the same in every process of this build.
pub(crate) fn hash_of(thing: &impl Hash) -> u64 {
    let mut fnv = Fnv(FNV_OFFSET);
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
        Self { fnv: Fnv(FNV_OFFSET), is_printed: false }
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
