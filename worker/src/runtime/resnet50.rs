//! A model of real size for trials: ResNet-50 as torchvision builds it, written as TorchScript.
//!
//! The architecture is that of He et al., "Deep Residual Learning for Image Recognition" (2015). As in torchvision,
//! the stride of a block is in its 3 × 3 convolution. Parameters have the names of torchvision's state dict, so that a
//! safetensors file of its weights loads by name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::Manifest;
use tch::nn::{self, FuncT, Module, ModuleT, VarStore};
use tch::{CModule, Device, Kind, TchError, Tensor};

use super::error::ModelError;

/// The source of the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// Random weights. The work is the same as with real weights, but the results have no meaning.
    Random {
        /// The same seed gives the same weights.
        seed: i64,
    },
    /// A `.safetensors` file whose tensors have the names of torchvision's state dict.
    Safetensors(PathBuf),
}

const CLASSES: i64 = 1000;

/// Writes `model.pt` (98 MiB) and `model.yaml` into `folder`, whose path ends in `<name>/<version>`. The folder is
/// created if it does not exist. `labels` is a file with the names of the 1,000 classes, one per line. Nothing is
/// written if the weights or the labels cannot be used.
pub fn write(folder: &Path, weights: &Weights, labels: Option<&Path>) -> Result<Manifest, ModelError> {
    let labels = labels.map(read_labels).transpose()?;
    if let Weights::Safetensors(file) = weights {
        // The file is read before the network is built, and not by libtorch: the system's error is clearer.
        File::open(file).and_then(|mut file| file.read_exact(&mut [0])).map_err(|error| unreadable(file, &error))?;
    }
    let module = traced(weights)?;

    let at = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| ModelError::model(format!("{path}: cannot be written: {error}"))
    };
    fs::create_dir_all(folder).map_err(at(folder))?;
    let mut manifest = MANIFEST.to_owned();
    if let Some(labels) = labels {
        let file = folder.join("labels.txt");
        fs::write(&file, labels).map_err(at(&file))?;
        manifest = manifest.replace("top_k: {k: 5}", "top_k: {k: 5, labels_file: labels.txt}");
    }
    // An incomplete file must not look like a model.
    let (partial, file) = (folder.join("model.pt.partial"), folder.join("model.pt"));
    module.save(&partial).map_err(|error| ModelError::model(format!("{}: {error}", partial.display())))?;
    fs::rename(&partial, &file).map_err(at(&file))?;
    let yaml = folder.join("model.yaml");
    fs::write(&yaml, manifest).map_err(at(&yaml))?;
    Manifest::read(folder).map_err(|error| ModelError::model(error.to_string()))
}

const MANIFEST: &str = "\
# ResNet-50: an RGB image to the 1,000 classes of ImageNet.
inputs:
  - {name: image, datatype: FP32, shape: [3, 224, 224]}
outputs:
  - {name: logits, datatype: FP32, shape: [1000]}
preprocess:
  image:
    width: 224
    height: 224
    channels: 3
    resize: 256
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
postprocess:
  top_k: {k: 5}
batch: {max_items: 32}
";

fn read_labels(file: &Path) -> Result<String, ModelError> {
    let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    let count = text.lines().count();
    if count as i64 != CLASSES {
        return Err(ModelError::model(format!(
            "{}: {count} lines are not one for each of 1000 classes",
            file.display()
        )));
    }
    Ok(text)
}

fn unreadable(file: &Path, error: &io::Error) -> ModelError {
    ModelError::model(format!("{}: cannot be read: {error}", file.display()))
}

fn traced(weights: &Weights) -> Result<CModule, ModelError> {
    if let Weights::Random { seed } = weights {
        tch::manual_seed(*seed);
    }
    let mut store = VarStore::new(Device::Cpu);
    let network = resnet50(&store.root());
    if let Weights::Safetensors(file) = weights {
        load(&mut store, file)?;
    }
    // The constants of a graph cannot require gradients.
    store.freeze();
    let _no_grad = tch::no_grad_guard();
    let example = Tensor::zeros([1, 3, 224, 224], (Kind::Float, Device::Cpu));
    let mut forward = |inputs: &[Tensor]| vec![network.forward_t(&inputs[0], false)];
    CModule::create_by_tracing("ResNet50", "forward", &[example], &mut forward)
        .map_err(|error| ModelError::model(format!("resnet50 cannot be traced: {error}")))
}

fn load(store: &mut VarStore, file: &Path) -> Result<(), ModelError> {
    let in_file = |error: TchError| match error {
        // The text of the library is Debug output, and repeats the name of the file.
        TchError::SafeTensorError { .. } => ModelError::model(format!("{}: is not a safetensors file", file.display())),
        error => ModelError::model(format!("{}: {error}", file.display())),
    };
    let given: Vec<(String, Tensor)> = Tensor::read_safetensors(file).map_err(in_file)?;
    let given: std::collections::HashMap<String, Tensor> = given.into_iter().collect();
    let mut faults = Vec::new();
    for (name, mut wanted) in store.variables() {
        match given.get(&name) {
            None => faults.push(format!("{name} is missing")),
            Some(tensor) if tensor.size() != wanted.size() => {
                faults.push(format!("{name}: {:?} is not {:?}", tensor.size(), wanted.size()));
            }
            Some(tensor) => tch::no_grad(|| wanted.f_copy_(tensor)).map_err(in_file)?,
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    faults.sort();
    let (count, some) = (faults.len(), faults[..faults.len().min(5)].join("; "));
    Err(ModelError::model(format!("{}: {count} tensors are not those of resnet50: {some}", file.display())))
}

fn resnet50(root: &nn::Path) -> FuncT<'static> {
    let conv1 = convolution(&(root / "conv1"), 3, 64, 7, 2);
    let bn1 = batch_norm(&(root / "bn1"), 64);
    let layers = nn::seq_t()
        .add(layer(&(root / "layer1"), 64, 64, 3, 1))
        .add(layer(&(root / "layer2"), 256, 128, 4, 2))
        .add(layer(&(root / "layer3"), 512, 256, 6, 2))
        .add(layer(&(root / "layer4"), 1024, 512, 3, 2));
    let fc = nn::linear(root / "fc", 2048, CLASSES, nn::LinearConfig::default());
    nn::func_t(move |image, train| {
        let stem = image.apply(&conv1).apply_t(&bn1, train).relu().max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        // Flattening from dimension 1 leaves the batch size open. A number would fix the batch size to the size in the
        // trace.
        stem.apply_t(&layers, train).adaptive_avg_pool2d([1, 1]).flatten(1, -1).apply(&fc)
    })
}

/// `blocks` bottlenecks, the first of which changes size and channels.
fn layer(path: &nn::Path, channels_in: i64, width: i64, blocks: i64, stride: i64) -> nn::SequentialT {
    let first = bottleneck(&(path / 0), channels_in, width, stride);
    (1..blocks).fold(nn::seq_t().add(first), |layer, index| layer.add(bottleneck(&(path / index), width * 4, width, 1)))
}

fn bottleneck(path: &nn::Path, channels_in: i64, width: i64, stride: i64) -> FuncT<'static> {
    let channels_out = width * 4;
    let conv1 = convolution(&(path / "conv1"), channels_in, width, 1, 1);
    let bn1 = batch_norm(&(path / "bn1"), width);
    let conv2 = convolution(&(path / "conv2"), width, width, 3, stride);
    let bn2 = batch_norm(&(path / "bn2"), width);
    let conv3 = convolution(&(path / "conv3"), width, channels_out, 1, 1);
    let bn3 = batch_norm(&(path / "bn3"), channels_out);
    let downsample = (channels_in != channels_out).then(|| {
        let path = path / "downsample";
        (convolution(&(&path / 0), channels_in, channels_out, 1, stride), batch_norm(&(&path / 1), channels_out))
    });
    nn::func_t(move |input, train| {
        let past = input.apply(&conv1).apply_t(&bn1, train).relu();
        let past = past.apply(&conv2).apply_t(&bn2, train).relu();
        let past = past.apply(&conv3).apply_t(&bn3, train);
        match &downsample {
            Some((conv, bn)) => (past + bn.forward_t(&conv.forward(input), train)).relu(),
            None => (past + input).relu(),
        }
    })
}

fn convolution(path: &nn::Path, channels_in: i64, channels_out: i64, size: i64, stride: i64) -> nn::Conv2D {
    let ws_init = nn::Init::Kaiming {
        dist: nn::init::NormalOrUniform::Normal,
        fan: nn::init::FanInOut::FanOut,
        non_linearity: nn::init::NonLinearity::ReLU,
    };
    let config = nn::ConvConfig { stride, padding: size / 2, bias: false, ws_init, ..nn::ConvConfig::default() };
    nn::conv2d(path, channels_in, channels_out, size, config)
}

fn batch_norm(path: &nn::Path, channels: i64) -> nn::BatchNorm {
    let config = nn::BatchNormConfig { ws_init: nn::Init::Const(1.0), ..nn::BatchNormConfig::default() };
    nn::batch_norm2d(path, channels, config)
}

#[cfg(test)]
mod tests;
