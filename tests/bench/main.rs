//! Measures the system on this machine, each figure beside a limit or a peer measured in the same run.
//!
//! Usage: `millrace-bench [submits|latency|drain|digits]...`; all of them unless named. The load generator shares the
//! machine's cores with what it measures.

mod digits;
mod drain;
mod http;
mod latency;
mod submits;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|named| named == name);
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores; SQLite in WAL mode: synchronous=FULL where a power failure must lose nothing (submit,");
    println!("publish, finish), NORMAL where the next such commit carries it (receive, claim, settle, beats)");
    if wanted("submits") {
        submits::run().await?;
    }
    if wanted("latency") {
        latency::run().await?;
    }
    if wanted("drain") {
        drain::run().await?;
    }
    if wanted("digits") {
        digits::run().await?;
    }
    Ok(())
}
