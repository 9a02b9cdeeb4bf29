use super::*;

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
}

fn wanted() -> Vec<TensorSpec> {
    vec![spec("x", Datatype::Fp32, &[2, -1]), spec("mask", Datatype::Bool, &[2])]
}

fn fault(body: &str) -> (String, String, InputFaultKind) {
    let fault = read(&wanted(), body.as_bytes()).unwrap_err();
    let checked = check(&wanted(), body.as_bytes()).unwrap_err();
    assert_eq!((&checked.field, &checked.message, checked.kind), (&fault.field, &fault.message, fault.kind));
    (fault.field, fault.message, fault.kind)
}

const X: &str = r#"{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,-2.5,3e2,0]}"#;
const MASK: &str = r#"{"name":"mask","datatype":"BOOL","shape":[2],"data":[true,false]}"#;

#[test]
fn tensors_are_read_in_the_models_order_whatever_the_order_given() {
    let tensors = read(&wanted(), format!(r#"{{"inputs":[{MASK},{X}]}}"#).as_bytes()).unwrap();
    assert_eq!((tensors[0].name.as_str(), tensors[1].name.as_str()), ("x", "mask"));
    assert_eq!(tensors[0].shape, [2, 2]);
    let values: Vec<f32> = tensors[0].data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(values, [1.0, -2.5, 300.0, 0.0]);
    assert_eq!(tensors[1].data[..], [1, 0]);
    assert_eq!(check(&wanted(), format!(r#"{{"inputs":[{MASK},{X}]}}"#).as_bytes()), Ok(()));
}

#[test]
fn each_fault_names_its_field_and_value() {
    let with_x = |from: &str, to: &str| fault(&format!(r#"{{"inputs":[{},{MASK}]}}"#, X.replace(from, to)));
    for (from, to, field, message) in [
        (r#""x""#, r#""y""#, "inputs[0].name", r#""y" is not an input of the model, which takes x, mask"#),
        ("FP32", "FP64", "inputs[0].datatype", r#""FP64" is not FP32"#),
        ("[2,2]", "[3,2]", "inputs[0].shape", "[3, 2] does not fit [2, -1]"),
        ("[2,2]", "[2,0]", "inputs[0].shape", "[2, 0] does not fit"),
        ("[2,2]", "[2,-1]", "inputs[0].data", "4 elements do not fill the shape [2, -1]"),
        ("[2,2]", "[2,3]", "inputs[0].data", "4 elements do not fill the shape [2, 3]"),
        ("[2,2]", "[2,9223372036854775807]", "inputs[0].data", "4 elements do not fill"),
        ("-2.5", "true", "inputs[0].data[1]", "true is not a value of FP32"),
        ("-2.5", "1e39", "inputs[0].data[1]", "1e39 is not a value of FP32"),
        ("-2.5", "[1]", "body", "expected a number, true or false"),
        (r#""shape""#, r#""sharp""#, "body", "unknown field `sharp`"),
    ] {
        let (found, text, kind) = with_x(from, to);
        assert_eq!((found.as_str(), kind), (field, InputFaultKind::Tensor), "{text}");
        assert!(text.contains(message), "{text}");
    }
}

#[test]
fn a_tensor_must_be_given_once() {
    assert_eq!(fault(&format!(r#"{{"inputs":[{X}]}}"#)).1, r#"the tensor "mask" is missing"#);
    assert_eq!(fault(&format!(r#"{{"inputs":[{X},{MASK},{X}]}}"#)).0, "inputs[2].name");
}

#[test]
fn a_body_that_is_not_json_is_malformed() {
    for body in ["", "{", "PNG", r#"{"inputs":[}"#] {
        let (field, message, kind) = fault(body);
        assert_eq!((field.as_str(), kind), ("body", InputFaultKind::Malformed), "{message}");
    }
}

#[test]
fn an_integer_must_fit_its_type() {
    for (datatype, good, bad) in [
        (Datatype::Uint8, "255", "256"),
        (Datatype::Int8, "-128", "-129"),
        (Datatype::Int16, "32767", "32768"),
        (Datatype::Int32, "-2147483648", "2147483648"),
        (Datatype::Int64, "9223372036854775807", "9223372036854775808"),
        (Datatype::Int64, "1", "1.5"),
        (Datatype::Bool, "true", "1"),
    ] {
        let body = |value: &str| {
            format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[],"data":[{value}]}}]}}"#)
        };
        let wanted = [spec("x", datatype, &[])];
        let tensors = read(&wanted, body(good).as_bytes()).unwrap();
        assert_eq!(Some(tensors[0].data.len()), datatype.size_bytes());
        assert_eq!(read(&wanted, body(bad).as_bytes()).unwrap_err().field, "inputs[0].data[0]");
    }
}

#[test]
fn tensors_are_written_as_they_are_read() {
    let tensors = read(&wanted(), format!(r#"{{"inputs":[{X},{MASK}]}}"#).as_bytes()).unwrap();
    let text = String::from_utf8(write(&tensors).unwrap().to_vec()).unwrap();
    let expected = concat!(
        r#"{"outputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[1.0,-2.5,300.0,0.0]},"#,
        r#"{"name":"mask","datatype":"BOOL","shape":[2],"data":[true,false]}]}"#
    );
    assert_eq!(text, expected);
    assert_eq!(read(&wanted(), text.replace("outputs", "inputs").as_bytes()).unwrap(), tensors);
}

#[test]
fn the_check_keeps_no_element() {
    let spec = spec("x", Datatype::Fp64, &[-1]);
    let text = format!("[{}1]", "0,".repeat(10_000));
    let mut elements = ElementReader::new(spec.datatype, Keep::Nothing);
    elements.deserialize(&mut serde_json::Deserializer::from_str(&text)).unwrap();
    assert_eq!((elements.count, elements.data.len()), (10_001, 0));
    assert!(elements.data.capacity() < 100);
}
