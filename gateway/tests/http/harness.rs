//! A running gateway, and a worker that the test controls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gateway::{Gateway, GatewaySettings, Pool};
use model::{InputCheck, Manifest};
use queue::{
    Blobs, Body, Broker, Claim, ClaimRequest, Clock, Consumer, ErrorKind, Finish, Job, JobError, Ledger, Outcome,
    Output, PoolName, Settlement, WorkerId,
};
use queue_embedded::StoreOptions;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use service::{Health, Period};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::doubles::{Call, FlakyProducer, ForgetPause, Gate, ObservedLedger, text_model};

/// The limits of a body and of an inline input. They are small, so that a short text exceeds them.
pub(crate) const MAX_BODY_BYTES: usize = 4096;
pub(crate) const INLINE_BYTES: usize = 64;

pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) consumer: Arc<dyn Consumer>,
    pub(crate) blobs: Blobs,
    pub(crate) clock: Clock,
    pub(crate) health: Health,
    pub(crate) broker_unavailable: Arc<AtomicBool>,
    pub(crate) ledger_error: Arc<std::sync::Mutex<Option<ErrorKind>>>,
    pub(crate) forget_pause: ForgetPause,
    pub(crate) gate: Arc<Gate>,
    pub(crate) calls: UnboundedReceiver<Call>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
    pub(crate) folder: TempDir,
}

/// A gateway with the pools `text`, `digits` and `gated`, whose jobs have two attempts.
pub(crate) async fn start() -> TestGateway {
    start_with(GatewaySettings::default()).await
}

/// A gateway whose long polls end soon.
pub(crate) async fn start_with_short_polls() -> TestGateway {
    start_with(GatewaySettings { max_wait: Period::millis(50), ..GatewaySettings::default() }).await
}

pub(crate) async fn start_with(settings: GatewaySettings) -> TestGateway {
    launch(GatewaySettings { max_body: service::ByteSize::bytes(MAX_BODY_BYTES as u64), ..settings }).await
}

/// A gateway with these settings, whatever the size of a body.
pub(crate) async fn launch(settings: GatewaySettings) -> TestGateway {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions::new(folder.path().join("data"));
    let clock = Clock::manual(jiff::Timestamp::now());
    let backend = queue_embedded::open(&options, clock.clone()).unwrap();
    let blobs = Blobs::directory(&folder.path().join("blobs"), INLINE_BYTES).unwrap();

    let (sender, calls) = unbounded_channel();
    let (ledger_error, forget_pause) = (Arc::default(), ForgetPause::default());
    let ledger = ObservedLedger {
        ledger: Arc::clone(&backend.ledger),
        calls: sender,
        ledger_error: Arc::clone(&ledger_error),
        forget_pause: Arc::clone(&forget_pause),
    };
    let broker_unavailable = Arc::new(AtomicBool::new(false));
    let producer = backend.broker.producer().await.unwrap();
    let producer = FlakyProducer { producer, unavailable: Arc::clone(&broker_unavailable) };
    let pool = Pool {
        input_check: InputCheck::new(text_model),
        max_attempts: 2,
        retention: Duration::from_secs(3600),
        deadline: None,
    };
    let (health, gate) = (Health::new(), Arc::new(Gate::default()));
    let gateway = Gateway {
        pools: [
            (pool_name(), pool.clone()),
            ("digits".parse().unwrap(), digits(pool.clone())),
            ("gated".parse().unwrap(), gated(pool, Arc::clone(&gate))),
        ]
        .into(),
        ledger: Arc::new(ledger),
        producer: Arc::new(producer),
        blobs: blobs.clone(),
        settings,
        health: health.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    TestGateway {
        address,
        client: client::plain_http().unwrap().build().unwrap(),
        ledger: backend.ledger,
        consumer: backend.broker.consumer(&pool_name()).await.unwrap(),
        broker: backend.broker,
        blobs,
        clock,
        health,
        broker_unavailable,
        ledger_error,
        forget_pause,
        gate,
        calls,
        serving: tokio::spawn(gateway::run(listener, gateway, stop.clone())),
        stop,
        folder,
    }
}

/// A pool like `pool` with a real model, which takes images and tensors.
fn digits(pool: Pool) -> Pool {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/digits/1");
    Pool { input_check: InputCheck::by_manifest(Manifest::read(folder.as_ref()).unwrap()), ..pool }
}

/// A pool like `pool` whose inputs are checked when the test opens the gate.
fn gated(pool: Pool, gate: Arc<Gate>) -> Pool {
    let check = move |_: &str, _: &[u8]| {
        gate.pass();
        Ok(())
    };
    Pool { input_check: InputCheck::new(check), ..pool }
}

pub(crate) fn pool_name() -> PoolName {
    "text".parse().unwrap()
}

/// The error of a model that refuses its input.
pub(crate) fn error() -> JobError {
    JobError { kind: "model_error".to_owned(), message: "out of luck".to_owned() }
}

pub(crate) fn text(body: &'static str) -> Output {
    Output { media_type: "text/plain".to_owned(), body: Body::Inline(body.into()) }
}

impl TestGateway {
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    /// A submission of a text.
    pub(crate) fn submission(&self, query: &str, body: &'static str) -> RequestBuilder {
        self.post(&format!("/v1/pools/text/jobs{query}")).header("content-type", "text/plain").body(body)
    }

    /// Submits a text under an id.
    pub(crate) async fn submit(&self, id: &str, body: &'static str) -> Response {
        self.submission(&format!("?id={id}"), body).send().await.unwrap()
    }

    /// Receives one job, as a worker does, and ends it with `outcome`.
    pub(crate) async fn work(&self, outcome: Outcome) -> Job {
        let delivery = self.consumer.receive(1).await.unwrap().pop().unwrap();
        let job = delivery.job.clone();
        if let Claim::Granted { lease, .. } = self.claim(&job).await {
            self.ledger.finish(vec![Finish { lease, outcome }]).await.unwrap();
        }
        self.consumer.settle(vec![(delivery, Settlement::Ack)]).await.unwrap();
        job
    }

    /// Claims a job, as a worker does.
    pub(crate) async fn claim(&self, job: &Job) -> Claim {
        let request = ClaimRequest::new(job.clone(), false);
        let worker = WorkerId::new("worker-1");
        self.ledger.claim(&worker, vec![request], Duration::from_secs(30)).await.unwrap().pop().unwrap()
    }

    /// The number of jobs that wait in the broker.
    pub(crate) async fn waiting(&self) -> u64 {
        self.broker.gauge().await.unwrap().depths(&[pool_name()]).await.remove(0).unwrap().waiting()
    }

    /// The number of blobs in the store, without its marker.
    pub(crate) fn blob_count(&self) -> usize {
        fn files(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
            entries
                .filter(|path| !path.ends_with("millrace-store"))
                .map(|path| if path.is_dir() { files(&path) } else { 1 })
                .sum()
        }
        files(&self.folder.path().join("blobs"))
    }

    /// Sends raw bytes, and reads until the gateway closes the connection.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// A problem document. Its form is checked.
pub(crate) async fn problem(response: Response) -> Value {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["status"], status);
    assert!(document["title"].is_string() && document["detail"].is_string(), "{document}");
    document
}

/// The status of a problem, and the last part of its type.
pub(crate) async fn problem_name(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let document = problem(response).await;
    let urn = document["type"].as_str().unwrap();
    (status, urn.strip_prefix("urn:millrace:problem:").unwrap().to_owned())
}
