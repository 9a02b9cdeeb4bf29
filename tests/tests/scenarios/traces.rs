//! The traces of jobs, as a collector receives them from the processes.

mod collector;

use millrace_tests::{BrokerKind, Gateway, Process, System};
use opentelemetry_proto::tonic::trace::v1::Span;
use queue::JobId;
use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

use collector::{Collector, Spans, attribute, events};

/// The trace and the span of a client.
const TRACE: [u8; 16] = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
const CLIENT: [u8; 8] = 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes();
const TRACE_PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

/// A configuration whose processes export to `collector`, with a pool `echo` of this model.
fn yaml(collector: &Collector, model: &str) -> String {
    format!(
        "telemetry: {{format: json, tracing: {{endpoint: '{}'}}}}\n\
         pools: {{echo: {{model: '{model}', jobs: {{max_attempts: 2}}, worker: {{retry_initial: 100ms}}}}}}",
        collector.url
    )
}

async fn ready_worker(system: &System) -> Process {
    let worker = system.start("worker", &["--pool", "echo"]).unwrap();
    worker.prints(r#""message":"ready""#).await.unwrap();
    worker
}

/// Submits a job within the trace of the client. Returns its id.
async fn submit(gateway: &Gateway, flags: &str, body: &'static str) -> String {
    let request = gateway.request(Method::POST, "/v1/pools/echo/jobs").header("content-type", "text/plain");
    let response = request.header("traceparent", format!("{TRACE_PARENT}-{flags}")).body(body).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let job: Value = response.json().await.unwrap();
    job["id"].as_str().unwrap().to_owned()
}

/// Stops processes in order. So they export their last spans.
async fn stopped(processes: impl IntoIterator<Item = Process>) {
    for process in processes {
        process.terminate().unwrap();
        let (status, output) = process.ended().await.unwrap();
        assert!(status.success(), "{output}");
    }
}

fn parents<'s>(spans: &'s Spans, name: &str) -> Vec<&'s [u8]> {
    spans.named(name).into_iter().map(|span| &span.parent_span_id[..]).collect()
}

async fn one_trace_leads_from_the_request_to_the_settlement(broker: BrokerKind) {
    let collector = Collector::start().await;
    let system = System::on(broker, &yaml(&collector, "echo")).unwrap();
    let gateway = system.gateway().await.unwrap();
    let worker = ready_worker(&system).await;
    let id = submit(&gateway, "01", "hello").await;
    assert_eq!(gateway.ended(&id).await.unwrap()["state"], "succeeded");
    // A client that records nothing decides for its jobs too.
    let unrecorded = submit(&gateway, "00", "hello").await;
    assert_eq!(gateway.ended(&unrecorded).await.unwrap()["state"], "succeeded");
    stopped([gateway.process, worker]).await;

    let all = collector.spans();
    all.assert_whole(&CLIENT);
    let spans = all.of_trace(&TRACE);
    let names =
        ["POST /v1/pools/{pool}/jobs", "infer echo", "process echo", "publish echo", "receive echo", "settle echo"];
    assert_eq!(spans.names(), names);
    let request = spans.one(names[0]);
    assert_eq!(request.parent_span_id, CLIENT);
    assert_eq!(attribute(request, "http.response.status_code"), "202");
    let (publish, process) = (spans.one("publish echo"), spans.one("process echo"));
    assert_eq!(publish.parent_span_id, request.span_id);
    assert_eq!(parents(&spans, "receive echo"), [&publish.span_id[..]]);
    assert_eq!(process.parent_span_id, publish.span_id);
    assert_eq!(parents(&spans, "infer echo"), [&process.span_id[..]]);
    assert_eq!(parents(&spans, "settle echo"), [&process.span_id[..]]);
    for (span, key, value) in [
        (publish, "messaging.message.id", id.as_str()),
        (publish, "messaging.operation.type", "send"),
        (process, "messaging.message.id", id.as_str()),
        (process, "messaging.destination.name", "echo"),
        (process, "attempt", "1"),
        (process, "outcome", "succeeded"),
    ] {
        assert_eq!(attribute(span, key), value);
    }
    assert!(process.end_time_unix_nano >= spans.one("settle echo").end_time_unix_nano);
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_one_trace_leads_from_the_request_to_the_settlement() {
    one_trace_leads_from_the_request_to_the_settlement(BrokerKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_one_trace_leads_from_the_request_to_the_settlement() {
    one_trace_leads_from_the_request_to_the_settlement(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_of_a_job_is_part_of_its_trace() {
    let collector = Collector::start().await;
    let system = System::new(&yaml(&collector, "echo-faults")).unwrap();
    let gateway = system.gateway().await.unwrap();
    let worker = ready_worker(&system).await;
    let id = submit(&gateway, "01", "fail:model").await;
    assert_eq!(gateway.ended(&id).await.unwrap()["state"], "dead");
    stopped([gateway.process, worker]).await;

    let all = collector.spans();
    all.assert_whole(&CLIENT);
    let spans = all.of_trace(&TRACE);
    let publish = &spans.one("publish echo").span_id[..];
    assert_eq!(parents(&spans, "receive echo"), [publish; 2]);
    assert_eq!(parents(&spans, "process echo"), [publish; 2]);
    let attempts = spans.named("process echo");
    let described = |span: &Span| (attribute(span, "attempt"), attribute(span, "error.type"));
    assert_eq!(
        attempts.iter().map(|span| described(span)).collect::<Vec<_>>(),
        [("1".to_owned(), "model_error".to_owned()), ("2".to_owned(), "model_error".to_owned())]
    );
    assert_eq!(attempts.iter().flat_map(|span| events(span)).collect::<Vec<_>>(), ["retry", "dead"]);
    let of_attempts: Vec<&[u8]> = attempts.iter().map(|span| &span.span_id[..]).collect();
    assert_eq!(parents(&spans, "infer echo"), of_attempts);
    assert_eq!(parents(&spans, "settle echo"), of_attempts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_eight_is_linked_to_its_jobs() {
    let collector = Collector::start().await;
    let system = System::new(&yaml(&collector, "echo:200ms:8")).unwrap();
    let gateway = system.gateway().await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..24 {
        ids.push(gateway.accepted("echo", "text/plain", b"hello".to_vec()).await.unwrap());
    }
    // While the first batch runs, more than eight jobs get ready.
    let worker = ready_worker(&system).await;
    for id in &ids {
        assert_eq!(gateway.ended(id).await.unwrap()["state"], "succeeded");
    }
    stopped([gateway.process, worker]).await;

    let spans = collector.spans();
    spans.assert_whole(&[]);
    let of_span = |id: &[u8]| spans.0.iter().find(|span| span.span_id == id).unwrap();
    let mut of_batches = Vec::new();
    let batches = spans.named("infer echo");
    for batch in &batches {
        let jobs: Vec<&Span> = batch.links.iter().map(|link| of_span(&link.span_id)).collect();
        assert_eq!(attribute(batch, "messaging.batch.message_count"), jobs.len().to_string());
        let (first, others) = jobs.split_first().unwrap();
        assert_eq!(batch.parent_span_id, first.span_id);
        for other in others {
            assert_eq!(other.links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), [&batch.span_id]);
        }
        of_batches.extend(jobs.iter().map(|job| attribute(job, "messaging.message.id")));
    }
    assert!(batches.iter().any(|batch| batch.links.len() == 8), "{batches:#?}");
    of_batches.sort_unstable();
    ids.sort_unstable();
    assert_eq!(of_batches, ids);
    assert_eq!(spans.named("publish echo").len(), ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_and_an_expired_one_show_how_they_ended() {
    let collector = Collector::start().await;
    let system = System::new(&yaml(&collector, "echo")).unwrap();
    let gateway = system.gateway().await.unwrap();
    let cancelled = submit(&gateway, "01", "hello").await;
    let cancel = gateway.request(Method::POST, &format!("/v1/jobs/{cancelled}/cancel")).send().await.unwrap();
    assert_eq!(cancel.status(), 200);
    let expired = gateway.submit("echo?deadline=1ms", "text/plain", "hello").await.unwrap();
    let expired: Value = expired.json().await.unwrap();
    let expired = expired["id"].as_str().unwrap();
    let worker = ready_worker(&system).await;
    assert_eq!(gateway.ended(expired).await.unwrap()["state"], "expired");
    let last = submit(&gateway, "01", "hello").await;
    assert_eq!(gateway.ended(&last).await.unwrap()["state"], "succeeded");
    stopped([gateway.process, worker]).await;

    let spans = collector.spans();
    spans.assert_whole(&CLIENT);
    let receive = |id: &str| {
        let of_job = spans.named("receive echo").into_iter().find(|span| attribute(span, "messaging.message.id") == id);
        events(of_job.unwrap())
    };
    assert_eq!(receive(&cancelled), ["cancelled"]);
    assert_eq!(receive(expired), ["expired"]);
    assert_eq!(receive(&last), Vec::<&str>::new());
}

/// A program without this project's code publishes the jobs, so there is no request.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_the_trace_of_an_event_goes_on_and_its_log_lines_name_it() {
    let collector = Collector::start().await;
    let urls = BrokerKind::Kafka.urls().unwrap().unwrap();
    let servers = urls.broker.trim_start_matches("kafka://").split('?').next().unwrap().to_owned();
    let topic = format!("jobs-{}", JobId::generate());
    let pool = format!("model: echo, jobs_from: [{topic}]");
    let system = System::at(urls, &yaml(&collector, "echo").replace("model: 'echo'", &pool)).unwrap();
    let gateway = system.gateway().await.unwrap();
    // The worker creates missing topics.
    let worker = ready_worker(&system).await;
    let push = async |id: &str, more: &[&str]| {
        let id = format!("ce_id={id}");
        let headers = ["ce_specversion=1.0", "ce_type=test", "ce_source=/test", &id, "content-type=text/plain"];
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &servers, "-t", &topic, "-P", "-e"]);
        kcat.args(headers.iter().chain(more).flat_map(|header| ["-H", header]));
        let body = system.folder().join("body");
        std::fs::write(&body, "hello").unwrap();
        assert!(kcat.arg(body).kill_on_drop(true).status().await.unwrap().success());
        let id = id.trim_start_matches("ce_id=");
        JobId::of_event(&"echo".parse().unwrap(), "/test", id).unwrap()
    };
    let ended = async |id: &JobId| {
        let found = millrace_tests::until("the job is recorded and has ended", || async {
            let found = gateway.request(Method::GET, &format!("/v1/jobs/{id}")).send().await?;
            let job: Value = found.json().await?;
            Ok(job["finished_at"].is_string().then_some(job))
        });
        assert_eq!(found.await.unwrap()["state"], "succeeded");
    };
    // The span of a batch belongs to the trace of its first job, so each job has a batch of its own.
    let traced = push("traced", &[&format!("ce_traceparent={TRACE_PARENT}-01")]).await;
    ended(&traced).await;
    let untraced = push("untraced", &[]).await;
    ended(&untraced).await;
    push("unreadable", &["ce_expirytime=soon"]).await;
    let line: Value = serde_json::from_str(&worker.prints("cannot read a message").await.unwrap()).unwrap();
    stopped([gateway.process, worker]).await;

    let all = collector.spans();
    all.assert_whole(&CLIENT);
    let spans = all.of_trace(&TRACE);
    assert_eq!(spans.names(), ["infer echo", "process echo", "receive echo", "settle echo"]);
    assert_eq!(parents(&spans, "receive echo"), [&CLIENT]);
    assert_eq!(parents(&spans, "process echo"), [&CLIENT]);
    // An event without a trace begins one with its receipt.
    let of = |id: &JobId| {
        let is_of_job = |span: &&&Span| attribute(span, "messaging.message.id") == id.as_str();
        let receive = *all.named("receive echo").iter().find(is_of_job).unwrap();
        (receive, *all.named("process echo").iter().find(is_of_job).unwrap())
    };
    let (receive, process) = of(&untraced);
    assert!(receive.parent_span_id.is_empty());
    assert_eq!(process.parent_span_id, receive.span_id);

    let unreadable: JobId = line["job"].as_str().unwrap().parse().unwrap();
    let (_, process) = of(&unreadable);
    assert_eq!(
        (attribute(process, "outcome"), attribute(process, "error.type")),
        ("dead".to_owned(), "unreadable_message".to_owned())
    );
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(line["trace_id"], hex(&process.trace_id), "{line}");
    assert_eq!(line["span_id"], hex(&process.span_id), "{line}");
    assert_eq!((&line["span"]["job"], &line["span"]["pool"]), (&line["job"], &"echo".into()), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_gateway_does_not_record_is_not_recorded_by_its_worker_either() {
    let collector = Collector::start().await;
    let system = System::new(&yaml(&collector, "echo")).unwrap();
    let gateway = system.start("gateway", &["--set", "telemetry.tracing.sample_ratio=0"]).unwrap();
    let line = gateway.prints("gateway http://").await.unwrap();
    let client = client::Gateway::new(line.strip_prefix("gateway ").unwrap(), &client::Tls::default()).unwrap();
    // This worker records every job that has no trace.
    let worker = ready_worker(&system).await;
    let (pool, media_type) = ("echo".to_owned(), "text/plain".to_owned());
    let job = client::NewJob { pool, media_type, body: "hello".into(), class: None, deadline: None };
    client.run("a", &job, std::time::Duration::from_secs(60)).await.unwrap();
    stopped([gateway, worker]).await;
    assert_eq!(collector.spans().names(), [""; 0]);
}
