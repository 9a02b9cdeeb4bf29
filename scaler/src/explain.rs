//! Why a pool was given the workers it was given: what was answered lately, with everything that went into it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use policy::history::History;
use policy::reading::Reading;
use policy::{Decision, Mode, Scaling};
use queue::PoolName;
use serde::Serialize;

mod text;

/// How many answers of a pool are remembered.
const REMEMBERED: usize = 20;

/// The longest name of an object and its namespace.
const LONGEST_NAME: usize = 253 + 1 + 63;

/// Where the answers are written down. A clone is the same journal.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<BTreeMap<PoolName, VecDeque<Entry>>>>);

/// An answer, and for how long it was given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Who asked: `namespace/name` of the ScaledObject.
    pub object: String,
    /// When it was given first.
    pub since: Timestamp,
    /// When it was given last.
    pub until: Timestamp,
    /// How many times.
    pub times: u64,
    /// What the pool looked like, the last time.
    pub seen: Seen,
    /// The rule that was applied.
    pub rule: Rule,
    /// The answer, the last time, and how it came about.
    pub decision: Decision,
}

/// A reading, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// The work that was there.
    pub backlog: u64,
    /// What of it nobody held, by class.
    pub waiting: BTreeMap<&'static str, u64>,
    /// Handed out by the broker, as far as it can tell.
    pub in_flight: u64,
    /// Under a worker's lease.
    pub leased: u64,
    /// Awaiting a retry, or to be published again.
    pub retry: u64,
    /// For how long the oldest has waited, in seconds, where the broker can tell.
    pub oldest_seconds: Option<f64>,
    /// Workers that take jobs.
    pub ready: u64,
    /// Workers whose model is not ready yet.
    pub loading: u64,
    /// Workers that finish what they hold.
    pub draining: u64,
    /// More workers than this would find nothing to take.
    pub max_consumers: Option<u64>,
    /// A batch takes so many seconds, as measured: `base`, and `item` for each of up to `limit` items.
    pub batch: Option<[f64; 3]>,
    /// That was measured by workers that were gone when this scaler started, and by none since.
    pub batch_is_recalled: bool,
    /// From the start of a worker until it takes jobs, in seconds, as measured.
    pub cold_start_seconds: Option<f64>,
    /// For so long the pool has been seen.
    pub history_seconds: f64,
}

/// The rule that was applied.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    /// Its mode.
    pub mode: &'static str,
    /// A backlog above this starts the first worker.
    pub activation: f64,
    /// The fewest workers.
    pub min_workers: u32,
    /// The most.
    pub max_workers: Option<u32>,
    /// The windows and the objective, in seconds, by name.
    pub seconds: BTreeMap<&'static str, f64>,
}

impl Journal {
    /// Writes down what was answered.
    pub(crate) fn write(
        &self,
        pool: &PoolName,
        object: String,
        scaling: &Scaling,
        history: &History,
        decision: Decision,
    ) {
        let Some(reading) = history.latest() else { return };
        let now = Timestamp::now();
        // Whoever calls may be called anything; what Kubernetes allows is no longer, and plain.
        let object: String = object.chars().flat_map(char::escape_debug).take(LONGEST_NAME).collect();
        let rule = Rule::new(scaling);
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = pools.entry(pool.clone()).or_default();
        let last = entries.iter_mut().rev().find(|entry| entry.object == object);
        let seen = Seen::new(reading, history);
        match last {
            Some(last) if last.rule == rule && says_the_same(&last.decision, &decision) => {
                last.until = now;
                last.times += 1;
                (last.seen, last.decision) = (seen, decision);
            }
            _ => {
                if entries.len() == REMEMBERED {
                    entries.pop_front();
                }
                entries.push_back(Entry { object, since: now, until: now, times: 1, seen, rule, decision });
            }
        }
    }

    /// What was answered of a pool, the latest last.
    pub fn entries(&self, pool: &PoolName) -> Vec<Entry> {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.get(pool).into_iter().flatten().cloned().collect()
    }

    /// `/explain/{pool}`: what was answered of a pool, as JSON, or as text for who accepts `text/plain`.
    pub fn router(&self, pools: impl IntoIterator<Item = PoolName>) -> Router {
        let known = Arc::new(pools.into_iter().collect());
        Router::new().route("/explain/{pool}", get(explain)).with_state(Explained { journal: self.clone(), known })
    }
}

#[derive(Clone)]
struct Explained {
    journal: Journal,
    known: Arc<std::collections::BTreeSet<PoolName>>,
}

/// What `/explain/{pool}` answers.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The pool.
    pub pool: PoolName,
    /// What was answered of it, the latest last. Empty: nobody has asked.
    pub decisions: Vec<Entry>,
}

async fn explain(State(explained): State<Explained>, Path(pool): Path<String>, headers: HeaderMap) -> Response {
    match pool.parse::<PoolName>() {
        Ok(pool) if explained.known.contains(&pool) => {
            let decisions = explained.journal.entries(&pool);
            let wants_text =
                headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain"));
            if !wants_text {
                return Json(Explanation { pool, decisions }).into_response();
            }
            let text: Vec<String> = decisions.iter().map(Entry::to_string).collect();
            if text.is_empty() { format!("nobody has asked for the pool {pool} yet\n") } else { text.join("\n") }
                .into_response()
        }
        _ => {
            let shown: String = pool.chars().take(80).collect();
            (StatusCode::NOT_FOUND, format!("pool: {shown:?} is not a pool of this scaler\n")).into_response()
        }
    }
}

fn says_the_same(one: &Decision, other: &Decision) -> bool {
    (one.value, one.target, one.active) == (other.value, other.target, other.active)
}

impl Seen {
    fn new(reading: &Reading, history: &History) -> Self {
        let measured = history.measured();
        let by_class = queue::Class::ALL.map(|class| (class.as_str(), reading.waiting_of(class)));
        Self {
            backlog: reading.backlog(),
            waiting: by_class.into(),
            in_flight: reading.in_flight,
            leased: reading.leased,
            retry: reading.retry,
            oldest_seconds: reading.oldest.map(|oldest| oldest.as_secs_f64()),
            ready: reading.fleet.ready,
            loading: reading.fleet.loading,
            draining: reading.fleet.draining,
            max_consumers: reading.max_consumers,
            batch: measured.batch.map(|batch| [batch.base_seconds, batch.item_seconds, batch.limit_items]),
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
                let named = [
                    ("objective", latency.objective),
                    ("panic_window", latency.panic_window),
                    ("stable_window", latency.stable_window),
                    ("scale_down_delay", latency.scale_down_delay),
                    ("look_back", latency.look_back),
                    ("long_look_back", latency.long_look_back),
                ];
                named.map(|(name, period)| (name, period.as_secs_f64())).into()
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
