//! Inputs and outputs that are too large to travel with their job.

use millrace_tests::{System, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_large_input_travels_by_reference_and_its_blobs_are_deleted_with_its_record() {
    let system = System::new("pools: {echo: {model: echo, jobs: {retention: 1s}}}").unwrap();
    let gateway = system.gateway().await.unwrap();
    let _worker = system.worker("echo").await.unwrap();
    let input: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let response = gateway.submit("echo", "application/octet-stream", input.clone()).await.unwrap();
    let job: serde_json::Value = response.json().await.unwrap();
    let id = job["id"].as_str().unwrap();
    assert_eq!(gateway.ended(id).await.unwrap()["state"], "succeeded");
    let result = gateway.request(reqwest::Method::GET, &format!("/v1/jobs/{id}/result")).send().await.unwrap();
    assert_eq!(result.headers()["content-type"], "application/octet-stream");
    assert_eq!(result.bytes().await.unwrap(), input);

    let blobs = system.folder().join("data/blobs");
    // The two objects with the ids of the store and of its ledger stay.
    until("the job's record and its blobs are deleted", async || {
        let response = gateway.request(reqwest::Method::GET, &format!("/v1/jobs/{id}")).send().await?;
        Ok((response.status() == 404 && files_below(&blobs)? == 2).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_inputs_and_outputs_travel_through_a_bucket() {
    let bucket = std::env::var("MILLRACE_TEST_S3_URL");
    let bucket = bucket.expect("MILLRACE_TEST_S3_URL is not set: run the test with scripts/servers.sh run");
    // The processes take endpoint and credentials from the environment.
    let url = format!("{bucket}/scenarios/{}", queue::JobId::generate());
    let system = System::new(&format!("{{blobs: {{url: '{url}'}}, pools: {{echo: {{model: echo}}}}}}")).unwrap();
    let gateway = system.gateway().await.unwrap();
    let _worker = system.worker("echo").await.unwrap();
    let input = vec![b'x'; 1_000_000];
    let id = gateway.accepted("echo", "text/plain", input.clone()).await.unwrap();
    assert_eq!(gateway.ended(&id).await.unwrap()["state"], "succeeded");
    let result = gateway.request(reqwest::Method::GET, &format!("/v1/jobs/{id}/result")).send().await.unwrap();
    assert_eq!(result.bytes().await.unwrap(), input);
    assert!(!system.folder().join("data/blobs").exists());
}

fn files_below(folder: &std::path::Path) -> anyhow::Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        files += if path.is_dir() { files_below(&path)? } else { 1 };
    }
    Ok(files)
}
