use std::fs;
use std::path::Path;

use model::Datatype;
use queue::Body;
use tempfile::TempDir;

use super::*;
use crate::runtime::error::ModelErrorKind;
use crate::runtime::settings::Device;

/// `digits/1` beside this repository's crates.
fn digits() -> TorchModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits");
    TorchModel::open(Manifest::read(&folder).unwrap(), one_thread()).unwrap()
}

fn one_thread() -> ModelSettings {
    ModelSettings { device: Device::Cpu, threads: Some(1) }
}

/// A model that returns the sum and the doubles of its input, and fails on a negative first value.
fn two_outputs(outputs: &str) -> (TempDir, TorchModel) {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("two-outputs/1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.pt"), include_bytes!("tests/two_outputs.pt")).unwrap();
    let yaml = format!("inputs: [{{name: x, datatype: FP32, shape: [-1]}}]\noutputs: {outputs}\n");
    fs::write(folder.join("model.yaml"), yaml).unwrap();
    let model = TorchModel::open(Manifest::read(&folder).unwrap(), one_thread()).unwrap();
    (models, model)
}

const SUM_AND_DOUBLES: &str = "[{name: sum, datatype: FP32, shape: []}, {name: doubles, datatype: FP32, shape: [-1]}]";

fn item(values: &[f32]) -> Item {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = HostTensor { name: "x".into(), datatype: Datatype::Fp32, shape: vec![values.len() as i64], data };
    Item { tensors: vec![tensor] }
}

fn numbers(tensor: &HostTensor) -> Vec<f32> {
    tensor.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn the_digits_model_reads_at_least_97_percent_of_the_held_out_images() {
    let model = digits();
    let mut files: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits/held-out"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 360);
    let mut instance = model.instance().unwrap();
    instance.warm_up().unwrap();
    let mut right = 0;
    for batch in files.chunks(model.max_batch_items()) {
        let prepare = |file| model.prepare("image/png", fs::read(file).unwrap().into()).unwrap();
        let items: Vec<Item> = batch.iter().map(prepare).collect();
        for (tensors, file) in instance.run(&items).unwrap().into_iter().zip(batch) {
            let Output { media_type, body: Body::Inline(body) } = model.present(tensors).unwrap() else { panic!() };
            assert_eq!(media_type, "application/json");
            let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let digit = file.file_stem().unwrap().to_str().unwrap().rsplit('-').next().unwrap();
            right += usize::from(answer["predictions"][0]["label"] == digit);
        }
    }
    assert!(right * 100 >= files.len() * 97, "{right} of {}", files.len());
}

#[test]
fn a_broken_image_is_refused_before_it_reaches_a_batch() {
    let error = digits().prepare("image/jpeg", Bytes::from_static(b"\xff\xd8\xff\xe0 broken")).unwrap_err();
    assert_eq!(error.kind, "bad_input");
    assert!(error.message.starts_with("body: not a readable image/jpeg"), "{}", error.message);
}

#[test]
fn a_tensor_of_the_wrong_shape_fails_its_batch() {
    let model = digits();
    let mut instance = model.instance().unwrap();
    let mut wrong = batch::blank(&model.pipeline.manifest().inputs, 1);
    wrong.tensors[0].shape = vec![8, 8];
    let error = instance.run(&[wrong]).unwrap_err().to_string();
    assert_eq!(error, "image: the shape [8, 8] does not fit [1, 8, 8]");
    let mut short = batch::blank(&model.pipeline.manifest().inputs, 1);
    short.tensors[0].data = Bytes::from_static(&[0; 8]);
    let error = instance.run(&[short]).unwrap_err().to_string();
    assert_eq!(error, "image: 8 bytes do not fill the shape [1, 8, 8]");
}

#[test]
fn a_tuple_comes_back_as_its_tensors_item_by_item() {
    let (_folder, model) = two_outputs(SUM_AND_DOUBLES);
    let mut instance = model.instance().unwrap();
    instance.warm_up().unwrap();
    let outputs = instance.run(&[item(&[1.0, 2.0, 3.0]), item(&[4.0, 5.0, 6.0])]).unwrap();
    assert_eq!(outputs.len(), 2);
    assert_eq!((outputs[0][0].shape.len(), numbers(&outputs[0][0])), (0, vec![6.0]));
    assert_eq!((&outputs[1][1].shape[..], numbers(&outputs[1][1])), (&[3][..], vec![8.0, 10.0, 12.0]));
    assert!(instance.run(&[]).unwrap().is_empty());
}

#[test]
fn items_of_unlike_shapes_cannot_share_a_batch() {
    let (_folder, model) = two_outputs(SUM_AND_DOUBLES);
    let error = model.instance().unwrap().run(&[item(&[1.0]), item(&[1.0, 2.0])]).unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::Input);
    assert_eq!(error.to_string(), "x: the shapes [1] and [2] cannot share a batch");
}

#[test]
fn a_failed_forward_pass_names_the_cause_and_leaves_the_model_usable() {
    let (_folder, model) = two_outputs(SUM_AND_DOUBLES);
    let mut instance = model.instance().unwrap();
    for _ in 0..3 {
        let error = instance.run(&[item(&[-1.0, 2.0])]).unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::Model);
        let error = error.to_string();
        assert!(error.contains("the first value is negative") && !error.contains('\n'), "{error}");
        assert!(instance.run(&[item(&[1.0, 2.0])]).is_ok());
    }
}

#[test]
fn outputs_that_differ_from_the_manifest_are_an_error() {
    for (outputs, message) in [
        ("[{name: sum, datatype: FP32, shape: []}]", "did not return a tensor"),
        (
            "[{name: sum, datatype: INT64, shape: []}, {name: y, datatype: FP32, shape: [-1]}]",
            "sum: forward returned Float",
        ),
        (
            "[{name: sum, datatype: FP32, shape: []}, {name: y, datatype: FP32, shape: [7]}]",
            "y: forward returned the shape [2]",
        ),
        (
            "[{name: sum, datatype: FP32, shape: [1]}, {name: y, datatype: FP32, shape: [-1]}]",
            "sum: forward returned the shape []",
        ),
    ] {
        let (_folder, model) = two_outputs(outputs);
        let error = model.instance().unwrap().run(&[item(&[1.0, 2.0])]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let (_folder, model) = two_outputs(SUM_AND_DOUBLES);
    fs::write(&model.file, b"not a model").unwrap();
    let error = model.instance().err().unwrap().to_string();
    assert!(error.starts_with(&model.file.display().to_string()) && !error.contains('\n'), "{error}");
}

#[test]
fn a_gpu_is_used_if_there_is_one_and_the_error_explains_why_there_is_none() {
    let chosen = device::choose(Device::Auto).unwrap();
    match device::choose(Device::Cuda) {
        Ok(device) => assert_eq!(chosen, device),
        Err(error) => {
            assert_eq!(chosen, tch::Device::Cpu);
            assert_eq!(error.kind(), ModelErrorKind::Device);
            assert!(error.to_string().starts_with("device: cuda needs a GPU: "), "{error}");
        }
    }
}
