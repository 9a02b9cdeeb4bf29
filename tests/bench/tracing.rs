//! The cost of traces: one load without a collector, and with one that is given several shares of the jobs.

use std::time::Duration;

use anyhow::Context;
use millrace_tests::{BrokerKind, Process, System};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::cpu::micros;
use crate::drain::drained_per_second;
use crate::submits::submit;

/// The share of jobs whose traces are recorded. `None`: there is no collector.
const RATIOS: [Option<&str>; 4] = [None, Some("0"), Some("0.01"), Some("1")];
/// Each pass measures every ratio once, and the next pass in the opposite order, so that a slow drift cancels out.
const PASSES: usize = 8;
const TIME: Duration = Duration::from_secs(3);
const BODY: &[u8] = &[b'x'; 256];

/// Processor time per job of the gateway and of the worker, in µs; submitted and drained jobs per second.
type Figures = [f64; 4];
const FIGURES: [&str; 4] = ["gateway CPU per job", "worker CPU per job", "submits/s", "drained/s"];

/// A collector that takes every span and drops it.
struct Sink;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Submits jobs and drains them, in turn with each ratio. Prints each figure as a multiple of that without a collector.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Sink));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut passes = Vec::new();
    for pass in 0..PASSES {
        let mut figures = [Figures::default(); RATIOS.len()];
        for turn in 0..RATIOS.len() {
            let at = if pass % 2 == 0 { turn } else { RATIOS.len() - 1 - turn };
            figures[at] = measure(&url, RATIOS[at]).await?;
        }
        passes.push(figures);
    }
    println!("tracing: {PASSES} passes; the median, and in brackets the range, of each pass relative to no collector");
    for (at, ratio) in RATIOS.iter().enumerate() {
        let name = ratio.map_or_else(|| "no collector".to_owned(), |ratio| format!("sample_ratio {ratio}"));
        let figure = |of: usize| {
            let absolute = spread(passes.iter().map(|pass| pass[at][of])).1;
            let (least, median, most) = spread(passes.iter().map(|pass| pass[at][of] / pass[0][of]));
            format!("{} {absolute:.1}: {median:.3} ({least:.3} to {most:.3})", FIGURES[of])
        };
        println!("{name:>18}  {}", (0..FIGURES.len()).map(figure).collect::<Vec<_>>().join("; "));
    }
    Ok(())
}

async fn measure(collector: &str, ratio: Option<&str>) -> anyhow::Result<Figures> {
    let tracing =
        ratio.map(|ratio| format!("telemetry: {{tracing: {{endpoint: '{collector}', sample_ratio: {ratio}}}}}"));
    let system = System::on(
        BrokerKind::Embedded,
        &format!("pools: {{echo: {{model: echo}}}}\n{}", tracing.unwrap_or_default()),
    )?;
    let gateway = system.gateway().await?;
    let used_before = used(&gateway.process)?;
    let submits = submit(&gateway.url, BODY, TIME).await?;
    let of_gateway = used(&gateway.process)? - used_before;
    drop(gateway);
    let backend = system.backend().await?;
    let worker = system.worker("echo").await?;
    // The worker's start counts too. It is the same with every ratio.
    let drained = drained_per_second(&backend, &"echo".parse()?).await?;
    let of_worker = used(&worker)?;
    let per_job = |micros: u64| micros as f64 / submits.len() as f64;
    Ok([per_job(of_gateway), per_job(of_worker), submits.per_second(), drained])
}

/// The processor time of a process so far, in µs.
fn used(process: &Process) -> anyhow::Result<u64> {
    micros(process.pid().context("the process has ended")?)
}

/// The least value, the median and the largest.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}
