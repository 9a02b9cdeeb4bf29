//! The actions.

use proptest::prelude::*;
use proptest::sample::Index;

use queue::Class;

/// One action. An index selects one of the existing items; without items the action does nothing.
#[derive(Debug, Clone)]
pub enum Action {
    Submit(Terms),
    Resubmit(Index),
    /// A publication by an outside producer, which does not use the ledger.
    PublishUnknown(Terms),
    Publish(Index),
    Confirm(Index),
    Receive(usize),
    Claim(Index),
    /// The call before a suspect runs; the model makes it for other jobs too.
    Begin(Index),
    Renew(Index),
    Finish(Index, AttemptEnd),
    Acknowledge(Index),
    RequeueDelivery(Index),
    Drop(Index),
    Cancel(Index),
    Requeue(Index),
    Due(Progress),
    Advance(u64),
    /// The broker considers the live consumer dead.
    GiveUp,
    Crash,
    Reopen,
}

#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub class: Class,
    pub max_attempts: u32,
    pub deadline_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub enum AttemptEnd {
    Succeed,
    Fail,
    Retry(u64),
    Release,
}

/// The last step that the process with the due jobs completes.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    Takes,
    Publishes,
    Confirms,
}

impl Action {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let index = any::<Index>;
        prop_oneof![
            6 => terms().prop_map(Self::Submit),
            1 => index().prop_map(Self::Resubmit),
            1 => terms().prop_map(Self::PublishUnknown),
            6 => index().prop_map(Self::Publish),
            4 => index().prop_map(Self::Confirm),
            8 => (1_usize..4).prop_map(Self::Receive),
            10 => index().prop_map(Self::Claim),
            4 => index().prop_map(Self::Begin),
            1 => index().prop_map(Self::Renew),
            8 => (index(), ending()).prop_map(|(lease, ending)| Self::Finish(lease, ending)),
            6 => index().prop_map(Self::Acknowledge),
            2 => index().prop_map(Self::RequeueDelivery),
            2 => index().prop_map(Self::Drop),
            1 => index().prop_map(Self::Cancel),
            2 => index().prop_map(Self::Requeue),
            4 => prop_oneof![Just(Progress::Takes), Just(Progress::Publishes), Just(Progress::Confirms)].prop_map(Self::Due),
            4 => prop_oneof![Just(1), Just(11), Just(31)].prop_map(Self::Advance),
            1 => Just(Self::GiveUp),
            1 => Just(Self::Crash),
            1 => Just(Self::Reopen),
        ]
    }
}

fn terms() -> impl Strategy<Value = Terms> {
    let class = prop::sample::select(Class::ALL.as_slice());
    let deadline_seconds = prop_oneof![4 => Just(None), 1 => (1_u64..40).prop_map(Some)];
    (class, 1_u32..4, deadline_seconds).prop_map(|(class, max_attempts, deadline_seconds)| Terms {
        class,
        max_attempts,
        deadline_seconds,
    })
}

fn ending() -> impl Strategy<Value = AttemptEnd> {
    prop_oneof![
        3 => Just(AttemptEnd::Succeed),
        1 => Just(AttemptEnd::Fail),
        2 => prop_oneof![Just(0), Just(20)].prop_map(AttemptEnd::Retry),
        2 => Just(AttemptEnd::Release),
    ]
}
