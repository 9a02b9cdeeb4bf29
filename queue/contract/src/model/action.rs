//! What may happen next.

use proptest::prelude::*;
use proptest::sample::Index;

use queue::Class;

/// One step. An index picks from what there is at that moment; where there is nothing, nothing happens.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Submit(Terms),
    Resubmit(Index),
    /// By a producer that does not know the ledger.
    PublishUnknown(Terms),
    Publish(Index),
    Confirm(Index),
    Receive(usize),
    Claim(Index),
    /// What a worker says before it runs a suspect; said of others too.
    Begin(Index),
    Renew(Index),
    Finish(Index, Ending),
    SettleDone(Index),
    SettleAgain(Index),
    Drop(Index),
    Cancel(Index),
    Requeue(Index),
    Due(Care),
    Advance(u64),
    /// The broker takes the living consumer for dead.
    GiveUp,
    Crash,
    Reopen,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) class: Class,
    pub(super) max_attempts: u32,
    pub(super) deadline_seconds: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    Succeed,
    Fail,
    Retry(u64),
    Release,
}

/// How far whoever publishes what is due comes with it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Care {
    Forgets,
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
            6 => index().prop_map(Self::SettleDone),
            2 => index().prop_map(Self::SettleAgain),
            2 => index().prop_map(Self::Drop),
            1 => index().prop_map(Self::Cancel),
            2 => index().prop_map(Self::Requeue),
            4 => prop_oneof![Just(Care::Forgets), Just(Care::Publishes), Just(Care::Confirms)].prop_map(Self::Due),
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

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => Just(Ending::Succeed),
        1 => Just(Ending::Fail),
        2 => prop_oneof![Just(0), Just(20)].prop_map(Ending::Retry),
        2 => Just(Ending::Release),
    ]
}
