//! Minimum numbers of workers at certain times, in the configuration or in the metadata of a ScaledObject.
//!
//! A schedule that is written is read as the same schedule. Between two changes the minimum stays the same.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use policy::schedule::Schedule;

/// The number of changes to follow.
const CHANGES: usize = 4;

fuzz_target!(|text: &str| {
    let schedule = match text.parse::<Schedule>() {
        Ok(schedule) => schedule,
        Err(reason) => return assert!(!reason.is_empty()),
    };
    let floors: Vec<String> = schedule.0.iter().map(ToString::to_string).collect();
    assert_eq!(floors.join(";").parse(), Ok(schedule.clone()));

    let mut now = Timestamp::from_second(1_767_225_600).expect("the begin of 2026");
    for _ in 0..CHANGES {
        let Some(next) = schedule.next_change(now) else { return };
        assert!(next > now, "{next} is not after {now}");
        let between = now + (next.duration_since(now) / 2);
        assert_eq!(schedule.floor(between), schedule.floor(now), "between {now} and {next}");
        now = next;
    }
});
