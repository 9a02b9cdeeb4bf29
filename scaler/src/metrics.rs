//! The names of this crate's metrics, each written once.

use metrics::{Gauge, Label, counter, gauge};
use policy::reading::Reading;
use policy::{Decision, Reckoning};
use queue::PoolName;

use crate::failure::Failure;

/// Gauge, by pool: jobs that wait, are in flight or await a retry, as last read.
pub const BACKLOG: &str = "millrace_scaler_backlog";
/// Gauge, by pool: jobs under a worker's lease, as last read.
pub const LEASED: &str = "millrace_scaler_leased";
/// Gauge, by pool: for how many seconds the oldest of what waits has waited, where the broker can tell.
pub const OLDEST_SECONDS: &str = "millrace_scaler_oldest_seconds";
/// Gauge, by pool: workers alive, those that load included, as last read.
pub const WORKERS: &str = "millrace_scaler_workers";
/// Gauge, by pool: workers whose model is not ready yet.
pub const LOADING: &str = "millrace_scaler_loading_workers";
/// Histogram: how long it took to read all pools, in seconds.
pub const SAMPLE_SECONDS: &str = "millrace_scaler_sample_seconds";
/// Counter, by pool and source (`ledger`, `gauge` or `roster`): readings that failed.
pub const SAMPLE_FAILURES: &str = "millrace_scaler_sample_failures_total";
/// Counter, by call and code (gRPC's, as in `Unavailable`): calls answered.
pub const CALLS: &str = "millrace_scaler_calls_total";
/// Gauge, by pool and mode: the workers asked for (metric by target), as last answered.
pub const WANTED: &str = "millrace_scaler_wanted_workers";
/// Gauge, by pool: jobs per second that arrive, as last reckoned.
pub const ARRIVALS: &str = "millrace_scaler_arrivals";
/// Gauge, by pool: jobs per second foreseen for when a worker asked for now is ready.
pub const FORECAST_ARRIVALS: &str = "millrace_scaler_forecast_arrivals";
/// Gauge, by pool: by how many jobs per second such forecasts were off, on average.
pub const FORECAST_ERROR: &str = "millrace_scaler_forecast_error";

/// What is said of one pool whenever it has been read.
pub(crate) struct PoolMetrics {
    pool: String,
    backlog: Gauge,
    leased: Gauge,
    oldest: Gauge,
    workers: Gauge,
    loading: Gauge,
}

impl PoolMetrics {
    pub(crate) fn new(pool: &PoolName) -> Self {
        let pool = pool.as_str().to_owned();
        let of_pool = |name: &'static str| gauge!(name, "pool" => pool.clone());
        Self {
            backlog: of_pool(BACKLOG),
            leased: of_pool(LEASED),
            oldest: of_pool(OLDEST_SECONDS),
            workers: of_pool(WORKERS),
            loading: of_pool(LOADING),
            pool,
        }
    }

    pub(crate) fn tell(&self, reading: &Reading) {
        self.backlog.set(reading.backlog() as f64);
        self.leased.set(reading.leased as f64);
        self.oldest.set(reading.oldest.unwrap_or_default().as_secs_f64());
        self.workers.set(reading.fleet.present() as f64);
        self.loading.set(reading.fleet.loading as f64);
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        counter!(SAMPLE_FAILURES, "pool" => self.pool.clone(), "source" => failure.source).increment(1);
    }
}

/// A call has been answered with this decision.
pub(crate) fn decided(pool: &PoolName, decision: &Decision) {
    let label = || Label::new("pool", pool.as_str().to_owned());
    let (mode, arrivals, forecast) = match &decision.reckoning {
        Reckoning::Backlog(_) => ("backlog", None, None),
        Reckoning::Latency(needs) => ("latency", Some(needs.arrivals), needs.forecast),
        Reckoning::Rate(arrivals) => ("rate", Some(arrivals.arrivals), None),
    };
    gauge!(WANTED, vec![label(), Label::new("mode", mode)]).set(decision.value / decision.target);
    if let Some(arrivals) = arrivals {
        gauge!(ARRIVALS, vec![label()]).set(arrivals);
    }
    if let Some(forecast) = forecast {
        gauge!(FORECAST_ARRIVALS, vec![label()]).set(forecast.arrivals);
        gauge!(FORECAST_ERROR, vec![label()]).set(forecast.mean_absolute_error);
    }
}

/// Gauge, by call: streams that are open.
pub const STREAMS: &str = "millrace_scaler_streams";

/// A stream that is open, counted until it is dropped.
pub(crate) struct OpenStream(::metrics::Gauge);

impl OpenStream {
    pub(crate) fn of(call: &'static str) -> Self {
        let gauge = ::metrics::gauge!(STREAMS, "call" => call);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
