//! Measures the system on this machine, each figure beside a limit or a peer measured in the same run.
//!
//! Usage: `millrace-bench [submits|latency|drain|digits|curve|scaler|embedded|rabbitmq|kafka|redis]...`: these measurements of these
//! brokers; all of them unless named. A broker that is not named is left out, and said to be, where no
//! `MILLRACE_TEST_..._URL` names its server (`scripts/servers.sh run` starts them). The load generator, and the servers
//! if they are here, share the machine's cores with what it measures.

mod curve;
mod digits;
mod drain;
mod http;
mod latency;
mod scaler;
mod submits;

use anyhow::bail;
use millrace_tests::BrokerKind;

const MEASUREMENTS: [&str; 6] = ["submits", "latency", "drain", "digits", "curve", "scaler"];

/// What an answer of each broker means.
const DURABLE: &str = "\
embedded: SQLite in WAL mode, synchronous=FULL where a power failure must lose nothing (submit, publish, finish),
          NORMAL where the next such commit carries it (receive, claim, settle, beats)
rabbitmq: quorum queues, confirmed. kafka: acks=all, which is memory on its machine. The ledger of both is the redis
redis:    as its server is configured; scripts/servers.sh has it sync its file before each answer";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let brokers = BrokerKind::ALL.map(BrokerKind::name);
    if let Some(unknown) = named.iter().find(|name| ![&MEASUREMENTS[..], &brokers].concat().contains(&name.as_str())) {
        bail!("{unknown:?} is neither a measurement ({MEASUREMENTS:?}) nor a broker ({brokers:?})");
    }
    // Of each kind, all unless some are named.
    let wanted = |name: &str, of: &[&str]| {
        named.iter().any(|named| named == name) || !named.iter().any(|named| of.contains(&named.as_str()))
    };
    println!("{} cores\n{DURABLE}", std::thread::available_parallelism()?);
    for kind in BrokerKind::ALL {
        if !wanted(kind.name(), &brokers) {
            continue;
        }
        // Named by the user, it has to be there.
        if !kind.is_there() && !named.iter().any(|named| named == kind.name()) {
            println!(
                "{kind}: left out: no server, or none for its ledger: set MILLRACE_TEST_{}_URL",
                kind.name().to_uppercase()
            );
            continue;
        }
        if wanted("submits", &MEASUREMENTS) {
            submits::run(kind).await?;
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
        // The same on every broker.
        if kind == BrokerKind::Embedded && wanted("digits", &MEASUREMENTS) {
            digits::run().await?;
        }
        if kind == BrokerKind::Embedded && wanted("curve", &MEASUREMENTS) {
            curve::run().await?;
        }
    }
    Ok(())
}
