//! The digits model in a worker, compared with a raw loop over the same model file.

#[cfg(not(feature = "torch"))]
pub(crate) async fn run() -> anyhow::Result<()> {
    println!("digits:  skipped: built without libtorch (feature torch)");
    Ok(())
}

#[cfg(feature = "torch")]
pub(crate) use with_torch::run;

#[cfg(feature = "torch")]
mod with_torch {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use anyhow::Context;
    use bytes::Bytes;
    use millrace_tests::{Process, System, repository};
    use model::ModelSource;
    use queue::{Blobs, PoolName, WorkerId};
    use service::Health;
    use tch::{CModule, Device, Kind, Tensor};
    use tokio_util::sync::CancellationToken;
    use worker::runtime::{Model, ModelSettings};
    use worker::{Worker, WorkerSettings};

    use crate::drain::{drained_per_second, fill};

    const JOBS: usize = 50_000;
    const TIME: Duration = Duration::from_secs(3);

    /// Measures the raw loop, the worker's model, and a whole worker on a full queue, one after the other, twice.
    pub(crate) async fn run() -> anyhow::Result<()> {
        let models = repository().join("models/digits");
        let mut images = Vec::new();
        for image in std::fs::read_dir(models.join("held-out"))? {
            images.push(Bytes::from(std::fs::read(image?.path())?));
        }
        let source: ModelSource = models.join("1").display().to_string().parse().map_err(anyhow::Error::msg)?;
        let settings = ModelSettings { threads: Some(1), ..ModelSettings::default() };
        let model = worker::runtime::open(&source, &settings).map_err(anyhow::Error::msg)?;
        for _ in 0..2 {
            let file = models.join("1/model.pt");
            let batch = model.max_batch_items();
            let raw = on_its_thread(move || raw_loop(&file, batch))?;
            let (of_model, images_of) = (Arc::clone(&model), images.clone());
            let half = on_its_thread(move || model_loop(of_model.as_ref(), &images_of))?;
            let whole = whole_worker(&model, &images).await?;
            println!("digits:  batches of {batch}, 1 libtorch thread: raw loop {raw:.0} items/s");
            println!("         the worker's model (stack, forward, split): {half:.0}/s, {:.2} of raw", half / raw);
            println!(
                "         a whole worker (receive to acknowledge, PNG in, top-k out): {whole:.0}/s, {:.2} of raw",
                whole / raw
            );
        }
        memory().await
    }

    /// libtorch stores its number of threads per calling thread. So each loop has its own thread, as each device has.
    fn on_its_thread(run: impl FnOnce() -> anyhow::Result<f64> + Send + 'static) -> anyhow::Result<f64> {
        let thread = std::thread::spawn(move || {
            tch::set_num_threads(1);
            run()
        });
        thread.join().map_err(|_| anyhow::anyhow!("a loop panicked"))?
    }

    fn raw_loop(file: &std::path::Path, batch: usize) -> anyhow::Result<f64> {
        let module = CModule::load_on_device(file, Device::Cpu)?;
        let _no_grad = tch::no_grad_guard();
        let input = Tensor::rand([i64::try_from(batch)?, 1, 8, 8], (Kind::Float, Device::Cpu));
        per_second(batch, || Ok(module.forward_ts(&[&input])?))
    }

    fn model_loop(model: &dyn Model, images: &[Bytes]) -> anyhow::Result<f64> {
        let mut instance = model.instance()?;
        instance.warm_up()?;
        let prepared: Result<Vec<_>, _> = images
            .iter()
            .take(model.max_batch_items())
            .map(|image| model.prepare("image/png", image.clone()).map_err(|error| anyhow::anyhow!(error.message)))
            .collect();
        let items = prepared?;
        per_second(items.len(), || Ok(instance.run(&items)?))
    }

    fn per_second<T>(items: usize, mut run: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<f64> {
        for _ in 0..20 {
            run()?;
        }
        let (started, mut batches) = (Instant::now(), 0);
        while started.elapsed() < TIME {
            run()?;
            batches += 1;
        }
        Ok((batches * items) as f64 / started.elapsed().as_secs_f64())
    }

    async fn whole_worker(model: &Arc<dyn Model>, images: &[Bytes]) -> anyhow::Result<f64> {
        let system = System::new("{}")?;
        let backend = system.backend().await?;
        let pool: PoolName = "digits".parse()?;
        fill(&backend, &pool, "image/png", images, JOBS).await?;
        let stop = CancellationToken::new();
        let health = Health::new();
        let worker = Worker {
            id: WorkerId::new("bench"),
            pool: pool.clone(),
            settings: WorkerSettings::default(),
            model: Arc::clone(model),
            backend: backend.clone(),
            blobs: Blobs::directory(&system.folder().join("blobs"), Blobs::INLINE_LIMIT_BYTES)?,
            health,
            started: Instant::now(),
        };
        let working = tokio::spawn(worker::run(worker, stop.clone()));
        let per_second = drained_per_second(&backend, &pool).await?;
        stop.cancel();
        working.await??;
        Ok(per_second)
    }

    /// The memory of a worker process with the digits model.
    async fn memory() -> anyhow::Result<()> {
        let model = repository().join("models/digits/1").display().to_string();
        let system = System::new(&format!("pools: {{digits: {{model: '{model}', threads: 1}}}}"))?;
        let worker: Process = system.worker("digits").await?;
        let pid = worker.pid().context("the worker has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name));
            found.unwrap_or("unknown").trim().to_owned()
        };
        println!(
            "memory:  a ready worker process with the digits model: {} resident, {} at its peak",
            line("VmRSS:"),
            line("VmHWM:")
        );
        Ok(())
    }
}
