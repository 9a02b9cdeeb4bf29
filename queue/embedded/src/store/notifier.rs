//! Notifies other processes of commits, so that they need not poll.
//!
//! There is one small file per kind of change. A process that commits a change overwrites a byte of the file. The
//! kernel notifies the processes that watch the folder. A notification may be lost when the kernel's event queue is
//! full. So a subscription also wakes its owner at intervals.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio::time::timeout;

/// A kind of change in the data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A message may be taken.
    Published,
    /// A job has ended.
    Ended,
    /// A pool may have work.
    Arrived,
}

/// Whether each kind of change has happened. The index is `Change as usize`.
pub(super) type Changes = [bool; Change::COUNT];

impl Change {
    pub(super) const COUNT: usize = 3;
    const FILES: [&str; Self::COUNT] = ["published", "ended", "arrived"];
}

/// The longest wait of a subscription: with notifications, and on a machine that cannot watch files.
const POLL_EVERY: Duration = Duration::from_secs(1);
const POLL_EVERY_UNWATCHED: Duration = Duration::from_millis(20);

/// The notifications of one data folder.
pub(super) struct Notifier {
    files: Arc<[File; Change::COUNT]>,
    notified: [watch::Receiver<()>; Change::COUNT],
    poll_every: Duration,
    _watcher: Option<RecommendedWatcher>,
}

impl Notifier {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = |name| File::options().create(true).write(true).truncate(false).open(folder.join(name));
        let [published, ended, arrived] = Change::FILES;
        let files = Arc::new([file(published)?, file(ended)?, file(arrived)?]);
        let senders = [(); Change::COUNT].map(|()| watch::Sender::new(()));
        let notified = senders.each_ref().map(watch::Sender::subscribe);
        let watching = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) if !event.need_rescan() => {
                for (name, sender) in Change::FILES.iter().zip(&senders) {
                    if event.paths.iter().any(|path| path.ends_with(name)) {
                        sender.send_replace(());
                    }
                }
            }
            // Events were lost, or the watch failed: any change may have happened.
            _ => senders.iter().for_each(|sender| sender.send_replace(())),
        })
        .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
        let watcher = watching
            .inspect_err(|error| tracing::warn!(%error, "cannot watch the data folder; polling every 20 ms instead"))
            .ok();
        let poll_every = if watcher.is_some() { POLL_EVERY } else { POLL_EVERY_UNWATCHED };
        Ok(Self { files, notified, poll_every, _watcher: watcher })
    }

    pub(super) fn publisher(&self) -> Publisher {
        Publisher { files: Arc::clone(&self.files) }
    }

    pub(super) fn subscribe(&self, change: Change) -> Subscription {
        let mut notified = self.notified[change as usize].clone();
        notified.mark_unchanged();
        Subscription { notified, poll_every: self.poll_every }
    }
}

/// The part of the notifier that the writer uses.
pub(super) struct Publisher {
    files: Arc<[File; Change::COUNT]>,
}

impl Publisher {
    pub(super) fn publish(&self, changes: Changes) {
        for (file, is_changed) in self.files.iter().zip(changes) {
            // Overwriting the one byte needs no space on the disk. A failure has the same effect as a lost
            // notification.
            if is_changed && let Err(error) = file.write_at(&[0], 0) {
                tracing::debug!(%error, "could not notify other processes of a commit");
            }
        }
    }
}

/// Notifications of one kind of change since the subscription was made, or since it woke last.
#[derive(Clone)]
pub(crate) struct Subscription {
    notified: watch::Receiver<()>,
    poll_every: Duration,
}

impl Subscription {
    /// Returns when there was a change since the last call, or when it is time to poll. Its future may be dropped.
    pub(crate) async fn changed(&mut self) {
        match timeout(self.poll_every, self.notified.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            // There is no watcher, so only polling is left.
            Ok(Err(_)) => tokio::time::sleep(self.poll_every).await,
        }
    }
}
