//! Whether the node lives, whether it is ready, and why not: etcd's three ways to ask.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use onefold_kv::RangeRequest;
use serde_json::json;

use crate::errors;
use crate::gateway::Gateway;
use crate::metrics::{Check, Probe};

/// What a query asks for. Nothing that is asked for has characters that need an escape.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(query: RawQuery) -> Self {
        let query = query.0.unwrap_or_default();
        let pairs = query.split('&').map(|part| part.split_once('=').unwrap_or((part, "")));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|pair| pair.0 == name)
    }

    fn says(&self, name: &str, value: &str) -> bool {
        self.0.iter().any(|pair| pair.0 == name && pair.1 == value)
    }
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];
const READYZ: [Check; 4] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

/// The paths.
pub(crate) fn router(gateway: &Gateway) -> Router {
    let mut router = Router::new().route("/health", get(health).fallback(super::only_get));
    for (probe, checks) in [(Probe::Livez, &LIVEZ[..]), (Probe::Readyz, &READYZ[..])] {
        let path = format!("/{}", probe.name());
        let all = move |gateway: State<Gateway>, query: RawQuery| {
            probe_answer(gateway.0, probe, checks, Parameters::of(query))
        };
        router = router.route(&path, get(all).fallback(super::only_get));
        for check in checks {
            let path = format!("{path}/{}", check.name());
            let checks = std::slice::from_ref(check);
            let one = move |gateway: State<Gateway>, query: RawQuery| {
                probe_answer(gateway.0, probe, checks, Parameters::of(query))
            };
            router = router.route(&path, get(one).fallback(super::only_get));
        }
    }
    router.with_state(gateway.clone())
}

/// The oldest of the ways: no alarm, a leader, and a read that succeeds.
async fn health(State(gateway): State<Gateway>, query: RawQuery) -> Response {
    let query = Parameters::of(query);
    let serializable = query.says("serializable", "true");
    let outcome = gateway.health(serializable, &query).await;
    gateway.metrics.health_asked(outcome.is_ok());
    match outcome {
        Ok(()) => json!({ "health": "true", "reason": "" }).to_string().into_response(),
        Err(reason) => {
            let text = json!({ "health": "false", "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n")).into_response()
        }
    }
}

async fn probe_answer(
    gateway: Gateway,
    probe: Probe,
    checks: &[Check],
    query: Parameters,
) -> Response {
    let (mut is_good, mut text) = (true, String::new());
    for check in checks.iter().filter(|check| !query.says("exclude", check.name())) {
        let outcome = gateway.check(*check).await;
        gateway.metrics.checked(probe, *check, outcome.is_ok());
        is_good &= outcome.is_ok();
        text += &match outcome {
            Ok(()) => format!("[+]{} ok\n", check.name()),
            Err(reason) => format!("[-]{} failed: {reason}\n", check.name()),
        };
    }
    let head = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if !is_good {
        return (StatusCode::SERVICE_UNAVAILABLE, head, text).into_response();
    }
    let text = if query.has("verbose") { format!("{text}ok\n") } else { "ok\n".to_owned() };
    (head, text).into_response()
}

impl Gateway {
    async fn health(&self, serializable: bool, query: &Parameters) -> Result<(), String> {
        let mut alarms = self.cluster.alarms().into_iter();
        if let Some(alarm) = alarms.find(|alarm| !query.says("exclude", alarm.kind.name())) {
            return Err(format!("ALARM {}", alarm.kind.name()));
        }
        if !serializable && self.cluster.leader().is_none() {
            return Err("RAFT NO LEADER".to_owned());
        }
        self.try_read(serializable).await.map_err(|text| format!("RANGE ERROR:{text}"))
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption => {
                let is_corrupt = |alarm: &crate::Alarm| alarm.kind == crate::AlarmKind::Corrupt;
                match self.cluster.alarms().iter().any(is_corrupt) {
                    true => Err("alarm activated: CORRUPT".to_owned()),
                    false => Ok(()),
                }
            }
            Check::SerializableRead => self.try_read(true).await,
            Check::LinearizableRead => self.try_read(false).await,
            Check::NonLearner => {
                let own = self.cluster.member_id();
                let is_learner = |m: &crate::Member| m.id == own && m.is_learner;
                match self.cluster.members().iter().any(is_learner) {
                    true => Err("not supported for learner".to_owned()),
                    false => Ok(()),
                }
            }
        }
    }

    /// Reads one key, whichever it is.
    async fn try_read(&self, serializable: bool) -> Result<(), String> {
        let any = RangeRequest { limit: 1, serializable, ..RangeRequest::key(&[0][..]) };
        let read = self.own_store().range(any).await;
        read.map(drop).map_err(|error| errors::status(error).message().to_owned())
    }
}
