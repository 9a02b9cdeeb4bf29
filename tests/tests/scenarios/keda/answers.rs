//! The answers of a scaler while its broker is reachable.

use queue::{ClaimRequest, WorkerId};

use super::*;

/// C2.
#[tokio::test(flavor = "multi_thread")]
async fn a_metric_name_is_a_plain_word_and_is_the_same_after_a_restart() {
    let longest = "x".repeat(63);
    let system = System::new(&format!("pools: {{echo: {{model: echo}}, {longest}: {{model: echo}}}}")).unwrap();
    let objects = [object("echo"), with("echo", &[(TARGET_KEY, "3")]), object(&longest)];
    let mut first_names: Option<Vec<String>> = None;
    for _ in 0..2 {
        let scaler = system.scaler().await.unwrap();
        let mut keda = Keda::of(&scaler).await;
        let mut names = Vec::new();
        for object in &objects {
            let name = keda.spec(object).await.unwrap().metric_name;
            assert!(!name.is_empty() && name.len() <= 200 && !name.contains(['/', '%']), "{name}");
            assert_eq!(keda.named(object, &name).await.unwrap().metric_name, name);
            names.push(name);
        }
        assert_eq!(first_names.get_or_insert_with(|| names.clone()), &names);
        scaler.process.kill().await.unwrap();
    }
}

/// C3.
#[tokio::test(flavor = "multi_thread")]
async fn a_metric_of_another_name_is_an_error() {
    let (_system, _scaler, mut keda) = running().await;
    let name = keda.spec(&object("echo")).await.unwrap().metric_name;
    let others = keda.spec(&object("other")).await.unwrap().metric_name;
    assert_eq!(keda.named(&object("echo"), &name).await.unwrap().metric_name, name);
    for wrong in [String::new(), format!("s0-{name}"), others, name.to_uppercase()] {
        let status = keda.named(&object("echo"), &wrong).await.unwrap_err();
        assert!(matches!(status.code(), Code::NotFound | Code::InvalidArgument), "{wrong:?}: {status}");
        assert!(status.message().contains(&format!("{wrong:?}")), "{status}");
    }
}

/// C4.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_returned_as_a_float_and_as_an_integer_of_at_least_one() {
    let (_system, _scaler, mut keda) = running().await;
    for (text, float, integer) in [("0.001", 0.001, 1), ("1", 1.0, 1), ("1.5", 1.5, 2), ("1e6", 1e6, 1_000_000)] {
        let spec = keda.spec(&with("echo", &[(TARGET_KEY, text)])).await.unwrap();
        assert_eq!((spec.target_size_float, spec.target_size), (float, integer), "{text}");
    }
    for bad in ["0", "0.0009", "-1", "NaN", "inf", "many"] {
        let status = keda.spec(&with("echo", &[(TARGET_KEY, bad)])).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}");
    }
}

/// C5.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_the_backlog_and_zero_only_without_one() {
    let (system, _scaler, keda) = running().await;
    let backend = system.backend().await.unwrap();
    let mut before = 0;
    for more in [0, 1, 6] {
        publish(&backend, "echo", more).await;
        before += more;
        let value = keda.until_value(&object("echo"), before as f64).await;
        assert_eq!(value.metric_value, before as i64);
    }
    consume(&backend, "echo", before).await;
    assert_eq!(keda.until_value(&object("echo"), 0.0).await.metric_value, 0);
}

/// C9.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_change_nothing_but_the_count_of_calls() {
    let (system, scaler, mut keda) = running().await;
    let backend = system.backend().await.unwrap();
    publish(&backend, "echo", 7).await;
    let value = keda.until_value(&object("echo"), 7.0).await;
    let spec = keda.spec(&object("echo")).await.unwrap();
    // Readings continue without calls, and waiting jobs grow older.
    let calls_or_readings =
        ["millrace_scaler_calls_total", "millrace_scaler_sample_seconds", "millrace_scaler_oldest_seconds"];
    let metrics = async || {
        let mut lines = scaler.metrics().await.unwrap();
        lines.retain(|line| !calls_or_readings.iter().any(|name| line.starts_with(name)));
        lines.sort();
        lines
    };
    let counted = async || {
        let mut calls = 0.0;
        for call in ["GetMetricSpec", "GetMetrics", "IsActive"] {
            calls +=
                scaler.metric(&format!("millrace_scaler_calls_total{{call=\"{call}\",code=\"Ok\"}}")).await.unwrap();
        }
        calls
    };
    let (before, calls) = (metrics().await, counted().await);
    assert!(before.iter().any(|line| line == "millrace_scaler_backlog{pool=\"echo\"} 7"), "{before:?}");
    for _ in 0..250 {
        assert_eq!(keda.value(&object("echo")).await.unwrap(), value);
        assert_eq!(keda.spec(&object("echo")).await.unwrap(), spec);
        assert!(keda.active(&object("echo")).await.unwrap());
    }
    assert_eq!(counted().await - calls, 1_000.0);
    assert_eq!(metrics().await, before);
    let depth = backend.broker.gauge().await.unwrap().depths(&[pool("echo")]).await.remove(0).unwrap();
    assert_eq!((depth.waiting(), depth.in_flight.unwrap_or(0)), (7, 0));
}

/// C10.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_active_with_a_backlog_or_a_lease_or_a_worker_that_loads() {
    let (system, _scaler, mut keda) = running().await;
    let backend = system.backend().await.unwrap();
    let low_activation = object("echo");
    let high_activation = with("echo", &[(ACTIVATION_KEY, "1000")]);
    assert_eq!(keda.value(&low_activation).await.unwrap().metric_value, 0);
    assert!(!keda.active(&low_activation).await.unwrap());
    let becomes = async |wanted: bool| {
        until(format_args!("the pool's activity is {wanted}"), async || {
            Ok((keda.clone().active(&high_activation).await? == wanted).then_some(()))
        })
        .await
        .unwrap();
    };

    let loading = register(&backend, "echo", WorkerState::Loading).await;
    becomes(true).await;
    backend.roster.leave(&loading).await.unwrap();
    becomes(false).await;

    // A leased job makes the pool active, even below the activation.
    let leasing = WorkerId::new("leasing-worker");
    let claim = vec![ClaimRequest::new(job("echo"), false)];
    backend.ledger.claim(&leasing, claim, Duration::from_secs(600)).await.unwrap();
    becomes(true).await;
    assert_eq!(keda.value(&high_activation).await.unwrap().metric_value, 1);
}

/// C11.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_compared_with_the_activation_as_greater() {
    let (system, _scaler, mut keda) = running().await;
    let backend = system.backend().await.unwrap();
    publish(&backend, "echo", 5).await;
    keda.until_value(&object("echo"), 5.0).await;
    for (activation, active) in [("0", true), ("4", true), ("4.5", true), ("5", false), ("6", false)] {
        assert_eq!(keda.active(&with("echo", &[(ACTIVATION_KEY, activation)])).await.unwrap(), active, "{activation}");
    }
}

/// C15.
#[tokio::test(flavor = "multi_thread")]
async fn two_scalers_of_one_broker_give_the_same_answers() {
    let (system, _scaler, mut one) = running().await;
    let other = system.scaler().await.unwrap();
    let mut other = Keda::of(&other).await;
    let backend = system.backend().await.unwrap();
    let objects = [object("echo"), with("echo", &[(TARGET_KEY, "3"), (ACTIVATION_KEY, "9")]), object("other")];
    for jobs in [8, 2] {
        publish(&backend, "echo", jobs).await;
        let backlog = if jobs == 8 { 8.0 } else { 10.0 };
        for keda in [&one, &other] {
            keda.until_value(&object("echo"), backlog).await;
        }
        for object in &objects {
            assert_eq!(one.spec(object).await.unwrap(), other.spec(object).await.unwrap());
            assert_eq!(one.value(object).await.unwrap(), other.value(object).await.unwrap());
            assert_eq!(one.active(object).await.unwrap(), other.active(object).await.unwrap());
            let (mut ones, mut others) = (one.pushes(object).await.unwrap(), other.pushes(object).await.unwrap());
            assert_eq!(next(&mut ones).await, next(&mut others).await);
        }
    }
}

/// C16.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_ignored_and_a_bad_value_is_named_with_its_key() {
    let (_system, _scaler, mut keda) = running().await;
    let more = [
        ("enableTLS", "false"),
        ("unsafeSsl", "true"),
        ("caCert", "-----BEGIN CERTIFICATE-----"),
        ("colour", "blue"),
        ("poolFromEnv", "echo"),
        ("colourFromEnv", "blue"),
        ("", ""),
    ];
    assert!(keda.spec(&with("echo", &more)).await.is_ok());
    let mut nameless = object("echo");
    nameless.scaler_metadata.remove("pool");
    let wrong = [
        (nameless, "pool"),
        (object("No Pool!"), "pool"),
        (with("echo", &[(TARGET_KEY, "many")]), TARGET_KEY),
        (with("echo", &[(ACTIVATION_KEY, "-1")]), ACTIVATION_KEY),
    ];
    for (object, key) in wrong {
        for (call, status) in keda.all_five(&object, "millrace-echo").await {
            let status = status.expect(call);
            assert_eq!(status.code(), Code::InvalidArgument, "{call}: {status}");
            assert!(status.message().starts_with(&format!("{key}: ")), "{call}: {status}");
        }
    }
}

/// C19.
#[tokio::test(flavor = "multi_thread")]
async fn a_scaled_job_is_answered_as_a_scaled_object_is() {
    let (system, _scaler, mut keda) = running().await;
    let backend = system.backend().await.unwrap();
    publish(&backend, "echo", 4).await;
    let value = keda.until_value(&object("echo"), 4.0).await;
    let scaled_job = ScaledObjectRef { name: "echo-jobs".to_owned(), namespace: "batch".to_owned(), ..object("echo") };
    let spec = keda.spec(&scaled_job).await.unwrap();
    assert_eq!(spec, keda.spec(&object("echo")).await.unwrap());
    assert_eq!(keda.named(&scaled_job, &spec.metric_name).await.unwrap(), value);
    assert!(keda.active(&scaled_job).await.unwrap());
    for (call, status) in keda.all_five(&scaled_job, &spec.metric_name).await {
        assert!(status.is_none(), "{call}: {status:?}");
    }
}

/// C20. The first call is made when the socket is bound.
#[tokio::test(flavor = "multi_thread")]
async fn the_spec_is_available_from_the_first_call() {
    let system = System::new(YAML).unwrap();
    let process = system.start("scaler", &[]).unwrap();
    let line = process.prints("scaler grpc://").await.unwrap();
    let address = line.replace("scaler grpc", "http");
    let mut keda = Keda { client: ExternalScalerClient::connect(address).await.unwrap() };
    let spec = keda.spec(&object("echo")).await.unwrap();
    assert_eq!((spec.target_size_float, spec.target_size), (2.5, 3));
}

/// C21.
#[tokio::test(flavor = "multi_thread")]
async fn the_target_stays_while_the_value_moves() {
    let (system, _scaler, mut keda) = running().await;
    let backend = system.backend().await.unwrap();
    let mut stream = keda.client.stream_metric_spec(object("echo")).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let mut backlog = 0;
    for jobs in [0, 1, 50, 400] {
        publish(&backend, "echo", jobs).await;
        backlog += jobs;
        keda.until_value(&object("echo"), backlog as f64).await;
        assert_eq!(keda.spec(&object("echo")).await.unwrap(), first.metric_specs[0]);
    }
    // The stream is open and has no further message.
    assert!(stream.message().now_or_never().is_none());
}
