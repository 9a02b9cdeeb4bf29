//! Whether two roles of a backend use the same store.

use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies an open store within this process. Roles with the same id share one handle on it, so one call of one role can
/// change the data of the other too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreId(u64);

impl StoreId {
    /// The id of a store that was opened now. No other store of this process has this id.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
