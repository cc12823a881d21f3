//! How fresh nodes become a cluster, once.
//!
//! Every node is started with the same list of addresses. Each asks the others who they are, and
//! the one with the smallest address, once it has heard from all and all agree on the list, draws
//! the cluster's identity and writes it down. The others keep asking until somebody answers with a
//! formed cluster that names their data folder's incarnation, and adopt that.
//!
//! What makes it safe: membership is fixed by incarnations before anybody votes, one address alone
//! may form, and it does so only after all have said that they belong to nothing. A member that
//! lost its folder comes back with another incarnation and is refused, because the votes that it
//! forgot could elect two leaders in one term (Raft paper, section 5.2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use onefold_transport::{CallError, Class, Method, MethodId, Peers, RemoteError, Router};
use onefold_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use crate::folder::{Folder, FolderError, Formed, Member};

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Rounds of probing between two lines that say what is waited for.
const ROUNDS_PER_NOTICE: u32 = 50;

/// Most nodes that a cluster may be formed of. Each votes in every group, and more votes make every
/// write slower and nothing safer.
pub const FOUNDERS_MAX: usize = 9;

/// Why a node can't become a member.
#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    /// The folder could not be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The cluster knows this address with another data folder.
    #[error(
        "cluster {cluster} knows {address} as node {node}, but with another data folder: this one \
         is empty or foreign. A member that lost its data must not vote again under its old \
         number. Start it on its own data folder, or form a new cluster on new folders"
    )]
    Replaced {
        /// The cluster that answered.
        cluster: ClusterId,
        /// The address of this node.
        address: String,
        /// The number that it had.
        node: NodeId,
    },
    /// The nodes to join have formed a cluster without this one.
    #[error(
        "{peer} belongs to cluster {cluster}, which was formed without {address}; start this node \
         with the addresses of the nodes that it shall form a cluster with"
    )]
    Stranger {
        /// Who answered.
        peer: String,
        /// Its cluster.
        cluster: ClusterId,
        /// The address of this node.
        address: String,
    },
    /// The list leaves this node out.
    #[error(
        "--join does not name {address}, this node's own address; give every node the same list"
    )]
    NotFounder {
        /// The address of this node.
        address: String,
    },
    /// More addresses than a cluster can be formed of.
    #[error("--join names {0} nodes; a cluster is formed of at most {FOUNDERS_MAX}")]
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

/// What a node says of itself before it is trusted with anything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// Which data folder it runs on.
    pub incarnation: u64,
    /// The address that others shall reach it by.
    pub address: String,
    /// The founders that it was told of; empty when it was started without a list.
    pub founders: BTreeSet<String>,
    /// Its cluster, if it has one.
    pub formed: Option<Formed>,
}

/// What the node answers to probes; shared by the formation and the running node.
#[derive(Clone)]
pub struct Introduction(Arc<Mutex<ProbeAnswer>>);

impl Introduction {
    /// The introduction of a node on `folder`, reachable at `address`, told to join `join`.
    ///
    /// # Errors
    /// When `join` names too many nodes, or not this one.
    pub fn new(folder: &Folder, address: &str, join: &[String]) -> Result<Self, FormationError> {
        let mut founders: BTreeSet<String> = join.iter().cloned().collect();
        if founders.is_empty() {
            founders.insert(address.to_owned());
        }
        if !founders.contains(address) && folder.formed().is_none() {
            return Err(FormationError::NotFounder { address: address.to_owned() });
        }
        if founders.len() > FOUNDERS_MAX {
            return Err(FormationError::TooMany(founders.len()));
        }
        Ok(Self(Arc::new(Mutex::new(ProbeAnswer {
            incarnation: folder.incarnation(),
            address: address.to_owned(),
            founders,
            formed: folder.formed().cloned(),
        }))))
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

    fn set_formed(&self, formed: Formed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).formed = Some(formed);
    }
}

/// Makes the folder a member of a cluster: the one that it belongs to already, or a new one. Waits
/// for as long as the other founders take to come up.
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
    let mut round = 0u32;
    loop {
        let answers = probe_all(peers, &own).await;
        if let Some(formed) = adoptable(&own, &answers)? {
            return adopt(folder, introduction, formed);
        }
        let missing = missing(&own, &answers);
        if missing.is_empty() && is_initiator(&own) {
            return adopt(folder, introduction, found(&own, &answers));
        }
        if round.is_multiple_of(ROUNDS_PER_NOTICE) && round > 0 {
            let waiting = if missing.is_empty() {
                "waiting for the first founder to form the cluster".to_owned()
            } else {
                missing.join("; ")
            };
            tracing::info!("not formed yet: {waiting}");
        }
        round = round.wrapping_add(1);
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
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

/// The formed cluster that this node is a member of, if anybody knows one.
fn adoptable(own: &ProbeAnswer, answers: &Answers) -> Result<Option<Formed>, FormationError> {
    for (peer, answer) in answers {
        let Ok(ProbeAnswer { formed: Some(formed), .. }) = answer else { continue };
        if formed.member(own.incarnation).is_some() {
            return Ok(Some(formed.clone()));
        }
        let cluster = formed.cluster;
        let address = own.address.clone();
        return Err(match formed.members.iter().find(|member| member.address == address) {
            Some(member) => FormationError::Replaced { cluster, address, node: member.id },
            None => FormationError::Stranger { peer: peer.clone(), cluster, address },
        });
    }
    Ok(None)
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
    let formed = Formed { cluster: ClusterId(rand::random()), members: members.collect() };
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

    #[test]
    fn a_member_with_a_wiped_folder_is_refused_and_one_with_its_own_is_adopted() {
        let own = answer("h:7010", 2, &FOUNDERS);
        let formed = found(&answer("h:7000", 1, &FOUNDERS), &answers());
        let known = ProbeAnswer { formed: Some(formed), ..answer("h:7000", 1, &FOUNDERS) };
        let answers = Answers::from([("h:7000".to_owned(), Ok(known))]);
        assert!(matches!(adoptable(&own, &answers), Ok(Some(_))));
        let wiped = answer("h:7010", 99, &FOUNDERS);
        assert!(matches!(
            adoptable(&wiped, &answers),
            Err(FormationError::Replaced { node: NodeId(2), .. })
        ));
    }
}
