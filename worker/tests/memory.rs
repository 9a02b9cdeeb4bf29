//! The memory of a worker that prepares large inputs, measured.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ImageFormat};
use jiff::Timestamp;
use millrace_worker::runtime::{Instance, Item, Model, ModelError, Pipeline};
use millrace_worker::{Worker, WorkerSettings};
use model::{Echo, HostTensor, Manifest, TENSORS_MEDIA_TYPE};
use peak_alloc::PeakAlloc;
use queue::{Blobs, Body, Class, Clock, Input, Job, JobError, JobState, Output, PoolName, Role, WorkerId};
use queue_embedded::StoreOptions;
use service::{ByteSize, Health};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const PATIENCE: Duration = Duration::from_secs(300);
const MIB: usize = 1 << 20;

const MANIFEST: &str = "
inputs: [{name: x, datatype: FP32, shape: [3, 224, 224]}]
outputs: [{name: y, datatype: FP32, shape: [2]}]
preprocess: {image: {width: 224, height: 224, channels: 3}}
";

/// JSON of any length.
const TENSORS: &str = "
inputs: [{name: x, datatype: FP32, shape: [-1]}]
outputs: [{name: y, datatype: FP32, shape: [2]}]
";

/// A model that prepares inputs as its manifest says, and returns nothing.
struct Prepares(Pipeline);

struct Nothing;

impl Prepares {
    fn new(yaml: &str) -> Self {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("tried/1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("model.yaml"), yaml).unwrap();
        Self(Pipeline::new(Manifest::read(&folder).unwrap()))
    }
}

impl Model for Prepares {
    fn prepare(&self, media_type: &str, body: Bytes) -> Result<Item, JobError> {
        self.0.prepare(media_type, &body)
    }

    fn memory_to_prepare(&self, media_type: &str, body: &[u8]) -> u64 {
        self.0.memory_to_prepare(media_type, body)
    }

    fn present(&self, _: Vec<HostTensor>) -> Result<Output, JobError> {
        Ok(Output { media_type: "text/plain".to_owned(), body: Body::Inline(Bytes::new()) })
    }

    fn max_batch_items(&self) -> usize {
        16
    }

    fn instance(&self) -> Result<Box<dyn Instance>, ModelError> {
        Ok(Box::new(Nothing))
    }
}

impl Instance for Nothing {
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError> {
        Ok(vec![Vec::new(); items.len()])
    }

    fn warm_up(&mut self) -> Result<(), ModelError> {
        Ok(())
    }
}

/// The bytes that `step` takes at its peak, beside what exists before.
fn peak_bytes<T>(step: impl FnOnce() -> T) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = step();
    let peak = MEMORY.peak_usage() - before;
    drop(result);
    peak
}

fn file(image: &DynamicImage, format: ImageFormat) -> Bytes {
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, format).unwrap();
    file.into_inner().into()
}

/// A large image in all kinds of files, with their media types.
fn images() -> Vec<(String, &'static str, Bytes)> {
    let image = DynamicImage::new_rgb8(1_500, 1_000);
    let mut images = Vec::new();
    for (name, image) in [
        ("rgb", image.clone()),
        ("rgba", image.to_rgba8().into()),
        ("gray", image.to_luma8().into()),
        ("rgb16", image.to_rgb16().into()),
        ("rgba16", image.to_rgba16().into()),
    ] {
        images.push((name.to_owned(), "image/png", file(&image, ImageFormat::Png)));
    }
    for (media_type, format) in [
        ("image/jpeg", ImageFormat::Jpeg),
        ("image/webp", ImageFormat::WebP),
        ("image/gif", ImageFormat::Gif),
        ("image/bmp", ImageFormat::Bmp),
    ] {
        images.push(("rgb".to_owned(), media_type, file(&image, format)));
    }
    let progressive = |is_progressive| {
        let mut file = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut file, 90);
        encoder.set_progressive(is_progressive);
        encoder.encode(image.as_bytes(), 1_500, 1_000, jpeg_encoder::ColorType::Rgb).unwrap();
        Bytes::from(file)
    };
    let cut = progressive(true);
    images.push(("without an end marker".to_owned(), "image/jpeg", cut.slice(..cut.len() - 2)));
    images.push(("progressive".to_owned(), "image/jpeg", cut));
    // Orientation 6: both copies of a turned image exist at once.
    let exif: &[u8] = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut turned = Cursor::new(Vec::new());
    let mut encoder = JpegEncoder::new(&mut turned);
    image::ImageEncoder::set_exif_metadata(&mut encoder, exif.to_vec()).unwrap();
    encoder.encode_image(&image).unwrap();
    images.push(("turned".to_owned(), "image/jpeg", turned.into_inner().into()));
    let mut turned = Cursor::new(Vec::new());
    let mut encoder = PngEncoder::new(&mut turned);
    image::ImageEncoder::set_exif_metadata(&mut encoder, exif.to_vec()).unwrap();
    image.to_rgba8().write_with_encoder(encoder).unwrap();
    images.push(("turned rgba".to_owned(), "image/png", turned.into_inner().into()));
    images
}

fn tensors(body_bytes: usize, element: &str) -> Bytes {
    let count = body_bytes / (element.len() + 1);
    let data = vec![element; count].join(",");
    format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{count}],"data":[{data}]}}]}}"#).into()
}

fn job(media_type: &str, body: Body) -> Job {
    Job {
        id: queue::JobId::generate(),
        pool: pool(),
        class: Class::Standard,
        input: Input { media_type: media_type.to_owned(), body },
        created_at: Timestamp::from_second(1).unwrap(),
        deadline_at: None,
        max_attempts: 1,
        retention: Duration::from_secs(600),
        trace_parent: None,
        origin: None,
    }
}

fn pool() -> PoolName {
    "tried".parse().unwrap()
}

/// Runs the same input as `count` jobs in a worker with `input_memory`. Returns the peak of the memory beside what
/// exists before, and how the jobs ended.
async fn run(
    model: impl Model + 'static,
    input_memory: usize,
    media_type: &str,
    body: Bytes,
    count: usize,
) -> (usize, Vec<(JobState, String)>) {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions::new(folder.path().join("data"));
    let backend = queue_embedded::open(&options, Clock::default()).unwrap();
    let blobs = Blobs::directory(&folder.path().join("blobs"), Blobs::INLINE_LIMIT_BYTES).unwrap();
    let mut jobs = Vec::new();
    for _ in 0..count {
        let body = blobs.body(&queue::JobId::generate(), Role::Input, body.clone()).await.unwrap();
        jobs.push(job(media_type, body));
    }
    drop(body);
    backend.ledger.submit(&jobs).await.unwrap();
    backend.broker.producer().await.unwrap().publish(&jobs).await.unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let input_memory = Some(ByteSize::bytes(input_memory as u64));
    let worker = Worker {
        id: WorkerId::new("tested"),
        pool: pool(),
        settings: WorkerSettings { input_memory, prepare_threads: Some(4.try_into().unwrap()), ..Default::default() },
        model: Arc::new(model),
        backend: backend.clone(),
        blobs,
        health: Health::new(),
        started: Instant::now(),
    };
    let stop = CancellationToken::new();
    let worker = tokio::spawn(millrace_worker::run(worker, stop.clone()));
    let mut ended = Vec::new();
    for job in &jobs {
        let records = backend.ledger.watch(&job.id).await.unwrap();
        let last = timeout(PATIENCE, records.collect::<Vec<_>>()).await.unwrap().pop().unwrap().unwrap();
        ended.push((last.state, last.error.map(|error| error.message).unwrap_or_default()));
    }
    let peak = MEMORY.peak_usage().saturating_sub(before);
    stop.cancel();
    timeout(PATIENCE, worker).await.unwrap().unwrap().unwrap();
    (peak, ended)
}

/// One test, because it measures the memory of the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn inputs_take_no_more_memory_than_announced_and_a_worker_keeps_within_its_limit() {
    let model = Prepares::new(MANIFEST);
    for (name, media_type, file) in images() {
        let announced = model.memory_to_prepare(media_type, &file) as usize;
        let peak = peak_bytes(|| model.prepare(media_type, file.clone()).unwrap());
        assert!(peak <= announced, "{name} {media_type}: {peak} bytes, more than the announced {announced}");
        assert!(announced <= 4 * peak + 4 * MIB, "{name} {media_type}: {announced} bytes announced, {peak} used");
    }
    let model = Prepares::new(TENSORS);
    for element in ["0", "0.1234567"] {
        let body = tensors(4 * MIB, element);
        let announced = model.memory_to_prepare(TENSORS_MEDIA_TYPE, &body) as usize;
        let peak = peak_bytes(|| model.prepare(TENSORS_MEDIA_TYPE, body.clone()).unwrap());
        assert!(peak <= announced, "{element}: {peak} bytes, more than the announced {announced}");
    }

    // 24 MB each when decoded: 64 MiB have room for two at once.
    let rgba = file(&DynamicImage::new_rgba8(3_000, 2_000), ImageFormat::Png);
    let (peak, ended) = run(Prepares::new(MANIFEST), 128 * MIB, "image/png", rgba, 8).await;
    assert!(ended.iter().all(|(state, _)| *state == JobState::Succeeded), "{ended:?}");
    assert!(peak < 140 * MIB, "{peak} bytes for images");

    let (peak, ended) = run(Prepares::new(TENSORS), 64 * MIB, TENSORS_MEDIA_TYPE, tensors(6 * MIB, "0"), 20).await;
    assert!(ended.iter().all(|(state, _)| *state == JobState::Succeeded), "{ended:?}");
    assert!(peak < 76 * MIB, "{peak} bytes for tensors");

    // Bytes that an echo model only holds.
    let (peak, ended) = run(Echo::default(), 64 * MIB, "text/plain", vec![b'a'; 6 * MIB].into(), 20).await;
    assert!(ended.iter().all(|(state, _)| *state == JobState::Succeeded), "{ended:?}");
    assert!(peak < 76 * MIB, "{peak} bytes for echoes");

    let large = file(&DynamicImage::new_rgba16(3_000, 2_000), ImageFormat::Png);
    let (peak, ended) = run(Prepares::new(MANIFEST), 64 * MIB, "image/png", large, 3).await;
    for (state, message) in ended {
        assert_eq!(state, JobState::Failed);
        assert!(message.contains("more than 32MiB") && message.contains("worker.input_memory"), "{message}");
    }
    assert!(peak < 16 * MIB, "{peak} bytes for images that are refused");
}
