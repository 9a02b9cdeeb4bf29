//! The metadata of an offset in Kafka, which other programs can write too.
//!
//! A mark that is written is read as the same mark. A mark that is cut short still has every open record.

#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;

#[path = "../../queue/kafka/src/mark.rs"]
mod mark;

use mark::{MAX_BYTES, Mark};

/// The longest mark of one range has 85 bytes.
const LIMITS: [usize; 3] = [85, 100, MAX_BYTES];

fuzz_target!(|text: &str| {
    let Some(mark) = Mark::from_text(text) else { return };
    assert_eq!(Mark::from_text(&mark.to_text(usize::MAX)).as_ref(), Some(&mark));
    for limit in LIMITS {
        let short = mark.to_text(limit);
        assert!(short.len() <= limit);
        let read = Mark::from_text(&short).expect("a mark that is cut short can be read");
        assert_eq!((read.delivered, read.returned), (mark.delivered, mark.returned));
        for open in &mark.open {
            let covers = |run: &std::ops::RangeInclusive<u64>| run.contains(open.start()) && run.contains(open.end());
            assert!(read.open.iter().any(covers), "{open:?} is missing from {short:?}");
        }
    }
});
