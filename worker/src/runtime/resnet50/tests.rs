use std::collections::BTreeMap;

use model::{Datatype, HostTensor};

use super::*;
use crate::runtime::interface::{Item, Model};
use crate::runtime::settings::{Device as DeviceSetting, ModelSettings};
use crate::runtime::torch::TorchModel;

fn image(value: f32) -> Item {
    let data: Vec<u8> = (0..3 * 224 * 224).flat_map(|index| (value * (index % 7) as f32).to_le_bytes()).collect();
    let tensor =
        HostTensor { name: "image".into(), datatype: Datatype::Fp32, shape: vec![3, 224, 224], data: data.into() };
    Item { tensors: vec![tensor] }
}

#[test]
fn the_file_runs_at_any_batch_size_and_the_result_of_an_item_does_not_depend_on_its_neighbours() {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("resnet50/1");
    let manifest = write(&folder, &Weights::Random { seed: 7 }, None).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.version), ("resnet50", 1));
    let bytes = fs::metadata(folder.join("model.pt")).unwrap().len();
    assert!((95 << 20..110 << 20).contains(&bytes), "{bytes} bytes");

    let settings = ModelSettings { device: DeviceSetting::Cpu, threads: None };
    let model = TorchModel::open(manifest, settings).unwrap();
    let mut instance = model.instance().unwrap();
    let logits = |outputs: &[Vec<HostTensor>], item: usize| -> Vec<f32> {
        outputs[item][0].data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let alone = instance.run(&[image(0.3)]).unwrap();
    let three = instance.run(&[image(0.1), image(0.3), image(-0.2)]).unwrap();
    assert_eq!((alone.len(), three.len(), &three[2][0].shape[..]), (1, 3, &[1000][..]));
    let scale = logits(&alone, 0).iter().fold(0.0_f32, |scale, logit| scale.max(logit.abs()));
    assert!(scale.is_finite() && scale > 0.0);
    for (one, other) in logits(&alone, 0).iter().zip(logits(&three, 1)) {
        assert!((one - other).abs() <= 1e-3 * scale, "{one} and {other}");
    }
    assert_ne!(logits(&three, 0), logits(&three, 2));
    assert!(model.present(three.into_iter().next().unwrap()).is_ok());
}

#[test]
fn parameters_have_the_names_of_torchvision_and_load_by_name() {
    let models = tempfile::tempdir().unwrap();
    let store = VarStore::new(Device::Cpu);
    let _network = resnet50(&store.root());
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    // torchvision's state dict has 320 entries, 53 of them the `num_batches_tracked` that inference does not need.
    assert_eq!(variables.len(), 320 - 53);
    let parameters: usize =
        (variables.iter()).filter(|(name, _)| !name.contains("running")).map(|(_, tensor)| tensor.numel()).sum();
    assert_eq!(parameters, 25_557_032);
    for (name, shape) in [
        ("conv1.weight", &[64, 3, 7, 7][..]),
        ("bn1.running_var", &[64]),
        ("layer1.0.downsample.0.weight", &[256, 64, 1, 1]),
        ("layer2.0.conv2.weight", &[128, 128, 3, 3]),
        ("layer4.2.bn3.bias", &[2048]),
        ("fc.weight", &[1000, 2048]),
    ] {
        assert_eq!(variables[name].size(), shape, "{name}");
    }

    let file = models.path().join("weights.safetensors");
    store.save(&file).unwrap();
    let mut other = VarStore::new(Device::Cpu);
    let _network = resnet50(&other.root());
    load(&mut other, &file).unwrap();
    assert!(other.variables().iter().all(|(name, tensor)| tensor.equal(&variables[name])));
}

#[test]
fn a_file_of_other_weights_is_refused_with_the_names_and_shapes_that_differ() {
    let models = tempfile::tempdir().unwrap();
    let file = models.path().join("small.safetensors");
    let tensor = Tensor::zeros([10, 2048], (Kind::Float, Device::Cpu));
    Tensor::write_safetensors(&[("fc.weight", tensor)], &file).unwrap();
    let folder = models.path().join("resnet50/1");
    let error = write(&folder, &Weights::Safetensors(file), None).unwrap_err().to_string();
    assert!(error.contains("267 tensors are not those of resnet50: bn1.bias is missing"), "{error}");
    assert!(!folder.exists());
}

#[test]
fn labels_must_be_one_for_each_class() {
    let models = tempfile::tempdir().unwrap();
    let labels = models.path().join("labels.txt");
    fs::write(&labels, "cat\ndog\n").unwrap();
    let folder = models.path().join("resnet50/1");
    let error = write(&folder, &Weights::Random { seed: 0 }, Some(&labels)).unwrap_err();
    assert!(error.to_string().contains("2 lines are not one for each of 1000 classes"), "{error}");
    assert!(!models.path().join("resnet50").exists());
}

#[test]
fn a_missing_file_is_named_once_and_nothing_is_left_behind() {
    let models = tempfile::tempdir().unwrap();
    let (folder, missing) = (models.path().join("resnet50/1"), models.path().join("missing"));
    let random = Weights::Random { seed: 0 };
    for (weights, labels) in [(&Weights::Safetensors(missing.clone()), None), (&random, Some(missing.as_path()))] {
        let error = write(&folder, weights, labels).unwrap_err().to_string();
        let expected = format!("{}: cannot be read: No such file or directory (os error 2)", missing.display());
        assert_eq!(error, expected);
        assert!(!models.path().join("resnet50").exists());
    }
}
