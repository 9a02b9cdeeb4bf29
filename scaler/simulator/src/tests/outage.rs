//! A source that fails stops nobody.

use policy::replicas::{Fallback, Rules};
use proptest::prelude::*;

use super::loads::{any_load, any_rules, any_scaling, any_worker};
use super::{Probe, SECOND, cases};
use crate::pool::run;

proptest! {
    #![proptest_config(cases(200))]

    /// From when the last reading is too old to be spoken of. KEDA's `fallback` is the user's word for what a failure
    /// means: with it the number falls no lower than it says.
    #[test]
    fn while_nothing_is_known_the_number_never_falls_and_afterwards_the_work_is_done(
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
        let away = |(from, lasts)| SECOND * from as u32..SECOND * (from + lasts) as u32;
        probe.away = outages.into_iter().map(away).collect();
        let outcome = run(&trace, worker, SECOND * 5, &mut probe);
        for step in probe.steps.iter().filter(|step| !step.is_known) {
            prop_assert!(step.after >= step.before.min(least), "{step:?}");
        }
        prop_assert_eq!(outcome.latencies.len(), trace.jobs.len());
    }
}
