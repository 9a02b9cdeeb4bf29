//! A pool with work has a worker.

use std::time::Duration;

use proptest::prelude::*;

use super::loads::{any_load, any_rules, any_scaling, any_worker};
use super::{Probe, SECOND, cases};
use crate::pool::run;

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_pool_with_work_or_a_loading_worker_is_never_scaled_to_zero_and_starts_by_the_next_poll(
        trace in any_load(),
        worker in any_worker(),
        scaling in any_scaling(),
        rules in any_rules(),
        retries in prop::collection::vec((0_u64..1500, 1_u64..700, 1_u64..5), 0..4),
    ) {
        let poll = rules.polling_interval;
        let mut probe = Probe::new(scaling, rules);
        let retry = |(from, lasts, jobs)| (SECOND * from as u32..SECOND * (from + lasts) as u32, jobs);
        probe.retries = retries.into_iter().map(retry).collect();
        let outcome = run(&trace, worker, SECOND * 5, &mut probe);
        prop_assert_eq!(outcome.latencies.len(), trace.jobs.len());
        let mut without_since: Option<Duration> = None;
        for step in &probe.steps {
            let is_needed = step.has_work() || step.view.loading() > 0;
            prop_assert!(!is_needed || step.before == 0 || step.after > 0, "{step:?}");
            if step.has_work() && step.after == 0 {
                let since = *without_since.get_or_insert(step.view.now);
                prop_assert!(step.view.now - since < poll, "{step:?} since {since:?}");
            } else {
                without_since = None;
            }
        }
    }
}
