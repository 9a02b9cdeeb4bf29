use std::fs;

use tempfile::TempDir;

use super::*;
use crate::input_fault::InputFaultKind;
use crate::media_type::TENSORS_MEDIA_TYPE;

const GOOD: &str = "
inputs: [{name: image, datatype: FP32, shape: [3, 4, 4]}]
outputs: [{name: logits, datatype: FP32, shape: [2]}]
preprocess: {image: {width: 4, height: 4, channels: 3, resize: 5, mean: [0.1, 0.2, 0.3], std: [1, 2, 3]}}
postprocess: {top_k: {k: 1, labels: [cat, dog]}}
batch: {max_items: 8}
warm_up: {batches: 1}
";

/// `models/pets/7` with a manifest.
fn model(yaml: &str) -> (TempDir, PathBuf) {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("pets/7");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.yaml"), yaml).unwrap();
    (models, folder)
}

fn faults(yaml: &str) -> Vec<String> {
    let (_models, folder) = model(yaml);
    let error = Manifest::read(&folder).unwrap_err();
    assert_eq!(error.file, folder.join("model.yaml"));
    assert!(error.to_string().starts_with(&folder.join("model.yaml").display().to_string()));
    error.faults
}

fn assert_fault(faults: &[String], wanted: &str) {
    assert!(faults.iter().any(|fault| fault.contains(wanted)), "{wanted:?} is not among {faults:#?}");
}

#[test]
fn a_manifest_takes_name_and_version_from_its_folder() {
    let (_models, folder) = model(GOOD);
    let manifest = Manifest::read(&folder).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.version), ("pets", 7));
    assert_eq!(manifest.batch.max_items, 8);
    assert_eq!(manifest.warm_up, WarmUp { batches: 1, free_dimension: 1 });
    let Preprocess::Image(step) = &manifest.preprocess else { panic!("{:?}", manifest.preprocess) };
    assert_eq!((step.resize, step.scale, step.shape()), (Some(5), 1.0 / 255.0, [3, 4, 4]));
}

#[test]
fn a_missing_section_has_a_default() {
    let tensors = "inputs: [{name: x, datatype: INT64, shape: [-1]}]\noutputs: [{name: y, datatype: FP32, shape: []}]";
    let (_models, folder) = model(tensors);
    let manifest = Manifest::read(&folder).unwrap();
    assert_eq!((manifest.preprocess, manifest.postprocess), (Preprocess::None, Postprocess::Raw));
    assert_eq!((manifest.batch, manifest.warm_up), (BatchLimits::default(), WarmUp::default()));
}

#[test]
fn the_folder_of_a_model_stands_for_its_highest_version() {
    let (_models, seven) = model(GOOD);
    let versions = seven.parent().unwrap();
    for other in ["3", "12", "99-old"] {
        fs::create_dir(versions.join(other)).unwrap();
        fs::write(versions.join(other).join("model.yaml"), GOOD).unwrap();
    }
    fs::create_dir(versions.join("13")).unwrap();
    assert_eq!(Manifest::read(versions).unwrap().version, 12);
}

#[test]
fn a_folder_that_is_no_version_is_named() {
    let (models, folder) = model(GOOD);
    let latest = folder.with_file_name("latest");
    fs::rename(&folder, &latest).unwrap();
    assert_fault(&Manifest::read(&latest).unwrap_err().faults, "a whole number from 1");
    assert_fault(&Manifest::read(models.path()).unwrap_err().faults, "holds neither model.yaml nor");
    assert_fault(&Manifest::read(&models.path().join("none")).unwrap_err().faults, "is not a folder");
}

#[test]
fn a_missing_model_file_is_named_with_what_was_expected() {
    let (_models, folder) = model(GOOD);
    let manifest = Manifest::read(&folder).unwrap();
    let error = manifest.model_file().unwrap_err();
    assert_eq!(error.file, folder.join("model.pt"));
    assert_fault(&error.faults, "expected the model as a TorchScript file");
    fs::write(folder.join("model.pt"), b"").unwrap();
    assert_eq!(manifest.model_file().unwrap(), folder.join("model.pt"));
}

#[test]
fn all_faults_are_reported_at_once_each_with_key_value_and_rule() {
    let faults = faults(
        "
inputs: [{name: a, datatype: FP31, shape: [1]}, {name: b, datatype: BYTES, shape: [0]}, {name: c}]
outputs: [{name: y, datatype: INT64, shape: [3, 3]}]
preprocess: {image: {widht: 4}}
postprocess: {top_k: {k: 0, labels_file: names.txt}}
batch: {max_items: 0}
warm_up: {free_dimension: 0}
colour: blue
",
    );
    for wanted in [
        "inputs[0]: unknown variant `FP31`",
        "BYTES is not one of BOOL, UINT8",
        "[0] is not made of dimensions from 1",
        "inputs[2]: missing field `datatype`",
        "outputs[0].datatype: INT64 is not FP32 or FP64",
        "outputs[0].shape: [3, 3] is not one dimension",
        "preprocess: unknown field `widht`",
        "postprocess.top_k.k: 0 is not at least 1",
        "postprocess.top_k.labels_file: ",
        "batch.max_items: 0 is not from 1 to 65536",
        "warm_up.free_dimension: 0 is not from 1",
        "colour: unknown key; expected one of inputs",
    ] {
        assert_fault(&faults, wanted);
    }
}

#[test]
fn an_image_step_must_fit_itself_and_the_model() {
    let faults = faults(
        "
inputs: [{name: image, datatype: UINT8, shape: [3, 4, 5]}]
outputs: [{name: logits, datatype: FP32, shape: [2]}]
preprocess: {image: {width: 4, height: 0, channels: 2, resize: 3, scale: 0, mean: [1], std: [0, 1]}}
postprocess: {top_k: {k: 3, labels: [a, b, c]}}
",
    );
    for wanted in [
        "inputs[0].datatype: UINT8 is not FP32, as an image gives",
        "inputs[0].shape: [3, 4, 5] is not [2, 0, 4], as preprocess.image gives",
        "preprocess.image.height: 0 is not from 1 to 8192",
        "preprocess.image.channels: 2 is not 1 (gray) or 3 (RGB)",
        "preprocess.image.resize: 3 is not from the longer of width and height",
        "preprocess.image.scale: 0 is not above 0",
        "preprocess.image.mean: [1.0] is not one finite number per channel",
        "preprocess.image.std: [0.0, 1.0] is not one number above 0 per channel",
        "postprocess.top_k.k: 3 is not at most the 2 classes of outputs[0]",
        "postprocess.top_k.labels: 3 labels is not one for each of the 2 classes",
    ] {
        assert_fault(&faults, wanted);
    }
}

#[test]
fn a_file_that_is_not_a_map_is_refused_with_the_sections_that_were_expected() {
    assert_fault(&faults("- 1"), "is not a map of inputs");
    assert_fault(&faults("inputs: [unclosed"), "line 1");
    assert_fault(&faults("inputs: 3"), "inputs: 3 is not a list of at least one tensor");
    assert_fault(&faults("inputs: []"), "outputs: is missing");
}

#[test]
fn labels_can_come_from_a_file() {
    let yaml = GOOD.replace("labels: [cat, dog]", "labels_file: names.txt");
    let (_models, folder) = model(&yaml);
    fs::write(folder.join("names.txt"), "tabby cat\nhot dog\n").unwrap();
    let Postprocess::TopK(step) = Manifest::read(&folder).unwrap().postprocess else { panic!() };
    assert_eq!(step.labels, ["tabby cat", "hot dog"]);
    assert_fault(&faults(&GOOD.replace("k: 1", "k: 1, labels_file: x")), "remove one of the two");
}

#[test]
fn an_image_pool_takes_images_and_tensors_and_nothing_else() {
    let (_models, folder) = model(GOOD);
    let manifest = Manifest::read(&folder).unwrap();
    for media_type in ["image/png", "image/jpeg", "IMAGE/WebP; q=1", "image/gif", "image/bmp"] {
        assert_eq!(manifest.check(media_type, b"not decoded here"), Ok(()));
    }
    for media_type in ["text/plain", "image/tiff", "", "application/json"] {
        let fault = manifest.check(media_type, b"x").unwrap_err();
        assert_eq!((fault.kind, fault.field.as_str()), (InputFaultKind::MediaType, "media_type"));
        assert!(fault.message.contains("image/png") && fault.message.contains(TENSORS_MEDIA_TYPE), "{fault}");
    }
    assert_eq!(manifest.check("image/png", b"").unwrap_err().kind, InputFaultKind::Malformed);
    let tensors = br#"{"inputs":[{"name":"image","datatype":"FP32","shape":[3,4,5],"data":[]}]}"#;
    let fault = manifest.check(TENSORS_MEDIA_TYPE, tensors).unwrap_err();
    assert_eq!((fault.kind, fault.field.as_str()), (InputFaultKind::Tensor, "inputs[0].shape"));
}

#[test]
fn a_pool_without_an_image_step_takes_tensors_only() {
    let tensors = "inputs: [{name: x, datatype: INT64, shape: [-1]}]\noutputs: [{name: y, datatype: FP32, shape: []}]";
    let (_models, folder) = model(tensors);
    let manifest = Manifest::read(&folder).unwrap();
    assert_eq!(manifest.check("image/png", b"x").unwrap_err().kind, InputFaultKind::MediaType);
    let body = br#"{"inputs":[{"name":"x","datatype":"INT64","shape":[2],"data":[1,2]}]}"#;
    assert_eq!(manifest.check(TENSORS_MEDIA_TYPE, body), Ok(()));
    assert_eq!(manifest.check(TENSORS_MEDIA_TYPE, b"{").unwrap_err().kind, InputFaultKind::Malformed);
}
