//! A job that kills its worker at every attempt.

use millrace_tests::System;

const HARMLESS_JOBS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_worker_ends_dead_and_no_other_job_fails() {
    let system = System::new("pools: {echo: {model: echo-faults, jobs: {max_attempts: 2}}}").unwrap();
    let gateway = system.gateway().await.unwrap();
    let mut harmless = Vec::new();
    let mut killers = Vec::new();
    for number in 0..HARMLESS_JOBS {
        if number % 10 == 5 {
            killers.push(gateway.accepted("echo", "text/plain", b"fail:process".to_vec()).await.unwrap());
        }
        harmless.push(gateway.accepted("echo", "text/plain", format!("job {number}").into_bytes()).await.unwrap());
    }
    // The test replaces a killed worker, as an orchestrator does.
    let replacing = async {
        loop {
            let (status, output) = system.worker("echo").await.unwrap().ended().await.unwrap();
            assert!(!status.success(), "{output}");
        }
    };
    let ended = async {
        for id in &harmless {
            let job = gateway.ended(id).await.unwrap();
            assert_eq!(job["state"], "succeeded", "{job}");
        }
        for id in &killers {
            let job = gateway.ended(id).await.unwrap();
            assert_eq!((&job["state"], &job["attempts"]), (&"dead".into(), &2.into()), "{job}");
            assert_eq!(job["error"]["type"], "worker_vanished");
        }
    };
    tokio::select! {
        () = ended => {}
        () = replacing => {}
    }
}
