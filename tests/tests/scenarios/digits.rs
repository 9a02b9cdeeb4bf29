//! A trained model in the whole system, on images that are not in its training data.

use std::path::PathBuf;

use futures::StreamExt;
use millrace_tests::{System, repository};
use reqwest::Method;
use serde_json::Value;

fn models() -> PathBuf {
    repository().join("models")
}

fn system() -> System {
    let model = models().join("digits/1");
    let scale = "{trigger: {value: \"50\"}, max: 2, cooldown: 5s, polling_interval: 1s, sync_interval: 1s}";
    System::new(&format!("pools: {{digits: {{model: '{}', threads: 1, scale: {scale}}}}}", model.display())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn held_out_digits_are_recognised() {
    let system = system();
    let up = system.up().await.unwrap();
    let images: Vec<PathBuf> =
        std::fs::read_dir(models().join("digits/held-out")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(images.len() >= 300, "only {} images are held out", images.len());
    let up = &up;
    let right = futures::stream::iter(&images).map(async |image| {
        let digit = image.file_stem().unwrap().to_str().unwrap().rsplit('-').next().unwrap();
        let id = up.accepted("digits", "image/png", std::fs::read(image).unwrap()).await.unwrap();
        assert_eq!(up.ended(&id).await.unwrap()["state"], "succeeded", "{}", image.display());
        let result = up.request(Method::GET, &format!("/v1/jobs/{id}/result")).send().await.unwrap();
        let result: Value = result.json().await.unwrap();
        result["predictions"][0]["label"] == digit
    });
    let right = right.buffer_unordered(64).filter(|right| std::future::ready(*right)).count().await;
    let accuracy = right as f64 / images.len() as f64;
    println!("{right} of {} held-out digits right: {accuracy:.4}", images.len());
    assert!(accuracy >= 0.97, "{accuracy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_image_fails_alone_with_the_reason() {
    let system = system();
    let up = system.up().await.unwrap();
    let good = models().join("digits/held-out");
    let good = std::fs::read_dir(good).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(good).unwrap();
    let mut ids = Vec::new();
    for (media_type, body) in
        [("image/png", good.clone()), ("image/jpeg", b"\xff\xd8\xff\xe0 broken".to_vec()), ("image/png", good)]
    {
        ids.push(up.accepted("digits", media_type, body).await.unwrap());
    }
    let mut states = Vec::new();
    for id in &ids {
        states.push(up.ended(id).await.unwrap());
    }
    assert_eq!([&states[0]["state"], &states[1]["state"], &states[2]["state"]], ["succeeded", "failed", "succeeded"]);
    assert_eq!(states[1]["error"]["type"], "bad_input");
    assert_eq!(states[1]["attempts"], 1);
    let result = up.request(Method::GET, &format!("/v1/jobs/{}/result", ids[1])).send().await.unwrap();
    assert_eq!(result.headers()["content-type"], "application/problem+json");
}
