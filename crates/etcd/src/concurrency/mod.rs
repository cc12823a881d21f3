//! Locks and elections: keys that wait for their turn.
//!
//! Both keep one key for each who waits, `<name>/<lease in hexadecimal>`, attached to the lease. The
//! oldest key has its turn, and each other one waits for the deletion of the one before it, so that
//! a lock that is given back wakes one. The layout is that of the Go client's `concurrency` package:
//! who locks here and who locks there wait for each other.
//!
//! ```text
//! lock, election     the services
//! place              a key in the row of a name
//! ```

mod election;
mod lock;
mod place;
