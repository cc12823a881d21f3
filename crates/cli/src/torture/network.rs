//! The network between the nodes: a relay for each ordered pair of them, in this process.
//!
//! ```text
//!   node 1 ──dials──► relay 1→2 ──dials──► node 2        what node 1 asks, what node 2 answers
//!   node 2 ──dials──► relay 2→1 ──dials──► node 1        what node 2 asks, what node 1 answers
//! ```
//!
//! What a direction holds up is not lost: it arrives late, as TCP makes it after a network that lost
//! packets. A connection that breaks meanwhile takes it along.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::local::Route;

/// Most bytes that are passed on in one piece.
const PIECE_BYTES_MAX: usize = 16 << 10;
/// Most pieces of one direction of a connection that are on their way; beyond them the sender waits.
const PIECES_MAX: usize = 64;

/// How one node's bytes reach another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Whether they are held up.
    pub is_closed: bool,
    /// How long they are on their way.
    pub delay: Duration,
}

/// The direction from one node to another.
type Pair = (u64, u64);

/// All relays. They end when it is dropped.
pub struct Network {
    flows: BTreeMap<Pair, watch::Sender<Flow>>,
    /// Raised whenever all connections break.
    cuts: watch::Sender<u64>,
    routes: BTreeMap<u64, Vec<Route>>,
    // Held for its tasks, which end with it.
    _relays: JoinSet<()>,
}

impl Network {
    /// Starts the relays between nodes that listen at these addresses.
    pub async fn start(addresses: &BTreeMap<u64, String>) -> anyhow::Result<Self> {
        let nodes = || addresses.keys().copied();
        let pairs: Vec<Pair> = nodes()
            .flat_map(|from| nodes().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        let flows: BTreeMap<Pair, watch::Sender<Flow>> =
            pairs.iter().map(|pair| (*pair, watch::Sender::default())).collect();
        let cuts = watch::Sender::new(0);
        let mut routes: BTreeMap<u64, Vec<Route>> = BTreeMap::new();
        let mut relays = JoinSet::new();
        for (from, to) in pairs {
            let listener =
                TcpListener::bind("127.0.0.1:0").await.context("cannot start a relay")?;
            let target: SocketAddr = addresses[&to].parse().context("a node's address")?;
            let dialled = listener.local_addr()?.to_string();
            routes.entry(from).or_default().push(Route { known: addresses[&to].clone(), dialled });
            let there = flows[&(from, to)].subscribe();
            let back = flows[&(to, from)].subscribe();
            relays.spawn(relay(listener, target, there, back, cuts.subscribe()));
        }
        Ok(Self { flows, cuts, routes, _relays: relays })
    }

    /// Where each node dials instead of the others' addresses.
    pub fn routes(&self) -> BTreeMap<u64, Vec<Route>> {
        self.routes.clone()
    }

    /// Changes one direction.
    pub fn set(&self, from: u64, to: u64, flow: Flow) {
        if let Some(current) = self.flows.get(&(from, to)) {
            current.send_replace(flow);
        }
    }

    /// Lets everything through at once again.
    pub fn heal(&self) {
        for flow in self.flows.values() {
            flow.send_replace(Flow::default());
        }
    }

    /// Breaks all connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn relay(
    listener: TcpListener,
    target: SocketAddr,
    there: watch::Receiver<Flow>,
    back: watch::Receiver<Flow>,
    cuts: watch::Receiver<u64>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((dialler, _)) = accepted else { continue };
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                let connection = connect(dialler, target, there.clone(), back.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until both directions have ended. One that cannot be made is closed, which
/// the dialler notices.
async fn connect(
    dialler: TcpStream,
    target: SocketAddr,
    there: watch::Receiver<Flow>,
    back: watch::Receiver<Flow>,
) {
    let Ok(listener) = TcpStream::connect(target).await else { return };
    // They only spare milliseconds.
    let _ = (dialler.set_nodelay(true), listener.set_nodelay(true));
    let (from_dialler, to_dialler) = dialler.into_split();
    let (from_listener, to_listener) = listener.into_split();
    tokio::join!(
        direction(from_dialler, to_listener, there),
        direction(from_listener, to_dialler, back)
    );
}

/// Carries one direction of a connection until it ends or breaks.
async fn direction(from: OwnedReadHalf, to: OwnedWriteHalf, flow: watch::Receiver<Flow>) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::join!(take(from, sender, flow.clone()), give(to, receiver, flow));
}

/// A piece with the moment before which it does not arrive.
type Piece = (Instant, BytesMut);

async fn take(mut from: OwnedReadHalf, pieces: mpsc::Sender<Piece>, flow: watch::Receiver<Flow>) {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES_MAX);
        match from.read_buf(&mut piece).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let due = Instant::now() + flow.borrow().delay;
        if pieces.send((due, piece)).await.is_err() {
            return;
        }
    }
}

async fn give(
    mut to: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<Piece>,
    mut flow: watch::Receiver<Flow>,
) {
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        if flow.wait_for(|flow| !flow.is_closed).await.is_err() {
            return;
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    // The end of a connection travels like everything else.
    if flow.wait_for(|flow| !flow.is_closed).await.is_ok() {
        // Whoever is gone needs no end.
        let _ = to.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A network of two nodes; the second one echoes.
    async fn network() -> (Network, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let echo = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let addresses = BTreeMap::from([(1, "127.0.0.1:1".to_owned()), (2, echo)]);
        let network = Network::start(&addresses).await.unwrap();
        let dialled = network.routes()[&1][0].dialled.clone();
        (network, dialled)
    }

    async fn echo(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn bytes_pass_are_held_up_in_either_direction_and_arrive_when_it_heals() {
        let (network, dialled) = network().await;
        let mut stream = TcpStream::connect(&dialled).await.unwrap();
        assert_eq!(echo(&mut stream, "one").await.unwrap(), "one");
        for (from, to) in [(1, 2), (2, 1)] {
            network.set(from, to, Flow { is_closed: true, ..Flow::default() });
            stream.write_all(b"two").await.unwrap();
            let mut answer = [0; 3];
            let silence = Duration::from_millis(100);
            let read = tokio::time::timeout(silence, stream.read_exact(&mut answer)).await;
            assert!(read.is_err(), "something passed a closed direction");
            network.heal();
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"two");
        }
    }

    #[tokio::test]
    async fn a_cut_breaks_connections_and_lets_new_ones_through() {
        let (network, dialled) = network().await;
        let mut stream = TcpStream::connect(&dialled).await.unwrap();
        assert_eq!(echo(&mut stream, "one").await.unwrap(), "one");
        network.cut();
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        let mut stream = TcpStream::connect(&dialled).await.unwrap();
        assert_eq!(echo(&mut stream, "two").await.unwrap(), "two");
    }
}
