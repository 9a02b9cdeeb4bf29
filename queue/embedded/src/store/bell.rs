//! Tells other processes that something was committed, without making them ask.
//!
//! A bell is a small file. Who rings it touches it; the kernel tells whoever watches the folder. A ring may be lost
//! (a full event queue), so listeners also look by themselves now and then.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio::time::timeout;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bell {
    /// A message may be taken.
    Published,
    /// A job has ended.
    Ended,
    /// A pool may have got work.
    Arrived,
}

impl Bell {
    pub(crate) const COUNT: usize = 3;
    const FILES: [&str; Self::COUNT] = ["published", "ended", "arrived"];
}

/// How often a listener looks by itself: when bells work, and when this machine cannot watch files.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_UNWATCHED: Duration = Duration::from_millis(20);

/// The bells of one data folder.
pub(super) struct Bells {
    files: Arc<[File; Bell::COUNT]>,
    heard: [watch::Receiver<()>; Bell::COUNT],
    look_every: Duration,
    _watcher: Option<RecommendedWatcher>,
}

impl Bells {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = |name| File::options().create(true).write(true).truncate(false).open(folder.join(name));
        let [published, ended, arrived] = Bell::FILES;
        let files = Arc::new([file(published)?, file(ended)?, file(arrived)?]);
        let senders = [(); Bell::COUNT].map(|()| watch::Sender::new(()));
        let heard = senders.each_ref().map(watch::Sender::subscribe);
        let watching = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) if !event.need_rescan() => {
                for (name, sender) in Bell::FILES.iter().zip(&senders) {
                    if event.paths.iter().any(|path| path.ends_with(name)) {
                        sender.send_replace(());
                    }
                }
            }
            // Events were lost, or watching failed: anything may have happened.
            _ => senders.iter().for_each(|sender| sender.send_replace(())),
        })
        .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
        let watcher = watching
            .inspect_err(|error| tracing::warn!(%error, "cannot watch the data folder: looking every 20 ms instead"))
            .ok();
        let look_every = if watcher.is_some() { LOOK_EVERY } else { LOOK_EVERY_UNWATCHED };
        Ok(Self { files, heard, look_every, _watcher: watcher })
    }

    pub(super) fn ringer(&self) -> Ringer {
        Ringer { files: Arc::clone(&self.files) }
    }

    pub(super) fn listen(&self, bell: Bell) -> Listener {
        let mut heard = self.heard[bell as usize].clone();
        heard.mark_unchanged();
        Listener { heard, look_every: self.look_every }
    }
}

/// The writer's side.
pub(super) struct Ringer {
    files: Arc<[File; Bell::COUNT]>,
}

impl Ringer {
    pub(super) fn ring(&self, rung: [bool; Bell::COUNT]) {
        for (file, rung) in self.files.iter().zip(rung) {
            // Overwriting the one byte needs no room on the disk. A ring that fails is as good as one lost.
            if rung && let Err(error) = file.write_at(&[0], 0) {
                tracing::debug!(%error, "a bell did not ring");
            }
        }
    }
}

/// Hears one bell, from when it was made or last heard.
#[derive(Clone)]
pub(crate) struct Listener {
    heard: watch::Receiver<()>,
    look_every: Duration,
}

impl Listener {
    /// Returns when the bell has rung since the last call, or it is time to look anyway. May be dropped.
    pub(crate) async fn rung(&mut self) {
        match timeout(self.look_every, self.heard.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            // The watcher is gone: only the time is left to go by.
            Ok(Err(_)) => tokio::time::sleep(self.look_every).await,
        }
    }
}
