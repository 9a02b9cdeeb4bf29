//! The signals that stop a process.

use std::io::{self, Write};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGTERM (from an orchestrator) or SIGINT (Ctrl-C) cancels. A second signal ends the process at once.
///
/// The handlers are installed when this function returns, so a signal during the rest of the start is not lost. Must be
/// called within a Tokio runtime.
pub fn on_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let requested = stop.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        requested.cancel();
        // An operator sends a second signal when the drain takes too long. Jobs in progress are requeued, as after
        // `kill -9`.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("a second signal: ending at once");
        end_at_once(130);
    });
    Ok(stop)
}

/// Ends the process without destructors of static objects. A thread may still run C++ code that uses these objects, so
/// their destruction could crash or never end.
pub fn end_at_once(code: i32) -> ! {
    // The reader may be gone.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
    #[allow(unsafe_code, reason = "the standard library has no such function")]
    // SAFETY: it takes any code, and needs no state of the process.
    unsafe {
        nix::libc::_exit(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_cancels_the_token() {
        let stop = on_signal().unwrap();
        assert!(!stop.is_cancelled());
        let kill = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
        assert!(kill.unwrap().success());
        stop.cancelled().await;
    }
}
