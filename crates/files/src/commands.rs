//! Talking to the namespace's group: commands exactly once, reads as fresh as they must be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onefold_replica::{Consistency, Group, ProposeError, ReadError, SessionTag};
use onefold_table::SpaceView;
use onefold_types::SessionId;
use tokio::sync::Semaphore;

use crate::api::FilesError;
use crate::namespace::{Command, Reply, decode_answer};

/// Most commands of one node under way at once; more wait their turn.
const COMMANDS_MAX: usize = 256;

/// How long a command or a read may take, leader elections included.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// The namespace as a node reaches it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Commands(Arc<Inner>);

struct Inner {
    group: Group,
    /// Sessions that have no command under way. A session runs one command at a time, so that it
    /// never has more than one answer that a retry may ask for.
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
}

#[derive(Clone, Copy)]
struct Session {
    id: SessionId,
    sequence: u64,
}

impl Commands {
    pub(crate) fn new(group: Group) -> Self {
        let (idle, permits) = (Mutex::default(), Semaphore::new(COMMANDS_MAX));
        Self(Arc::new(Inner { group, idle, permits }))
    }

    /// The group itself.
    pub(crate) fn group(&self) -> &Group {
        &self.0.group
    }

    /// Carries out a command, exactly once.
    pub(crate) async fn run(&self, command: &Command) -> Result<Reply, FilesError> {
        let _permit = self.0.permits.acquire().await.expect("the semaphore is never closed");
        let turn = self.turn();
        let tag = SessionTag {
            session: turn.session.id,
            sequence: turn.session.sequence,
            acknowledged_below: turn.session.sequence,
        };
        let answer = self.0.group.propose(command.encode(), Some(tag), DEADLINE).await;
        decode_answer(&answer.map_err(FilesError::from)?)
    }

    fn turn(&self) -> Turn<'_> {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Session { id: SessionId(rand::random()), sequence: 0 };
        let mut session = idle.pop().unwrap_or_else(fresh);
        session.sequence += 1;
        Turn { commands: self, session }
    }

    /// A state that shows everything acknowledged before the call.
    pub(crate) async fn view(&self) -> Result<SpaceView, FilesError> {
        Ok(self.0.group.read(Consistency::Linearizable, DEADLINE).await?)
    }
}

/// A session in use; idle again when dropped, even if its command was given up.
struct Turn<'a> {
    commands: &'a Commands,
    session: Session,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut idle = self.commands.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(self.session);
    }
}

impl From<ProposeError> for FilesError {
    fn from(error: ProposeError) -> Self {
        let reason = error.to_string();
        match error {
            ProposeError::Overloaded { .. } => Self::Overloaded { reason },
            ProposeError::TooLarge { bytes, bytes_max } => Self::TooLarge {
                what: "the file's description".to_owned(),
                bytes: bytes as u64,
                maximum: bytes_max as u64,
            },
            error if error.is_not_executed() => Self::Unavailable { reason },
            _ => Self::Unknown { reason },
        }
    }
}

impl From<ReadError> for FilesError {
    fn from(error: ReadError) -> Self {
        let reason = error.to_string();
        match error {
            ReadError::Overloaded { .. } => Self::Overloaded { reason },
            _ => Self::Unavailable { reason },
        }
    }
}
