//! Work with a large body, on threads beside those that serve requests.

use std::panic::resume_unwind;

/// From this size, reading a body takes longer than a switch of threads.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// Runs `work` on another thread. A panic in it is a panic here.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    #[allow(
        clippy::disallowed_methods,
        reason = "the work ends with its body, and the bytes of all bodies are bounded"
    )]
    let running = tokio::task::spawn_blocking(work);
    match running.await {
        Ok(result) => result,
        // The runtime cancels the work only when it ends, and this task ends with it.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
