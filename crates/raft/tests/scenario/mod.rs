//! A page of prose and steps, and the small world that the steps act on.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`page`] | takes a page apart, runs its steps, puts it together again |
//! | [`step`] | the language of the steps |
//! | [`world`] | cores, disks, state machines and the messages between them |
//! | [`words`] | how messages, entries and states read |

mod page;
mod step;
mod words;
mod world;

pub(crate) use page::{difference, run_page};
