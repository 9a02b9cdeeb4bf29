//! A failing source does not stop any worker.

use policy::replicas::{Fallback, Rules};
use proptest::prelude::*;

use super::loads::{any_load, any_rules, any_scaling, any_worker};
use super::{Probe, SECOND, cases};
use crate::pool::run;

proptest! {
    #![proptest_config(cases(200))]

    /// This applies from the time at which the last reading is too old. With KEDA's `fallback` the number may fall to
    /// the configured replicas.
    #[test]
    fn without_an_answer_the_number_never_falls_and_afterwards_all_jobs_end(
        trace in any_load(),
        worker in any_worker(),
        scaling in any_scaling(),
        rules in any_rules(),
        outages in prop::collection::vec((0_u64..900, 1_u64..1500), 1..4),
        fallback in prop::option::of((0_u32..4, 1_u32..10)),
    ) {
        let fallback = fallback.map(|(failure_threshold, replicas)| Fallback { failure_threshold, replicas });
        let least = fallback.map_or(u32::MAX, |fallback| fallback.replicas.min(rules.max));
        let mut probe = Probe::new(scaling, Rules { fallback, ..rules });
        let outage = |(from, lasts)| SECOND * from as u32..SECOND * (from + lasts) as u32;
        probe.outages = outages.into_iter().map(outage).collect();
        let outcome = run(&trace, worker, SECOND * 5, &mut probe);
        for step in probe.steps.iter().filter(|step| !step.is_answered) {
            prop_assert!(step.after >= step.before.min(least), "{step:?}");
        }
        prop_assert_eq!(outcome.latencies.len(), trace.jobs.len());
    }
}
