//! Measures the system on this machine. Each figure is printed with a limit or a reference that is measured in the same
//! run.
//!
//! Usage: `millrace-bench [submits|latency|drain|digits|curve|scaler|tracing|embedded|rabbitmq|kafka|redis]...`. The names
//! select measurements and brokers. If no measurement is named, all of them run. If no broker is named, all brokers are
//! used. A broker that is not named is skipped, with a message, if no `MILLRACE_TEST_..._URL` names its server
//! (`scripts/servers.sh run` starts the servers).
//!
//! The load generator, and the servers if they run here, share the cores of the machine with the system under test.

mod cpu;
mod curve;
mod digits;
mod drain;
mod latency;
mod peer;
mod scaler;
mod submits;
mod tracing;

use anyhow::bail;
use millrace_tests::BrokerKind;

const MEASUREMENTS: [&str; 7] = ["submits", "latency", "drain", "digits", "curve", "scaler", "tracing"];

/// The durability behind an answer, for each broker.
const DURABLE: &str = "\
embedded: SQLite in WAL mode, synchronous=FULL where a power failure must lose nothing (submit, publish, finish),
          NORMAL where the next such commit includes it (receive, claim, acknowledge, heartbeats)
rabbitmq: quorum queues, with confirms. kafka: acks=all, which means in memory on this machine. Both use redis as ledger
redis:    as its server is configured; with scripts/servers.sh it syncs its file before each answer";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let brokers = BrokerKind::ALL.map(BrokerKind::name);
    if let Some(unknown) = named.iter().find(|name| ![&MEASUREMENTS[..], &brokers].concat().contains(&name.as_str())) {
        bail!("{unknown:?} is neither a measurement ({MEASUREMENTS:?}) nor a broker ({brokers:?})");
    }
    // If no name of a kind is given, all names of that kind are used.
    let wanted = |name: &str, of: &[&str]| {
        named.iter().any(|named| named == name) || !named.iter().any(|named| of.contains(&named.as_str()))
    };
    println!("{} cores\n{DURABLE}", std::thread::available_parallelism()?);
    for kind in BrokerKind::ALL {
        if !wanted(kind.name(), &brokers) {
            continue;
        }
        // A broker that the user named must have a server.
        if !kind.has_server() && !named.iter().any(|named| named == kind.name()) {
            println!(
                "{kind}: skipped: no server, or no server for its ledger: set MILLRACE_TEST_{}_URL",
                kind.name().to_uppercase()
            );
            continue;
        }
        if wanted("submits", &MEASUREMENTS) {
            submits::run(kind).await?;
            if kind == BrokerKind::Redis {
                peer::run().await?;
            }
        }
        if wanted("latency", &MEASUREMENTS) {
            latency::run(kind).await?;
        }
        if wanted("drain", &MEASUREMENTS) {
            drain::run(kind).await?;
        }
        if wanted("scaler", &MEASUREMENTS) {
            scaler::run(kind).await?;
        }
        // These do not depend on the broker.
        if kind == BrokerKind::Embedded && wanted("digits", &MEASUREMENTS) {
            digits::run().await?;
        }
        if kind == BrokerKind::Embedded && wanted("curve", &MEASUREMENTS) {
            curve::run().await?;
        }
        if kind == BrokerKind::Embedded && wanted("tracing", &MEASUREMENTS) {
            tracing::run().await?;
        }
    }
    Ok(())
}
