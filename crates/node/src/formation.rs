//! How a fresh node becomes a member of a cluster, once.
//!
//! Founders are all started with the same list of addresses. Each asks the others who they are, and
//! the one with the smallest address, once it has heard from all and all agree on the list, draws
//! the cluster's identity and writes it down. The others keep asking until somebody answers with a
//! formed cluster that names their data folder's incarnation, and adopt that.
//!
//! A node that finds a formed cluster that does not know its incarnation asks to [`Join`] it, and
//! gets a number that no node ever had.
//!
//! What makes it safe: members are told apart by incarnation, never by address. The founders' are
//! fixed before anybody votes, one address alone may form, and it does so only after all have said
//! that they belong to nothing. A member that lost its folder comes back with another incarnation
//! and therefore as another node, because the votes that it forgot could elect two leaders in one
//! term (Raft paper, section 5.2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onefold_transport::{
    CallError, Class, Method, MethodId, Peers, RemoteCode, RemoteError, Router,
};
use onefold_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use crate::folder::{Folder, FolderError, Formed, Member};

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a cluster may take to let a node in: it has to agree on that.
const JOIN_TIMEOUT: Duration = Duration::from_secs(15);
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Pause between two lines that say what is waited for.
const NOTICE_INTERVAL: Duration = Duration::from_secs(5);

/// Most nodes that a cluster may be formed of; more can join later. Each votes in every group, and more votes make every
/// write slower and nothing safer.
pub const FOUNDERS_MAX: usize = 9;

/// Why a node can't become a member.
#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    /// The folder could not be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The addresses lead to different clusters.
    #[error(
        "--join leads to two clusters: {} belongs to {}, {} to {}; name nodes of one of them",
        one.0, one.1, other.0, other.1
    )]
    TwoClusters {
        /// One node and its cluster.
        one: (String, ClusterId),
        /// Another node and its cluster.
        other: (String, ClusterId),
    },
    /// The cluster does not take this node.
    #[error("{peer} does not let this node join its cluster: {reason}")]
    NotAdmitted {
        /// Who answered.
        peer: String,
        /// Why, and what to do.
        reason: String,
    },
    /// More addresses than a cluster can be formed of.
    #[error(
        "--join names {0} nodes; a cluster is formed of at most {FOUNDERS_MAX}, and further nodes \
         join it once it runs"
    )]
    TooMany(usize),
}

/// Asks a process who it is and which cluster it belongs to.
pub struct Probe;

impl Method for Probe {
    const ID: MethodId = MethodId(320);
    const NAME: &'static str = "node.probe";
    type Request = ();
    type Response = ProbeAnswer;
}

/// Asks a member to let a node into its cluster. Asking again gets the same answer.
pub struct Join;

impl Method for Join {
    const ID: MethodId = MethodId(327);
    const NAME: &'static str = "node.join";
    type Request = JoinRequest;
    type Response = Formed;
}

/// Who wants to join.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Its data folder.
    pub incarnation: u64,
    /// Where it is reached.
    pub address: String,
}

/// What a node says of itself before it is trusted with anything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// Which data folder it runs on.
    pub incarnation: u64,
    /// The address that others shall reach it by.
    pub address: String,
    /// The addresses that it was told to join, or only its own.
    pub founders: BTreeSet<String>,
    /// Its cluster, if it has one.
    pub formed: Option<Formed>,
}

/// What the node answers to probes; shared by the formation and the running node.
#[derive(Clone)]
pub struct Introduction(Arc<Mutex<ProbeAnswer>>);

impl Introduction {
    /// The introduction of a node on `folder`, reachable at `address`, told to join `join`.
    pub fn new(folder: &Folder, address: &str, join: &[String]) -> Self {
        let mut founders: BTreeSet<String> = join.iter().cloned().collect();
        if founders.is_empty() {
            founders.insert(address.to_owned());
        }
        Self(Arc::new(Mutex::new(ProbeAnswer {
            incarnation: folder.incarnation(),
            address: address.to_owned(),
            founders,
            formed: folder.formed().cloned(),
        })))
    }

    /// Answers probes on a server.
    pub fn register(&self, router: &mut Router) {
        let introduction = self.clone();
        router.call::<Probe, _, _>(move |_, (), _| {
            let answer = introduction.get();
            async move { Ok::<_, RemoteError>((answer, Bytes::new())) }
        });
    }

    /// What is answered now.
    pub fn get(&self) -> ProbeAnswer {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what is answered about the cluster.
    pub(crate) fn set_formed(&self, formed: Formed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).formed = Some(formed);
    }
}

/// Makes the folder a member of a cluster: the one that it belongs to already, one that it joins, or
/// a new one. Waits for as long as the others take.
///
/// # Errors
/// See [`FormationError`].
pub async fn form(
    folder: &mut Folder,
    introduction: &Introduction,
    peers: &Peers,
) -> Result<Formed, FormationError> {
    if let Some(formed) = folder.formed() {
        return Ok(formed.clone());
    }
    let own = introduction.get();
    let mut told = Instant::now();
    loop {
        let answers = probe_all(peers, &own).await;
        let waiting = match next(&own, &answers)? {
            Next::Adopt(formed) => return adopt(folder, introduction, formed),
            Next::Ask(members) => match ask(peers, &own, &members).await? {
                Ok(formed) => return adopt(folder, introduction, formed),
                Err(waiting) => waiting,
            },
            Next::Wait(waiting) => waiting,
        };
        if told.elapsed() >= NOTICE_INTERVAL {
            told = Instant::now();
            tracing::info!("not a member of a cluster yet: {waiting}");
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

/// Asks one member after the other to let this node in; what is waited for, if none can now.
async fn ask(
    peers: &Peers,
    own: &ProbeAnswer,
    members: &[String],
) -> Result<Result<Formed, String>, FormationError> {
    let request = JoinRequest { incarnation: own.incarnation, address: own.address.clone() };
    let mut problems = Vec::new();
    for peer in members {
        let call =
            peers.call_address::<Join>(peer, Class::Call, &request, Bytes::new(), JOIN_TIMEOUT);
        match call.await {
            Ok((formed, _)) if formed.member(own.incarnation).is_some() => return Ok(Ok(formed)),
            Ok(_) => problems.push(format!("{peer} answered with a cluster without this node")),
            Err(CallError::Remote(error)) if is_final(error.code) => {
                return Err(FormationError::NotAdmitted {
                    peer: peer.clone(),
                    reason: error.message,
                });
            }
            Err(error) => problems.push(format!("{peer}: {error}")),
        }
    }
    Ok(Err(format!("no member of the cluster can let it in: {}", problems.join("; "))))
}

/// Whether asking again can't help.
fn is_final(code: RemoteCode) -> bool {
    matches!(
        code,
        RemoteCode::Invalid | RemoteCode::Conflict | RemoteCode::Denied | RemoteCode::Exhausted
    )
}

fn adopt(
    folder: &mut Folder,
    introduction: &Introduction,
    formed: Formed,
) -> Result<Formed, FormationError> {
    folder.adopt(formed.clone())?;
    introduction.set_formed(formed.clone());
    Ok(formed)
}

type Answers = BTreeMap<String, Result<ProbeAnswer, CallError>>;

async fn probe_all(peers: &Peers, own: &ProbeAnswer) -> Answers {
    let others = own.founders.iter().filter(|address| **address != own.address);
    let probes = others.map(|address| async move {
        let answer =
            peers.call_address::<Probe>(address, Class::Call, &(), Bytes::new(), PROBE_TIMEOUT);
        (address.clone(), answer.await.map(|(answer, _)| answer))
    });
    futures::future::join_all(probes).await.into_iter().collect()
}

/// What a node without a cluster does next.
#[derive(Debug)]
enum Next {
    /// Belong to this cluster.
    Adopt(Formed),
    /// Ask these members to be let in.
    Ask(Vec<String>),
    /// Wait for what the text says.
    Wait(String),
}

fn next(own: &ProbeAnswer, answers: &Answers) -> Result<Next, FormationError> {
    let mut members: Vec<(String, ClusterId)> = Vec::new();
    for (peer, answer) in answers {
        let Ok(ProbeAnswer { formed: Some(formed), .. }) = answer else { continue };
        if formed.member(own.incarnation).is_some() {
            return Ok(Next::Adopt(formed.clone()));
        }
        let member = (peer.clone(), formed.cluster);
        if let Some(one) = members.first().filter(|(_, cluster)| *cluster != formed.cluster) {
            return Err(FormationError::TwoClusters { one: one.clone(), other: member });
        }
        members.push(member);
    }
    if !members.is_empty() {
        return Ok(Next::Ask(members.into_iter().map(|(address, _)| address).collect()));
    }
    if !own.founders.contains(&own.address) {
        let reason = |(address, answer): (&String, &Result<ProbeAnswer, CallError>)| match answer {
            Ok(_) => format!("{address} is not in a cluster yet"),
            Err(error) => error.to_string(),
        };
        let reasons: Vec<_> = answers.iter().map(reason).collect();
        let reasons = reasons.join("; ");
        let address = &own.address;
        return Ok(Next::Wait(format!(
            "no member of the cluster to join answers: {reasons} (to form a new cluster, start \
             every node with one list that has {address} in it too)"
        )));
    }
    let missing = missing(own, answers);
    if !missing.is_empty() {
        return Ok(Next::Wait(missing.join("; ")));
    }
    if own.founders.len() > FOUNDERS_MAX {
        return Err(FormationError::TooMany(own.founders.len()));
    }
    if is_initiator(own) {
        return Ok(Next::Adopt(found(own, answers)));
    }
    Ok(Next::Wait("the first founder has not formed the cluster yet".to_owned()))
}

/// Who is not ready to found the cluster, each with the reason.
fn missing(own: &ProbeAnswer, answers: &Answers) -> Vec<String> {
    let mut missing = Vec::new();
    let mut incarnations = BTreeSet::from([own.incarnation]);
    for (address, answer) in answers {
        match answer {
            Err(error) => missing.push(error.to_string()),
            Ok(answer) if !incarnations.insert(answer.incarnation) => missing.push(format!(
                "{address} runs on a copy of another founder's data folder; start it on an empty \
                 one"
            )),
            Ok(answer) if answer.address != *address => missing.push(format!(
                "{address} calls itself {}; use the same spelling in every --join",
                answer.address
            )),
            Ok(answer) if answer.founders != own.founders => missing.push(format!(
                "{address} was told to join {:?}, this node {:?}: give every node the same list",
                answer.founders, own.founders
            )),
            Ok(_) => {}
        }
    }
    missing
}

/// Founders in the order of their numbers: by host, then by port.
fn in_order(founders: &BTreeSet<String>) -> Vec<&String> {
    let mut ordered: Vec<&String> = founders.iter().collect();
    ordered.sort_by_key(|address| {
        let (host, port) = address.rsplit_once(':').unwrap_or((address.as_str(), ""));
        (host.to_owned(), port.parse::<u16>().unwrap_or(0))
    });
    ordered
}

fn is_initiator(own: &ProbeAnswer) -> bool {
    in_order(&own.founders).first().is_some_and(|first| **first == own.address)
}

/// Draws a new cluster of all founders, each of which has answered.
fn found(own: &ProbeAnswer, answers: &Answers) -> Formed {
    let members = in_order(&own.founders).into_iter().zip(1u64..).map(|(address, number)| {
        let incarnation = match answers.get(address) {
            Some(Ok(answer)) => answer.incarnation,
            _ => own.incarnation,
        };
        Member { id: NodeId(number), address: address.clone(), incarnation }
    });
    let formed = Formed::by(ClusterId(rand::random()), members.collect());
    let incarnations: BTreeSet<u64> = formed.members.iter().map(|m| m.incarnation).collect();
    assert_eq!(incarnations.len(), formed.members.len(), "two founders share a data folder");
    formed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(address: &str, incarnation: u64, founders: &[&str]) -> ProbeAnswer {
        ProbeAnswer {
            incarnation,
            address: address.to_owned(),
            founders: founders.iter().map(|&founder| founder.to_owned()).collect(),
            formed: None,
        }
    }

    const FOUNDERS: [&str; 3] = ["h:7000", "h:7010", "h:10000"];

    fn answers() -> Answers {
        FOUNDERS[1..]
            .iter()
            .zip(2..)
            .map(|(&address, incarnation)| {
                (address.to_owned(), Ok(answer(address, incarnation, &FOUNDERS)))
            })
            .collect()
    }

    #[test]
    fn numbers_follow_ports_as_numbers_and_only_the_first_founds() {
        let own = answer("h:7000", 1, &FOUNDERS);
        assert!(is_initiator(&own));
        assert!(!is_initiator(&answer("h:10000", 3, &FOUNDERS)));
        let formed = found(&own, &answers());
        let addresses: Vec<_> = formed.members.iter().map(|m| m.address.as_str()).collect();
        assert_eq!(addresses, FOUNDERS);
    }

    #[test]
    fn founders_that_were_told_another_list_are_not_ready() {
        let own = answer("h:7000", 1, &FOUNDERS);
        assert!(missing(&own, &answers()).is_empty());
        let mut answers = answers();
        answers.insert("h:7010".to_owned(), Ok(answer("h:7010", 2, &FOUNDERS[..2])));
        assert_eq!(missing(&own, &answers).len(), 1);
    }

    #[test]
    fn a_founder_on_a_copied_folder_is_not_ready() {
        let own = answer("h:7000", 1, &FOUNDERS);
        let mut answers = answers();
        answers.insert("h:7010".to_owned(), Ok(answer("h:7010", 1, &FOUNDERS)));
        assert_eq!(missing(&own, &answers).len(), 1);
    }

    fn formed_peer(address: &str, formed: Formed) -> (String, Result<ProbeAnswer, CallError>) {
        let known = ProbeAnswer { formed: Some(formed), ..answer(address, 1, &FOUNDERS) };
        (address.to_owned(), Ok(known))
    }

    #[test]
    fn a_founder_adopts_its_own_folder_and_asks_to_join_with_any_other() {
        let formed = found(&answer("h:7000", 1, &FOUNDERS), &answers());
        let answers = Answers::from([formed_peer("h:7000", formed)]);
        let own = answer("h:7010", 2, &FOUNDERS);
        assert!(matches!(next(&own, &answers), Ok(Next::Adopt(_))));
        let wiped = answer("h:7010", 99, &FOUNDERS);
        let Ok(Next::Ask(members)) = next(&wiped, &answers) else { panic!("it asks to join") };
        assert_eq!(members, ["h:7000"]);
    }

    #[test]
    fn a_node_outside_its_list_waits_for_a_cluster_and_never_founds_one() {
        let newcomer = answer("h:8000", 9, &FOUNDERS[1..]);
        let waiting = next(&newcomer, &answers());
        assert!(matches!(waiting, Ok(Next::Wait(text)) if text.contains("h:7010 is not in")));
        let formed = found(&answer("h:7000", 1, &FOUNDERS), &answers());
        let formed = Answers::from([formed_peer("h:7010", formed)]);
        assert!(matches!(next(&newcomer, &formed), Ok(Next::Ask(_))));
    }

    #[test]
    fn nodes_of_two_clusters_in_one_list_are_named() {
        let formed = || found(&answer("h:7000", 1, &FOUNDERS), &answers());
        let answers =
            Answers::from([formed_peer("h:7000", formed()), formed_peer("h:7010", formed())]);
        let newcomer = answer("h:8000", 9, &FOUNDERS);
        assert!(matches!(next(&newcomer, &answers), Err(FormationError::TwoClusters { .. })));
    }
}
