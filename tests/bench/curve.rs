//! The batch times of a model by batch size: the batch time model of a simulated worker.

#[cfg(not(feature = "torch"))]
pub(crate) async fn run() -> anyhow::Result<()> {
    println!("curve:   skipped: built without libtorch (feature torch)");
    Ok(())
}

#[cfg(feature = "torch")]
pub(crate) use with_torch::run;

#[cfg(feature = "torch")]
mod with_torch {
    use std::time::Instant;

    use anyhow::Context;
    use millrace_tests::{program, repository};
    use model::ModelSource;
    use worker::runtime::ModelSettings;

    const SIZES: [usize; 6] = [1, 2, 4, 8, 16, 32];
    const ROUNDS: usize = 5;

    /// Measures batches of ResNet-50 with random weights. The time does not depend on the weights.
    pub(crate) async fn run() -> anyhow::Result<()> {
        let measuring = std::thread::Builder::new().name("curve".to_owned()).spawn(measure)?;
        measuring.join().map_err(|_| anyhow::anyhow!("the measurement panicked"))?
    }

    fn measure() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let written = std::process::Command::new(program()?)
            .args(["model", "demo", "resnet50", "--folder"])
            .arg(folder.path())
            .output()?;
        anyhow::ensure!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        let model = folder.path().join("resnet50/1").display().to_string();
        let source: ModelSource = model.parse().map_err(anyhow::Error::msg)?;
        let model = worker::runtime::open(&source, &ModelSettings::default()).map_err(anyhow::Error::msg)?;
        let image = std::fs::read(repository().join("tests/outside/seven.jpg"))?;
        let item = model.prepare("image/jpeg", image.into()).map_err(|error| anyhow::anyhow!(error.message))?;
        let mut instance = model.instance()?;
        instance.warm_up()?;
        let mut points = Vec::new();
        for size in SIZES {
            let items = vec![item.clone(); size];
            instance.run(&items)?;
            let mut seconds = Vec::new();
            for _ in 0..ROUNDS {
                let started = Instant::now();
                instance.run(&items)?;
                seconds.push(started.elapsed().as_secs_f64());
            }
            seconds.sort_by(f64::total_cmp);
            points.push((size as f64, *seconds.get(ROUNDS / 2).context("no round")?));
        }
        let (base, per_item) = line(&points);
        let shown: Vec<String> =
            points.iter().map(|(size, seconds)| format!("{size}: {:.0} ms", seconds * 1e3)).collect();
        println!("curve:   resnet50, 224 × 224, batch time by items in a batch: {}", shown.join(", "));
        println!("         batch_base {:.0} ms, batch_item {:.1} ms (least squares)", base * 1e3, per_item * 1e3);
        Ok(())
    }

    /// Intercept and slope, by ordinary least squares.
    fn line(points: &[(f64, f64)]) -> (f64, f64) {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let slope = covariance / variance;
        (y - slope * x, slope)
    }
}
