//! Floors by the calendar: minimum numbers of workers at certain times.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cronexpr::Crontab;
use jiff::{SignedDuration, Timestamp};
use service::Period;

/// A minimum number of workers. It starts at each time of a crontab and lasts for a fixed time.
#[derive(Debug, Clone)]
pub struct Floor {
    text: String,
    begins: Crontab,
    lasts: Duration,
    /// The minimum number of workers.
    pub workers: u32,
}

impl PartialEq for Floor {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Several floors. Where they overlap, the highest one applies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schedule(pub Vec<Floor>);

/// The form of a floor, for error messages.
const FORM: &str = "minute hour day month weekday timezone for duration = workers, \
                    such as \"0 8 * * 1-5 Europe/Berlin for 10h = 4\"";

impl FromStr for Schedule {
    type Err = String;

    /// Parses floors that are separated by semicolons.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        Ok(Self(parts.map(str::parse).collect::<Result<_, _>>()?))
    }
}

impl FromStr for Floor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of_form = || format!("is not {FORM}");
        let (when, workers) = text.rsplit_once('=').ok_or_else(of_form)?;
        let (begins, lasts) = when.rsplit_once(" for ").ok_or_else(of_form)?;
        let workers =
            workers.trim().parse().map_err(|_| format!("has no whole number of workers: it {}", of_form()))?;
        let lasts: Period = lasts.trim().parse().map_err(|_| format!("has no duration: it {}", of_form()))?;
        if lasts.is_zero() {
            return Err(format!("has the duration 0s: it {}", of_form()));
        }
        // The library's message has several lines, so it does not fit into this one.
        let begins = cronexpr::parse_crontab(begins.trim())
            .map_err(|_| format!("has no crontab with a time zone: it {}", of_form()))?;
        Ok(Self { text: text.to_owned(), begins, lasts: lasts.get(), workers })
    }
}

impl Floor {
    /// Whether the floor applies now.
    pub fn applies(&self, now: Timestamp) -> bool {
        let Ok(lasts) = SignedDuration::try_from(self.lasts) else { return false };
        let Ok(since) = now.checked_sub(lasts) else { return false };
        self.begins.find_next(since).is_ok_and(|begin| begin.timestamp() <= now)
    }

    /// The next time at which the floor begins.
    fn next_begin(&self, now: Timestamp) -> Option<Timestamp> {
        self.begins.find_next(now).ok().map(|begin| begin.timestamp())
    }

    /// The next time at which the floor ends, whether it has begun or not.
    fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        let lasts = SignedDuration::try_from(self.lasts).ok()?;
        let began = self.begins.find_next(now.checked_sub(lasts).ok()?).ok()?;
        began.timestamp().checked_add(lasts).ok()
    }
}

impl Schedule {
    /// The highest floor that applies now. 0 without one.
    pub fn floor(&self, now: Timestamp) -> u32 {
        self.0.iter().filter(|floor| floor.applies(now)).map(|floor| floor.workers).max().unwrap_or(0)
    }

    /// The earliest time after `now` at which a floor above 0 workers begins or ends. `None`: there is no such floor.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let floors = self.0.iter().filter(|floor| floor.workers > 0);
        floors.flat_map(|floor| [floor.next_begin(now), floor.next_end(now)]).flatten().min()
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_applies_from_its_begin_until_its_duration_has_passed() {
        let schedule: Schedule = "0 8 * * 1-5 Europe/Berlin for 10h = 4; 0 12 * * * UTC for 30m = 9".parse().unwrap();
        // A Monday; Berlin is an hour ahead of UTC in winter.
        for (at, floor) in [
            ("2026-01-05T06:59:59Z", 0),
            ("2026-01-05T07:00:00Z", 4),
            ("2026-01-05T12:00:00Z", 9),
            ("2026-01-05T12:29:59Z", 9),
            ("2026-01-05T12:30:00Z", 4),
            ("2026-01-05T16:59:59Z", 4),
            ("2026-01-05T17:00:00Z", 0),
            ("2026-01-04T08:00:00Z", 0),
            // In summer Berlin is two hours ahead.
            ("2026-07-06T06:00:00Z", 4),
        ] {
            assert_eq!(schedule.floor(at.parse().unwrap()), floor, "{at}");
        }
        assert_eq!(Schedule::default().floor(Timestamp::UNIX_EPOCH), 0);
    }

    #[test]
    fn the_next_change_is_the_next_time_at_which_a_floor_begins_or_ends() {
        let schedule: Schedule =
            "0 8 * * * UTC for 10h = 4; 0 12 * * * UTC for 30m = 9; 0 3 * * * UTC for 1h = 0".parse().unwrap();
        let mut now: Timestamp = "2026-01-05T00:00:00Z".parse().unwrap();
        for next in ["08:00:00", "12:00:00", "12:30:00", "18:00:00"] {
            now = schedule.next_change(now).unwrap();
            assert_eq!(now.to_string(), format!("2026-01-05T{next}Z"));
        }
        assert_eq!(schedule.next_change(now).unwrap().to_string(), "2026-01-06T08:00:00Z");
        // Each start is within the duration of the floor before. So the floor never changes, but its ends are reported.
        let overlapping: Schedule = "0 * * * * UTC for 90m = 1".parse().unwrap();
        let change = overlapping.next_change("2026-01-05T10:10:00Z".parse().unwrap()).unwrap();
        assert_eq!(change.to_string(), "2026-01-05T10:30:00Z");
        assert_eq!(Schedule::default().next_change(now), None);
    }

    #[test]
    fn a_malformed_floor_is_rejected_with_the_required_form() {
        for (text, why) in [
            ("soon", "is not minute"),
            ("0 8 * * * UTC for 10h", "is not minute"),
            ("0 8 * * * UTC = 4", "is not minute"),
            ("0 8 * * * UTC for 10h = many", "has no whole number of workers"),
            ("0 8 * * * UTC for ever = 4", "has no duration"),
            ("0 8 * * * UTC for 0s = 4", "has the duration 0s"),
            ("0 25 * * * UTC for 1h = 4", "has no crontab"),
            ("0 8 * * * Mars/Olympus for 1h = 4", "has no crontab"),
        ] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert!(error.starts_with(why) && error.contains("Europe/Berlin for 10h = 4"), "{text}: {error}");
        }
    }
}
