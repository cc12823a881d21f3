//! A relay in front of a node, which breaks connections or holds what they carry.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How often a held connection looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What happens to bytes on their way to the node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// All of them pass.
    Pass,
    /// The connection breaks over which more than so many come, and counting starts again.
    CutEvery(usize),
    /// So many pass, and further ones wait.
    HoldAfter(usize),
}

struct State {
    rule: Rule,
    /// Bytes that passed under the rule.
    passed: usize,
    target: String,
    cuts: usize,
}

enum Verdict {
    Pass,
    Cut,
    Hold,
}

/// Listens where others believe the node to be.
pub(crate) struct Relay {
    state: Arc<Mutex<State>>,
    listening: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Relay {
    /// Listens at an address.
    pub(crate) async fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let (rule, target) = (Rule::Pass, String::new());
        let state = Arc::new(Mutex::new(State { rule, passed: 0, target, cuts: 0 }));
        let shared = state.clone();
        let listening = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(connect(from, shared.clone()));
            }
        });
        Self { state, listening }
    }

    /// Where the node is.
    pub(crate) fn set_target(&self, target: String) {
        self.state.lock().expect("nobody panics with it").target = target;
    }

    pub(crate) fn set_rule(&self, rule: Rule) {
        let mut state = self.state.lock().expect("nobody panics with it");
        (state.rule, state.passed) = (rule, 0);
    }

    /// How many connections it has broken.
    pub(crate) fn cuts(&self) -> usize {
        self.state.lock().expect("nobody panics with it").cuts
    }
}

async fn connect(from: TcpStream, state: Arc<Mutex<State>>) {
    let target = state.lock().expect("nobody panics with it").target.clone();
    let Ok(to) = TcpStream::connect(target).await else { return };
    let (mut from_read, mut from_write) = from.into_split();
    let (mut to_read, mut to_write) = to.into_split();
    let there = async {
        let mut buffer = vec![0; 4096];
        while let Ok(bytes @ 1..) = from_read.read(&mut buffer).await {
            loop {
                match judge(&state, bytes) {
                    Verdict::Pass => break,
                    Verdict::Cut => return,
                    Verdict::Hold => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
            if to_write.write_all(&buffer[..bytes]).await.is_err() {
                return;
            }
        }
    };
    // The end of either direction is the end of both.
    tokio::select! {
        () = there => {}
        _ = tokio::io::copy(&mut to_read, &mut from_write) => {}
    }
}

fn judge(state: &Mutex<State>, bytes: usize) -> Verdict {
    let mut state = state.lock().expect("nobody panics with it");
    let (limit, verdict) = match state.rule {
        Rule::Pass => (usize::MAX, Verdict::Pass),
        Rule::CutEvery(limit) => (limit, Verdict::Cut),
        Rule::HoldAfter(limit) => (limit, Verdict::Hold),
    };
    if state.passed + bytes <= limit {
        state.passed += bytes;
        return Verdict::Pass;
    }
    if matches!(verdict, Verdict::Cut) {
        state.passed = 0;
        state.cuts += 1;
    }
    verdict
}
