//! The contract over real gRPC. The scenarios of the whole system (`tests/tests/scenarios/keda.rs`) number its rules
//! alike.

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::FutureExt;
use queue::Result;
use queue::WorkerState;
use service::Period;
use tonic::Code;

use super::*;
use harness::*;

/// C1.
#[tokio::test]
async fn all_five_calls_are_served_and_integers_are_filled_for_clients_that_read_only_those() {
    let mut scaler = running(quick(), five()).await;
    let spec = scaler.spec(digits()).await;
    assert_eq!((spec.target_size, spec.target_size_float), (3, 2.5));
    let value = scaler.value().await.unwrap();
    assert_eq!((value.metric_value, value.metric_value_float), (5, 5.0));
    assert!(scaler.active().await.unwrap());
    let mut pushes = scaler.client.stream_is_active(digits()).await.unwrap().into_inner();
    assert!(pushes.message().await.unwrap().unwrap().result);
    let mut specs = scaler.client.stream_metric_spec(digits()).await.unwrap().into_inner();
    assert_eq!(specs.message().await.unwrap().unwrap().metric_specs, [spec]);
    scaler.finish().await;
}

/// C2.
#[tokio::test]
async fn the_name_of_the_metric_is_constant_and_without_special_characters() {
    let mut scaler = running(quick(), five()).await;
    let name = scaler.spec(digits()).await.metric_name;
    assert_eq!(scaler.value().await.unwrap().metric_name, name);
    scaler.fake.set("digits", Numbers { reaction: Reaction::Fail, ..Numbers::default() });
    assert_eq!(scaler.spec(digits()).await.metric_name, name);
    assert_eq!(scaler.value().await.unwrap().metric_name, name);

    let longest: PoolName = "x".repeat(63).parse().unwrap();
    for name in [name, metric_name(&longest)] {
        assert!(!name.is_empty() && name.len() <= 200 && !name.contains(['/', '%']), "{name}");
    }
    scaler.finish().await;
}

/// C3.
#[tokio::test]
async fn only_the_requested_metric_is_answered() {
    let mut scaler = running(quick(), five()).await;
    for name in ["", "s0-millrace-digits", "millrace-letters"] {
        let status = scaler.client.get_metrics(metrics_of(digits(), name)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), format!("metricName: {name:?} is not \"millrace-digits\""));
    }
    let no_object = GetMetricsRequest { scaled_object_ref: None, metric_name: "millrace-digits".to_owned() };
    assert_eq!(scaler.client.get_metrics(no_object).await.unwrap_err().code(), Code::InvalidArgument);
    scaler.finish().await;
}

/// C4.
#[tokio::test]
async fn a_target_is_never_below_a_thousandth_and_its_integer_never_below_one() {
    let mut scaler = running(quick(), five()).await;
    for (text, float, integer) in [("0.001", 0.001, 1), ("1", 1.0, 1), ("1.5", 1.5, 2), ("1e6", 1e6, 1_000_000)] {
        let spec = scaler.spec(object(&[("pool", "digits"), ("value", text)])).await;
        assert_eq!((spec.target_size_float, spec.target_size), (float, integer));
    }
    for bad in ["0", "-1", "NaN", "many"] {
        let wrong = object(&[("pool", "digits"), ("value", bad)]);
        let status = scaler.client.get_metric_spec(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), format!("value: {bad:?} is not a number of at least 0.001"));
    }
    scaler.finish().await;
}

/// C5.
#[tokio::test]
async fn a_value_is_finite_and_zero_only_when_there_is_no_work() {
    let mut scaler = running(quick(), Numbers::default()).await;
    let value = scaler.value().await.unwrap();
    assert_eq!((value.metric_value_float, value.metric_value), (0.0, 0));
    scaler.fake.set("digits", Numbers { waiting: u64::MAX, ..Numbers::default() });
    let most = scaler.until(|answer| answer.as_ref().is_ok_and(|value| value.metric_value > 0)).await.unwrap();
    assert!(most.metric_value_float.is_finite() && most.metric_value_float > 1e18);
    scaler.finish().await;
}

/// C6.
#[tokio::test]
async fn when_the_broker_fails_the_last_value_is_used_until_it_is_too_old_and_then_the_answer_is_an_error() {
    let settings = ScalerSettings { max_reading_age: Period::millis(100), ..quick() };
    let mut scaler = running(settings, five()).await;
    scaler.until(Result::is_ok).await.unwrap();
    scaler.fake.set("digits", Numbers { reaction: Reaction::Fail, ..Numbers::default() });
    let status = scaler
        .until(|answer| {
            assert!(answer.as_ref().map_or(true, |value| value.metric_value == 5), "{answer:?}");
            answer.is_err()
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().ends_with(": the ledger is unavailable"), "{status}");
    assert_eq!(scaler.active().await.unwrap_err().code(), Code::Unavailable);

    scaler.fake.set("digits", five());
    assert_eq!(scaler.until(Result::is_ok).await.unwrap().metric_value, 5);
    scaler.finish().await;
}

/// C6, C17.
#[tokio::test]
async fn a_broker_that_never_answered_is_an_error_without_its_password() {
    let mut scaler = running(quick(), Numbers { reaction: Reaction::Fail, ..Numbers::default() }).await;
    let status = scaler.value().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "pool digits: there is no reading yet: the ledger is unavailable");
    assert_eq!(scaler.active().await.unwrap_err().code(), Code::Unavailable);
    scaler.finish().await;
}

/// C6.
#[tokio::test]
async fn an_unknown_pool_is_an_error() {
    let mut scaler = running(quick(), five()).await;
    let unknown = || object(&[("pool", "numbers")]);
    let status = scaler.client.get_metrics(metrics_of(unknown(), "millrace-numbers")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "pool: \"numbers\" is not a pool of this scaler");
    assert_eq!(scaler.client.is_active(unknown()).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(scaler.client.stream_is_active(unknown()).await.unwrap_err().code(), Code::InvalidArgument);
    scaler.finish().await;
}

/// C6, C8.
#[tokio::test]
async fn a_pool_whose_broker_hangs_is_an_error_in_time() {
    let settings = ScalerSettings { answer_timeout: Period::millis(50), ..quick() };
    let mut scaler = running(settings, Numbers { reaction: Reaction::Hang, ..Numbers::default() }).await;
    let status = scaler.value().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "pool digits: there is no reading yet");
    scaler.finish().await;
}

/// C8.
#[tokio::test]
async fn a_read_that_hangs_is_cancelled_and_repeated() {
    let settings = ScalerSettings { read_timeout: Period::millis(20), ..quick() };
    let mut scaler = running(settings, Numbers { reaction: Reaction::Hang, ..Numbers::default() }).await;
    let status = scaler.value().await.unwrap_err();
    assert_eq!(status.message(), "pool digits: there is no reading yet: the ledger did not answer within 20ms");
    scaler.fake.set("digits", five());
    assert_eq!(scaler.until(Result::is_ok).await.unwrap().metric_value, 5);
    scaler.finish().await;
}

/// A scaler that is called without a connection.
fn without_a_port(fake: &Arc<Fake>) -> Scaler {
    let sampler = Sampler::start(pools().into_keys(), &sources(fake), &quick());
    Scaler { settings: quick(), pools: pools(), sampler, journal: Journal::default(), stop: CancellationToken::new() }
}

/// C7. The answer is ready at the first poll, so the call waited for nothing.
#[tokio::test]
async fn the_spec_is_answered_with_every_broker_down_and_without_waiting() {
    let fake = Arc::new(Fake::default());
    fake.set("digits", Numbers { reaction: Reaction::Hang, ..Numbers::default() });
    let scaler = without_a_port(&fake);
    let answer = scaler.get_metric_spec(Request::new(digits())).now_or_never();
    let specs = answer.expect("the call waits").unwrap().into_inner().metric_specs;
    assert_eq!(specs[0].target_size_float, 2.5);
}

/// C7, C20.
#[tokio::test]
async fn a_scaler_is_ready_and_answers_its_spec_while_its_broker_is_down() {
    let mut scaler = running(quick(), Numbers { reaction: Reaction::Hang, ..Numbers::default() }).await;
    assert_eq!(scaler.spec(digits()).await.metric_name, "millrace-digits");
    assert!(scaler.health.is_ready());
    scaler.finish().await;
}

/// C10. The broker becomes empty after the reading and then hangs. Both calls still use the reading.
#[tokio::test]
async fn the_value_and_the_activity_come_from_one_reading() {
    let mut scaler = running(quick(), five()).await;
    scaler.until(Result::is_ok).await.unwrap();
    scaler.fake.set("digits", Numbers { reaction: Reaction::Hang, ..Numbers::default() });
    assert_eq!(scaler.value().await.unwrap().metric_value, 5);
    assert!(scaler.active().await.unwrap());
    scaler.fake.set("digits", Numbers::default());
    scaler.finish().await;
}

/// C10, C11.
#[tokio::test]
async fn a_pool_is_active_with_work_or_a_lease_or_a_loading_worker() {
    let none = Numbers::default();
    let cases = [
        (none.clone(), false),
        (Numbers { workers: vec![WorkerState::Idle], ..none.clone() }, false),
        (Numbers { waiting: 1, ..none.clone() }, true),
        (Numbers { retry: 1, ..none.clone() }, true),
        (Numbers { leased: 1, ..none.clone() }, true),
        (Numbers { workers: vec![WorkerState::Loading], ..none }, true),
    ];
    for (numbers, active) in cases {
        let mut scaler = running(quick(), numbers.clone()).await;
        assert_eq!(scaler.active().await.unwrap(), active, "{numbers:?}");
        scaler.finish().await;
    }
    let mut scaler = running(quick(), five()).await;
    let reluctant = object(&[("pool", "digits"), ("activationValue", "5")]);
    let active = scaler.client.is_active(reluctant).await.unwrap().into_inner().result;
    assert!(active, "a lease makes the pool active whatever the activation is");
    scaler.finish().await;
}

/// C12, C13.
#[tokio::test]
async fn a_push_stream_sends_the_state_then_changes_and_ends_with_ok_when_the_scaler_stops() {
    let busy = || Numbers { workers: vec![WorkerState::Busy], ..five() };
    let mut scaler = running(quick(), Numbers::default()).await;
    let mut one = scaler.client.stream_is_active(digits()).await.unwrap().into_inner();
    let mut other = scaler.client.stream_is_active(digits()).await.unwrap().into_inner();
    assert!(!one.message().await.unwrap().unwrap().result);
    assert!(!other.message().await.unwrap().unwrap().result);
    drop(other);
    scaler.fake.set("digits", busy());
    assert!(one.message().await.unwrap().unwrap().result);
    scaler.stop.cancel();
    assert!(one.message().await.unwrap().is_none());
    scaler.finish().await;
}

/// 300 s of work for one worker, of 90 jobs per second: 5 cold starts. Without arrivals, and with 5 % of late jobs allowed,
/// the extra workers of mode latency are 5 × √10: 16.
fn backlog_without_workers() -> Numbers {
    let batch_limit_items = 90;
    let measured = queue::Measured {
        batch_base_seconds: 0.1,
        batch_item_seconds: 0.01,
        batch_limit_items,
        cold_start_seconds: 60.0,
    };
    Numbers { waiting: 27_000, measured: Some(measured), ..Numbers::default() }
}

fn latency_of_five_seconds() -> ScaledObjectRef {
    object(&[("pool", "digits"), ("mode", "latency"), ("latency", "5s")])
}

#[tokio::test]
async fn a_scaler_that_starts_without_workers_uses_the_measurements_of_earlier_workers_at_once() {
    let mut scaler = running(quick(), backlog_without_workers()).await;
    assert_eq!(scaler.value_of(latency_of_five_seconds()).await.unwrap().metric_value, 16);
    scaler.finish().await;
    let mut scaler = running(quick(), Numbers { measured: None, ..backlog_without_workers() }).await;
    assert_eq!(scaler.value_of(latency_of_five_seconds()).await.unwrap().metric_value, 1);
    scaler.finish().await;
}

#[tokio::test]
async fn a_roster_without_an_answer_about_earlier_measurements_delays_no_reading_and_is_asked_again() {
    let settings = ScalerSettings { read_timeout: Period::millis(20), ..quick() };
    for recall in [Reaction::Fail, Reaction::Hang] {
        let mut scaler = running(settings.clone(), Numbers { recall, ..backlog_without_workers() }).await;
        assert_eq!(scaler.value_of(latency_of_five_seconds()).await.unwrap().metric_value, 1);
        scaler.fake.set("digits", backlog_without_workers());
        let sixteen = |answer: &Result<MetricValue, Status>| answer.as_ref().unwrap().metric_value == 16;
        scaler.until_of(latency_of_five_seconds(), sixteen).await.unwrap();
        let recalls = scaler.fake.recalls.load(Ordering::Relaxed);
        assert!(recalls > 1, "{recalls}");
        scaler.fake.set("digits", Numbers { waiting: 32_400, ..backlog_without_workers() });
        // 6 cold starts of work.
        let more = |answer: &Result<MetricValue, Status>| answer.as_ref().unwrap().metric_value > 16;
        scaler.until_of(latency_of_five_seconds(), more).await.unwrap();
        assert_eq!(scaler.fake.recalls.load(Ordering::Relaxed), recalls, "known measurements are requested again");
        scaler.finish().await;
    }
}

/// C12. The pool does not change meanwhile, so only the schedule wakes the stream.
#[tokio::test]
async fn a_floor_is_pushed_when_it_begins_and_again_when_it_begins_after_its_end() {
    let fake = Arc::new(Fake::default());
    let scaler = without_a_port(&fake);
    // The clock of the schedule follows real time, one hour ahead when the test sets it. It reports every call.
    let (began, start) = (Instant::now(), "2026-01-05T00:29:57Z".parse::<Timestamp>().unwrap());
    let hours_ahead = Arc::new(AtomicU32::new(0));
    let (report, mut reported) = mpsc::unbounded_channel();
    let ahead = Arc::clone(&hours_ahead);
    let clock = move || {
        let now = start + began.elapsed() + Duration::from_secs(3600) * ahead.load(Ordering::SeqCst);
        let _ = report.send(now);
        now
    };
    let object = object(&[("pool", "digits"), ("schedule", "30 0 * * * UTC for 5s = 2; 0 1 * * * UTC for 1h = 2")]);
    let mut pushed = scaler.push(&object, clock).unwrap();
    let mut next = async || {
        let message = timeout(Duration::from_secs(30), tokio_stream::StreamExt::next(&mut pushed)).await;
        message.expect("nothing is pushed").unwrap().unwrap().result
    };
    assert!(!next().await);
    assert!(next().await);
    assert!(began.elapsed() >= Duration::from_secs(3));

    // The end of the floor wakes the stream too. It reads the clock for the state and again for the next change.
    let end: Timestamp = "2026-01-05T00:30:05Z".parse().unwrap();
    for _ in 0..2 {
        let reads = async { while reported.recv().await.unwrap() < end {} };
        timeout(Duration::from_secs(30), reads).await.expect("the end does not wake the stream");
    }
    hours_ahead.store(1, Ordering::SeqCst);
    fake.set("digits", Numbers { workers: vec![WorkerState::Idle], ..Numbers::default() });
    assert!(next().await);
}

/// C16.
#[tokio::test]
async fn a_trigger_without_a_pool_is_an_error() {
    let mut scaler = running(quick(), five()).await;
    let status = scaler.client.is_active(object(&[("scalerAddress", "a:1")])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "pool: is missing from the trigger's metadata");
    scaler.finish().await;
}

#[tokio::test]
async fn a_stopped_scaler_is_not_ready() {
    let scaler = running(quick(), five()).await;
    let health = scaler.health.clone();
    scaler.finish().await;
    assert_eq!(health.reasons(), BTreeMap::from([("scaler".to_owned(), "stopping".to_owned())]));
}
