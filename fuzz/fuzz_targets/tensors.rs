//! JSON tensors, the input of a model without an image.
//!
//! The fault of a rejected body names a field and a reason. Tensors that are written as JSON are read as the same
//! tensors.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use model::{Datatype, HostTensor, TensorSpec, json_tensors};

/// The inputs of some models: one tensor `x` of each datatype, and two tensors of which one is a single number.
static MODELS: LazyLock<Vec<Vec<TensorSpec>>> = LazyLock::new(|| {
    use Datatype::{Bool, Fp32, Fp64, Int8, Int16, Int32, Int64, Uint8};
    let spec =
        |name: &str, datatype, shape: &[i64]| TensorSpec { name: name.to_owned(), datatype, shape: shape.into() };
    let datatypes = [Bool, Uint8, Int8, Int16, Int32, Int64, Fp32, Fp64];
    let mut models: Vec<_> = datatypes.into_iter().map(|datatype| vec![spec("x", datatype, &[-1])]).collect();
    models.push(vec![spec("a", Fp32, &[2, -1]), spec("b", Int64, &[])]);
    models
});

fuzz_target!(|body: &[u8]| {
    for model in MODELS.iter() {
        match json_tensors::read(model, body) {
            Ok(tensors) => check(model, &tensors),
            Err(fault) => assert!(!fault.field.is_empty() && !fault.message.is_empty(), "{fault:?}"),
        }
    }
});

fn check(model: &[TensorSpec], tensors: &[HostTensor]) {
    for tensor in tensors {
        let count = usize::try_from(tensor.shape.iter().product::<i64>()).expect("a number of elements");
        assert_eq!(tensor.data.len(), count * tensor.datatype.size_bytes().expect("a datatype of fixed size"));
    }
    let written = json_tensors::write(tensors).expect("tensors can be written");
    let body = String::from_utf8(written.to_vec()).expect("JSON is UTF-8").replacen("outputs", "inputs", 1);
    let again = json_tensors::read(model, body.as_bytes()).expect("tensors that were written can be read");
    assert_eq!(again, tensors);
}
