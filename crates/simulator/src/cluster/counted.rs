//! Enumerations of things that are counted while a seed runs.

/// An enumeration with a text for each variant, and a table that counts them.
macro_rules! counted {
    (
        $(#[$kind_doc:meta])* $kind:ident counted by $(#[$table_doc:meta])* $table:ident;
        $(#[doc = $doc:literal] $name:ident,)*
    ) => {
        $(#[$kind_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind {
            $(#[doc = $doc] $name,)*
        }

        impl $kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// For people.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => super::counted::label($doc),)* }
            }
        }

        $(#[$table_doc])*
        #[derive(Clone, Debug)]
        pub struct $table([u64; $kind::ALL.len()]);

        impl Default for $table {
            fn default() -> Self {
                Self([0; $kind::ALL.len()])
            }
        }

        impl $table {
            /// It happened once more.
            pub(crate) fn hit(&mut self, kind: $kind) {
                self.0[kind as usize] += 1;
            }

            /// Adds what another run counted.
            pub fn merge(&mut self, other: &Self) {
                for (count, more) in self.0.iter_mut().zip(other.0) {
                    *count += more;
                }
            }

            /// How often it happened.
            pub fn count(&self, kind: $kind) -> u64 {
                self.0[kind as usize]
            }

            /// How often any of them happened.
            pub fn total(&self) -> u64 {
                self.0.iter().sum()
            }

            /// What never happened.
            pub fn missed(&self) -> Vec<$kind> {
                $kind::ALL.iter().copied().filter(|&kind| self.count(kind) == 0).collect()
            }
        }

        impl std::fmt::Display for $table {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                for &kind in $kind::ALL {
                    writeln!(f, "{:>12}  {}", self.count(kind), kind.name())?;
                }
                Ok(())
            }
        }
    };
}

pub(super) use counted;

/// The first line of a variant's documentation, as a label: without the full stop.
pub(super) fn label(doc: &'static str) -> &'static str {
    doc.trim_ascii().trim_end_matches('.')
}
