//! A commit that has no answer, although the servers are in reach.

use std::time::{Duration, Instant};

use crate::cluster::CALL_TIMEOUT;
use crate::error::unavailable;
use queue::Result;

/// The interval of the checks whether a server replies.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The time for which a server must reply to other requests. A sound client commits soon after a server is back.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// The time for which a commit has had no answer.
///
/// After an outage librdkafka may wait for the group's coordinator for ever, although that replies to other clients. Then
/// only a new client helps.
#[derive(Default)]
pub(super) struct Unanswered {
    since: Option<Instant>,
    checked_at: Option<Instant>,
    replies_since: Option<Instant>,
}

impl Unanswered {
    /// A commit has started.
    pub(super) fn start(&mut self) {
        self.since = Some(Instant::now());
    }

    /// The commit has succeeded or failed.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Returns an error if the client must be replaced. `replies`: whether a server replies, which costs a call.
    pub(super) fn check(&mut self, replies: impl FnOnce() -> bool) -> Result<()> {
        let is_late = self.since.is_some_and(|since| since.elapsed() > CALL_TIMEOUT);
        if !is_late || self.checked_at.is_some_and(|at| at.elapsed() < CHECK_INTERVAL) {
            return Ok(());
        }
        let replies = replies();
        self.checked_at = Some(Instant::now());
        if !replies {
            self.replies_since = None;
            return Ok(());
        }
        match self.replies_since.get_or_insert_with(Instant::now).elapsed() < STUCK_AFTER {
            true => Ok(()),
            false => Err(unavailable("a commit has no answer, although the servers reply to other requests")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_replaced_only_if_a_commit_has_no_answer_and_the_servers_reply_for_some_time() {
        let ago = |duration| Instant::now().checked_sub(duration);
        let late = || Unanswered { since: ago(CALL_TIMEOUT * 2), ..Unanswered::default() };
        let mut started = Unanswered::default();
        started.start();
        assert!(started.check(|| panic!("it is too early for a check")).is_ok());
        let mut without_server = Unanswered { replies_since: ago(STUCK_AFTER * 2), ..late() };
        assert!(without_server.check(|| false).is_ok());
        assert!(without_server.replies_since.is_none());
        let mut server_is_back = late();
        assert!(server_is_back.check(|| true).is_ok());
        assert!(server_is_back.check(|| panic!("it is too early for another check")).is_ok());
        let mut stuck = Unanswered { replies_since: ago(STUCK_AFTER * 2), ..late() };
        assert!(stuck.check(|| true).is_err());
        stuck.end();
        assert!(stuck.check(|| panic!("the commit has its answer")).is_ok());
    }
}
