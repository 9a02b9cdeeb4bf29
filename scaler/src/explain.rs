//! Explains the number of workers of a pool: the recent answers, with all values from which they were computed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use parking_lot::Mutex;
use policy::history::History;
use policy::reading::Reading;
use policy::{Decision, Mode, Scaling};
use queue::PoolName;
use serde::Serialize;

mod text;

/// The number of stored entries per pool.
const MAX_ENTRIES: usize = 20;

/// The maximum length of a stored `namespace/name`, by the limits of Kubernetes.
const MAX_OBJECT_NAME: usize = 253 + 1 + 63;

/// Stores the recent answers. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<BTreeMap<PoolName, VecDeque<Entry>>>>);

/// An answer, and the period in which it did not change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The ScaledObject, as `namespace/name`.
    pub object: String,
    /// When the answer was given first.
    pub since: Timestamp,
    /// When the answer was given last.
    pub until: Timestamp,
    /// How many times the answer was given.
    pub times: u64,
    /// The pool at the last time.
    #[serde(rename = "seen")]
    pub pool: PoolSnapshot,
    /// The rule that was applied.
    pub rule: Rule,
    /// The answer at the last time, and how it was computed.
    pub decision: Decision,
}

/// A reading of a pool, in the form that `/explain` returns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolSnapshot {
    /// The backlog, in jobs.
    pub backlog: u64,
    /// Jobs that wait in the broker, by class.
    pub waiting: BTreeMap<&'static str, u64>,
    /// Deliveries that the broker gave to workers. 0 where the broker does not count them.
    pub in_flight: u64,
    /// Jobs under a worker's lease.
    pub leased: u64,
    /// Jobs that wait for their retry, or to be published again.
    pub retry: u64,
    /// The waiting time of the oldest waiting job, in seconds, if the broker reports it.
    pub oldest_seconds: Option<f64>,
    /// Workers that take jobs.
    pub ready: u64,
    /// Workers whose model is still loading.
    pub loading: u64,
    /// Workers that finish the jobs they hold and take no new ones.
    pub draining: u64,
    /// The number of workers that can receive jobs at the same time.
    pub max_consumers: Option<u64>,
    /// The measured batch time model: `[base, item, limit]`. A batch takes `base + items × item` seconds, with at most
    /// `limit` items.
    pub batch: Option<[f64; 3]>,
    /// Whether `batch` was measured before this scaler started, and by no worker since.
    pub batch_is_recalled: bool,
    /// The measured time from the start of a worker until it takes jobs, in seconds.
    pub cold_start_seconds: Option<f64>,
    /// The length of the history, in seconds.
    pub history_seconds: f64,
}

/// The rule that was applied.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    /// The mode.
    pub mode: &'static str,
    /// A backlog above this number of jobs starts the first worker.
    pub activation: f64,
    /// The minimum number of workers.
    pub min_workers: u32,
    /// The maximum number of workers.
    pub max_workers: Option<u32>,
    /// The window of mode rate, or the objective of each class, in seconds, by name.
    pub seconds: BTreeMap<&'static str, f64>,
}

impl Journal {
    /// Stores an answer.
    pub(crate) fn record(
        &self,
        pool: &PoolName,
        object: String,
        scaling: &Scaling,
        history: &History,
        decision: Decision,
    ) {
        let Some(reading) = history.latest() else { return };
        let now = Timestamp::now();
        // A client may send any name. Names that Kubernetes allows are neither cut off nor escaped.
        let object: String = object.chars().flat_map(char::escape_debug).take(MAX_OBJECT_NAME).collect();
        let rule = Rule::new(scaling);
        let mut pools = self.0.lock();
        let entries = pools.entry(pool.clone()).or_default();
        let last = entries.iter_mut().rev().find(|entry| entry.object == object);
        let snapshot = PoolSnapshot::new(reading, history);
        match last {
            Some(last) if last.rule == rule && is_same_answer(&last.decision, &decision) => {
                last.until = now;
                last.times += 1;
                (last.pool, last.decision) = (snapshot, decision);
            }
            _ => {
                if entries.len() == MAX_ENTRIES {
                    entries.pop_front();
                }
                entries.push_back(Entry { object, since: now, until: now, times: 1, pool: snapshot, rule, decision });
            }
        }
    }

    /// The recent answers for a pool, the latest one last.
    pub fn entries(&self, pool: &PoolName) -> Vec<Entry> {
        let pools = self.0.lock();
        pools.get(pool).into_iter().flatten().cloned().collect()
    }

    /// The route `/explain/{pool}`: the recent answers for a pool, as JSON or, if the request accepts it, as
    /// `text/plain`.
    pub fn router(&self, pools: impl IntoIterator<Item = PoolName>) -> Router {
        let pools = Arc::new(pools.into_iter().collect());
        Router::new().route("/explain/{pool}", get(explain)).with_state(ExplainState { journal: self.clone(), pools })
    }
}

#[derive(Clone)]
struct ExplainState {
    journal: Journal,
    pools: Arc<std::collections::BTreeSet<PoolName>>,
}

/// The answer of `/explain/{pool}`.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The pool.
    pub pool: PoolName,
    /// The recent answers for the pool, the latest one last. Empty: no ScaledObject has requested its metric.
    pub decisions: Vec<Entry>,
}

async fn explain(State(state): State<ExplainState>, Path(pool): Path<String>, headers: HeaderMap) -> Response {
    match pool.parse::<PoolName>() {
        Ok(pool) if state.pools.contains(&pool) => {
            let decisions = state.journal.entries(&pool);
            let wants_text =
                headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"));
            if !wants_text {
                return Json(Explanation { pool, decisions }).into_response();
            }
            let text: Vec<String> = decisions.iter().map(Entry::to_string).collect();
            if text.is_empty() {
                format!("no answers yet: no ScaledObject has requested the metric of pool {pool}\n")
            } else {
                text.join("\n")
            }
            .into_response()
        }
        _ => {
            let shown: String = pool.chars().take(80).collect();
            (StatusCode::NOT_FOUND, format!("pool: {shown:?} is not a pool of this scaler\n")).into_response()
        }
    }
}

fn is_same_answer(one: &Decision, other: &Decision) -> bool {
    (one.value, one.target, one.active) == (other.value, other.target, other.active)
}

impl PoolSnapshot {
    fn new(reading: &Reading, history: &History) -> Self {
        let measured = history.measurements();
        let by_class = queue::Class::ALL.map(|class| (class.as_str(), reading.waiting_of(class)));
        Self {
            backlog: reading.backlog(),
            waiting: by_class.into(),
            in_flight: reading.in_flight,
            leased: reading.leased,
            retry: reading.retry,
            oldest_seconds: reading.oldest_wait.map(|oldest| oldest.as_secs_f64()),
            ready: reading.fleet.ready,
            loading: reading.fleet.loading,
            draining: reading.fleet.draining,
            max_consumers: reading.max_consumers,
            batch: measured.batch_time.map(|batch| [batch.base_seconds, batch.item_seconds, batch.limit_items]),
            batch_is_recalled: history.is_recalled(),
            cold_start_seconds: measured.cold_start.map(|cold_start| cold_start.as_secs_f64()),
            history_seconds: history.span().as_secs_f64(),
        }
    }
}

impl Rule {
    fn new(scaling: &Scaling) -> Self {
        let seconds = match &scaling.mode {
            Mode::Backlog(_) => BTreeMap::new(),
            Mode::Rate(rate) => BTreeMap::from([("stable_window", rate.window.as_secs_f64())]),
            Mode::Latency(latency) => {
                let classes = queue::Class::ALL.map(|class| class.as_str()).into_iter().zip(latency.objectives);
                let seconds = classes.filter_map(|(class, objective)| Some((class, objective?.as_secs_f64())));
                seconds.collect()
            }
        };
        Self {
            mode: scaling.mode.as_str(),
            activation: scaling.activation,
            min_workers: scaling.min,
            max_workers: scaling.max,
            seconds,
        }
    }
}
