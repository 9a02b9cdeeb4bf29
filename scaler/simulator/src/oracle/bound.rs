//! A lower bound of the cost of a trace.

use std::time::Duration;

use crate::conditions::Objectives;
use crate::trace::Trace;
use crate::worker::Worker;

/// A lower bound of the cost of any schedule that meets the objective: the time of all jobs in full batches, and one
/// cold start for each worker that must have started.
///
/// At most `1 - share` of the judged jobs may be late. So of the jobs that arrive in a window, the others must end until
/// one objective after the window. The number of workers is at least their time in full batches, divided by the length
/// of the window and the objective.
///
/// The provisioning time of a worker may be short, so only the cold start counts.
pub fn bound(trace: &Trace, worker: Worker, objectives: &Objectives, share: f64) -> Duration {
    if trace.jobs.is_empty() {
        return Duration::ZERO;
    }
    let limit = f64::from(worker.batch_limit.max(1));
    let (base, item) = (worker.batch_base.as_secs_f64(), worker.batch_item.as_secs_f64());
    let work: f64 = trace.jobs.iter().map(|job| base / limit + item * job.work).sum();
    let judged = trace.jobs.iter().filter(|job| objectives[job.class as usize].is_some());
    let allowed_late = (judged.clone().count() as f64 * (1.0 - share)).floor();
    // The least work of a job, because the late jobs may be the largest ones.
    let least = judged.clone().map(|job| base / limit + item * job.work).fold(f64::INFINITY, f64::min);
    let objective = objectives.iter().flatten().max().copied().unwrap_or(Duration::MAX).as_secs_f64();
    let mut workers: f64 = 1.0;
    let mut window = 1.0;
    while window <= trace.length.as_secs_f64().max(1.0) {
        let (mut count, mut place) = (0.0, -1.0);
        for job in judged.clone() {
            let at = (job.at.as_secs_f64() / window).floor();
            if at > place {
                (count, place) = (0.0, at);
            }
            count += 1.0;
            workers = workers.max(((count - allowed_late) * least / (window + objective)).ceil());
        }
        window *= 2.0;
    }
    worker.cold_start.mul_f64(workers) + Duration::from_secs_f64(work)
}
