//! The code that the drivers of brokers, ledgers and rosters share. No other crate uses this module.
//!
//! A driver is a crate that implements [`Broker`], [`Ledger`](crate::Ledger) or
//! [`Roster`](crate::Roster) for one kind of server or file. It makes deliveries with
//! [`Delivery::new`], and reads and writes a job on the wire as an [`Event`]. It passes the tests
//! of the crate `millrace-queue-contract`.

use std::time::Duration;

pub use crate::broker::{
    Announcer, Broker, Consumer, Delivery, DeliveryTag, Depth, Gauge, Producer, RequeueOnDrop, Settlement, same_for_all,
};
pub use crate::clock::milliseconds_of;
pub use crate::ending::Ending;
pub use crate::event::{Event, STRUCTURED, Unreadable, unreadable};
pub use crate::stored::{BodyColumns, input_digest, origin_column};

/// The time after which a confirmed publication is repeated, in case the broker lost the message. A second message does no
/// harm, because the ledger knows the job.
pub const CHECK_AFTER: Duration = Duration::from_secs(6 * 60 * 60);

/// As [`CHECK_AFTER`], for a released job. Its worker requeues its delivery. But if another worker received that delivery
/// before and acknowledged it, no message is left.
pub const CHECK_RELEASED_AFTER: Duration = Duration::from_secs(120);
