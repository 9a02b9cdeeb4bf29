//! The bound on the memory for inputs, over all jobs of a worker.
//!
//! The memory has four parts. One part is for the bytes of inputs from the blob store, and two parts are for preparing
//! inputs. Without separate parts, jobs that hold their bytes could wait for each other. A prepared item keeps its
//! memory until it has run, and an output until it is written. Device and outbox wait for no memory, so every wait
//! ends. The last part is for the messages and outputs that the window counts.

use std::fmt;
use std::sync::Arc;

use service::ByteSize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of the bound. So the bound fits the counter of a semaphore.
const UNIT_BYTES: u64 = 1024;

/// The memory for inputs that no job uses.
pub(crate) struct InputMemory {
    total_bytes: u64,
    reading: Share,
    preparing: Share,
}

/// The part of the memory for one step.
pub(crate) struct Share {
    step: &'static str,
    total_bytes: u64,
    units: u32,
    free: Arc<Semaphore>,
}

/// The memory that one job holds, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct HeldMemory {
    reading: Option<OwnedSemaphorePermit>,
    preparing: Option<OwnedSemaphorePermit>,
}

/// A job needs more memory than the whole part for a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    step: &'static str,
    needed_bytes: u64,
    share_bytes: u64,
    total_bytes: u64,
}

impl InputMemory {
    pub(crate) fn new(total_bytes: u64) -> Self {
        let share = |step, bytes| Share::new(step, bytes, total_bytes);
        Self { total_bytes, reading: share("reading", total_bytes / 4), preparing: share("preparing", total_bytes / 2) }
    }

    /// The part for messages and outputs.
    pub(crate) fn window_bytes(&self) -> u64 {
        self.total_bytes / 4
    }

    /// The part for the bytes of inputs from the blob store.
    pub(crate) fn reading(&self) -> &Share {
        &self.reading
    }

    /// The part for preparing inputs, and for prepared items.
    pub(crate) fn preparing(&self) -> &Share {
        &self.preparing
    }
}

impl Share {
    fn new(step: &'static str, bytes: u64, total_bytes: u64) -> Self {
        let most = u64::from(u32::MAX).min(Semaphore::MAX_PERMITS as u64);
        let units = (bytes / UNIT_BYTES).min(most) as u32;
        Self { step, total_bytes, units, free: Arc::new(Semaphore::new(units as usize)) }
    }

    /// Reserves memory if enough of it is free now and no earlier job waits.
    pub(crate) fn try_reserve(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(units(bytes)).ok()
    }

    /// Refuses a job that needs more than the whole part.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), TooLarge> {
        if units(bytes) <= self.units {
            return Ok(());
        }
        let (step, total_bytes) = (self.step, self.total_bytes);
        let share_bytes = u64::from(self.units) * UNIT_BYTES;
        Err(TooLarge { step, needed_bytes: bytes, share_bytes, total_bytes })
    }

    /// Waits until memory is free. Jobs get it in the order of their calls.
    pub(crate) async fn reserve(&self, bytes: u64) -> Result<Option<OwnedSemaphorePermit>, TooLarge> {
        self.check(bytes)?;
        // The semaphore is never closed.
        Ok(Arc::clone(&self.free).acquire_many_owned(units(bytes)).await.ok())
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

impl HeldMemory {
    pub(crate) fn hold_to_read(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.reading = permit;
    }

    pub(crate) fn hold_to_prepare(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.preparing = permit;
    }

    /// Keeps memory for `bytes`, and frees the rest. An item or an output may be the bytes of the input themselves.
    pub(crate) fn keep(&mut self, bytes: u64) {
        let needed = units(bytes) as usize;
        if shrink(&mut self.preparing, needed) {
            self.reading = None;
        } else if shrink(&mut self.reading, needed) {
            self.preparing = None;
        }
    }
}

/// Frees the part of a permit above `needed`. False if there is no permit of this size.
fn shrink(permit: &mut Option<OwnedSemaphorePermit>, needed: usize) -> bool {
    match permit {
        Some(permit) if permit.num_permits() >= needed => {
            drop(permit.split(permit.num_permits() - needed));
            true
        }
        _ => false,
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [needed, share, total] = [self.needed_bytes, self.share_bytes, self.total_bytes].map(ByteSize::bytes);
        let (step, rule) = (self.step, "the part of worker.input_memory");
        write!(f, "body: {step} this input takes {needed}, more than {share}, {rule} ({total}) for this step")
    }
}

/// The default of the memory for inputs: half of the memory that this process may use. That is the limit of its cgroup,
/// or else the memory of the machine.
pub(crate) fn default_bytes() -> u64 {
    const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = |path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    let allowed = LIMITS.into_iter().filter_map(limit).chain(machine).min();
    allowed.map_or(FALLBACK_BYTES, |bytes| bytes / 2).max(LEAST_BYTES)
}

/// The memory for inputs where the system does not report its memory.
const FALLBACK_BYTES: u64 = 1 << 30;

/// The smallest memory for inputs.
pub(crate) const LEAST_BYTES: u64 = 16 << 20;

/// The total memory that the text of `/proc/meminfo` reports.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn a_job_that_needs_more_than_the_whole_part_is_refused_with_both_sizes() {
        let memory = InputMemory::new(16 * MIB);
        assert!(memory.preparing().reserve(8 * MIB).await.unwrap().is_some());
        let refused = memory.preparing().reserve(9 * MIB).await.unwrap_err().to_string();
        assert!(refused.contains("takes 9MiB, more than 8MiB") && refused.contains("(16MiB)"), "{refused}");
        assert!(memory.reading().reserve(5 * MIB).await.is_err());
    }

    #[tokio::test]
    async fn jobs_wait_in_order_and_a_small_one_does_not_overtake() {
        let memory = InputMemory::new(16 * MIB);
        let share = memory.preparing();
        let held = share.try_reserve(6 * MIB).unwrap();
        let mut large = Box::pin(share.reserve(4 * MIB));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(share.try_reserve(MIB).is_none());
        drop(held);
        assert!(large.await.unwrap().is_some());
    }

    #[test]
    fn a_prepared_item_keeps_only_its_own_size() {
        let memory = InputMemory::new(16 * MIB);
        let mut held = HeldMemory::default();
        held.hold_to_read(memory.reading().try_reserve(4 * MIB));
        held.hold_to_prepare(memory.preparing().try_reserve(8 * MIB));
        held.keep(MIB);
        assert!(memory.reading().try_reserve(4 * MIB).is_some());
        assert!(memory.preparing().try_reserve(7 * MIB).is_some());
        assert!(memory.preparing().try_reserve(8 * MIB).is_none());
        drop(held);
        assert!(memory.preparing().try_reserve(8 * MIB).is_some());
    }

    #[test]
    fn an_item_that_is_the_input_itself_keeps_the_memory_of_its_bytes() {
        let memory = InputMemory::new(16 * MIB);
        let mut held = HeldMemory::default();
        held.hold_to_read(memory.reading().try_reserve(4 * MIB));
        held.keep(4 * MIB);
        assert!(memory.reading().try_reserve(1).is_none());
        held.keep(MIB);
        assert!(memory.reading().try_reserve(3 * MIB).is_some());
    }

    #[test]
    fn the_default_is_derived_from_the_memory_of_the_system() {
        assert_eq!(total_bytes("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 * MIB));
        assert_eq!(total_bytes("MemFree: 1 kB\n"), None);
        assert!(default_bytes() >= LEAST_BYTES);
    }
}
