//! The open connections of a server, and their bound.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::http::activity::Activity;

/// The most connections, whatever number of descriptors the system allows.
const MOST_CONNECTIONS: u64 = 16_384;

/// Connections that all have a request in flight are looked at again after this time: one may be idle by then.
const UNTIL_NEXT_LOOK: Duration = Duration::from_millis(20);

/// The open connections.
pub(crate) struct Connections {
    most: usize,
    open: Mutex<HashMap<u64, Open>>,
    added: AtomicU64,
    closed: Notify,
    /// Whether the present episode without room has been logged.
    full: AtomicBool,
}

struct Open {
    activity: Arc<Activity>,
    evict: CancellationToken,
}

/// The place of one connection, until it is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    number: u64,
    evict: CancellationToken,
}

impl Connections {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            open: Mutex::default(),
            added: AtomicU64::new(0),
            closed: Notify::new(),
            full: AtomicBool::new(false),
        }
    }

    pub(crate) fn add(self: &Arc<Self>, activity: Arc<Activity>) -> Place {
        let evict = CancellationToken::new();
        let number = self.added.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, Open { activity, evict: evict.clone() });
        Place { connections: Arc::clone(self), number, evict }
    }

    /// Waits until there is room for one more connection. Closes the connection that has been idle longest.
    pub(crate) async fn room(&self) {
        loop {
            let open = self.open.lock().len();
            if open < self.most {
                // An episode ends well below the bound, so that one episode is logged once.
                if open < self.most / 2 {
                    self.full.store(false, Ordering::Relaxed);
                }
                return;
            }
            if !self.full.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    connections = self.most,
                    "all connections are in use; idle ones are closed for new ones"
                );
            }
            self.evict_longest_idle();
            let _ = tokio::time::timeout(UNTIL_NEXT_LOOK, self.closed.notified()).await;
        }
    }

    /// Closes the connection that has waited longest for a request, if there is one.
    pub(crate) fn evict_longest_idle(&self) {
        let open = self.open.lock();
        let idle = open.values().filter(|open| !open.evict.is_cancelled());
        let longest = idle.filter_map(|open| Some((open.activity.idle_since()?, open))).min_by_key(|(since, _)| *since);
        if let Some((_, open)) = longest {
            open.evict.cancel();
        }
    }
}

impl Place {
    /// Waits until the connection has to make room.
    pub(crate) async fn evicted(&self) {
        self.evict.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.number);
        self.connections.closed.notify_one();
    }
}

/// The number of connections for which there are file descriptors. Raises the limit of descriptors to the highest one
/// that the system allows this process. A quarter stays free for files and for connections to brokers.
pub(crate) fn allowed_by_descriptors() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let descriptors = if raised { hard } else { soft };
    usize::try_from((descriptors / 4 * 3).min(MOST_CONNECTIONS)).unwrap_or(usize::MAX)
}
