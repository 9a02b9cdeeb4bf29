use std::fs;

use model::Datatype;

use super::*;

fn pipeline(yaml: &str) -> Pipeline {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("tried/1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.yaml"), yaml).unwrap();
    Pipeline::new(Manifest::read(&folder).unwrap())
}

fn text(output: Output) -> (String, String) {
    let Body::Inline(body) = output.body else { panic!("{:?}", output.body) };
    (output.media_type, String::from_utf8(body.to_vec()).unwrap())
}

fn two_numbers() -> HostTensor {
    let data = [0.0_f32, 0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    HostTensor { name: "y".to_owned(), datatype: Datatype::Fp32, shape: vec![2], data }
}

const TENSORS: &str = "
inputs: [{name: x, datatype: UINT8, shape: [2]}]
outputs: [{name: y, datatype: FP32, shape: [2]}]
";

const IMAGES: &str = "
inputs: [{name: x, datatype: FP32, shape: [1, 2, 2]}]
outputs: [{name: y, datatype: FP32, shape: [2]}]
preprocess: {image: {width: 2, height: 2, channels: 1}}
postprocess: {top_k: {k: 1, labels: [no, 'yes']}}
";

#[test]
fn tensors_are_read_and_written_as_json() {
    let pipeline = pipeline(TENSORS);
    let body = br#"{"inputs":[{"name":"x","datatype":"UINT8","shape":[2],"data":[7,8]}]}"#;
    let item = pipeline.prepare("application/vnd.millrace.tensors+json; charset=utf-8", body).unwrap();
    assert_eq!(item.tensors[0].data[..], [7, 8]);
    let (media_type, body) = text(pipeline.present(&[two_numbers()]).unwrap());
    assert_eq!(media_type, TENSORS_MEDIA_TYPE);
    assert_eq!(body, r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[0.0,0.0]}]}"#);
}

#[test]
fn predictions_are_written_as_json() {
    let (media_type, body) = text(pipeline(IMAGES).present(&[two_numbers()]).unwrap());
    assert_eq!(media_type, "application/json");
    assert_eq!(body, r#"{"predictions":[{"label":"no","probability":0.5}]}"#);
}

#[test]
fn a_wrong_input_is_the_fault_of_its_job() {
    for (yaml, media_type, body, message) in [
        (IMAGES, "image/png", &b"\x89PNG"[..], "body: not a readable image/png: "),
        (IMAGES, "text/plain", b"x", "media_type: \"text/plain\" is not one of image/png"),
        (TENSORS, "image/png", b"x", "media_type: \"image/png\" is not one of application/vnd"),
        (TENSORS, TENSORS_MEDIA_TYPE, b"{}", "body: missing field `inputs`"),
    ] {
        let error = pipeline(yaml).prepare(media_type, body).unwrap_err();
        assert_eq!(error.kind, "bad_input");
        assert!(error.message.starts_with(message), "{}", error.message);
    }
}

#[test]
fn an_output_that_cannot_be_presented_is_the_fault_of_the_model() {
    let error = pipeline(IMAGES).present(&[]).unwrap_err();
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("model_error", "the model returned no tensor"));
}
