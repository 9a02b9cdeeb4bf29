//! A job that takes its worker down, again and again.

use millrace_tests::System;

const INNOCENTS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_worker_ends_dead_and_takes_no_other_job_along() {
    let system = System::new("pools: {echo: {model: echo-faults, jobs: {max_attempts: 2}}}").unwrap();
    let gateway = system.gateway().await.unwrap();
    let mut innocents = Vec::new();
    let mut killers = Vec::new();
    for number in 0..INNOCENTS {
        if number % 10 == 5 {
            killers.push(gateway.accepted("echo", "text/plain", b"fail:process".to_vec()).await.unwrap());
        }
        innocents.push(gateway.accepted("echo", "text/plain", format!("job {number}").into_bytes()).await.unwrap());
    }
    // As an orchestrator would: a worker that has died is replaced.
    let replacing = async {
        loop {
            let (status, output) = system.worker("echo").await.unwrap().ended().await.unwrap();
            assert!(!status.success(), "{output}");
        }
    };
    let ended = async {
        for id in &innocents {
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
