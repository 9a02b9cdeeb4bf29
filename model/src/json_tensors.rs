//! Tensors as JSON. The form of an input is `{"inputs": [{"name", "datatype", "shape", "data"}]}`; the form of an
//! output is the same with `outputs`.
//!
//! Shapes are those of one item, without the batch dimension. Data is flat, in row-major order. The media type is
//! [`TENSORS_MEDIA_TYPE`](crate::TENSORS_MEDIA_TYPE).

use bytes::Bytes;
use serde::de::DeserializeSeed;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::datatype::Datatype;
use crate::input_fault::{InputFault, InputFaultKind};
use crate::tensor::{HostTensor, TensorSpec};

mod element;
mod short_list;

use element::{ElementReader, Keep};

/// The body of an input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputBody<'a> {
    #[serde(borrow, deserialize_with = "short_list::short_list")]
    inputs: Vec<InputTensor<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputTensor<'a> {
    name: String,
    datatype: String,
    #[serde(deserialize_with = "short_list::short_list")]
    shape: Vec<i64>,
    /// The text of the list. Elements take many times the memory of their text, so they are converted one by one.
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The body of an output.
#[derive(Serialize)]
struct OutputBody<'a> {
    outputs: Vec<OutputTensor<'a>>,
}

#[derive(Serialize)]
struct OutputTensor<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [i64],
    data: element::Elements<'a>,
}

/// Reads the tensors of an input body. The result has the order of `wanted`, the inputs of the model.
pub fn read(wanted: &[TensorSpec], body: &[u8]) -> Result<Vec<HostTensor>, InputFault> {
    read_all(wanted, body, Keep::All)
}

/// Checks the tensors of an input body, as [`read`] does, and keeps none of their elements.
pub fn check(wanted: &[TensorSpec], body: &[u8]) -> Result<(), InputFault> {
    read_all(wanted, body, Keep::Nothing).map(|_| ())
}

/// The most memory that [`read`] takes for a body of `body_bytes`, without the body.
pub fn memory(wanted: &[TensorSpec], body_bytes: usize) -> u64 {
    let body_bytes = body_bytes as u64;
    // An element has at least two characters: itself and a comma.
    let most_elements = body_bytes / 2 + 1;
    let elements = |spec: &TensorSpec| {
        let fixed = spec.shape.iter().try_fold(1_u64, |count, size| count.checked_mul(u64::try_from(*size).ok()?));
        fixed.map_or(most_elements, |fixed| fixed.min(most_elements))
    };
    let bytes = |spec: &TensorSpec| elements(spec).saturating_mul(spec.datatype.size_bytes().unwrap_or(1) as u64);
    let data = wanted.iter().map(bytes).fold(0_u64, u64::saturating_add);
    // A name with escapes is a copy of its text. A list of tensors and their shapes is short.
    data.saturating_add(body_bytes).saturating_add(SHORT_LISTS_BYTES)
}

/// Memory for the lists of tensors and sizes, whose lengths are limited.
const SHORT_LISTS_BYTES: u64 = 64 * 1024;

fn unreadable(error: serde_json::Error) -> InputFault {
    match error.is_data() {
        true => InputFault::new(InputFaultKind::Tensor, "body", error.to_string()),
        false => InputFault::new(InputFaultKind::Malformed, "body", format!("not JSON: {error}")),
    }
}

fn read_all(wanted: &[TensorSpec], body: &[u8], keep: Keep) -> Result<Vec<HostTensor>, InputFault> {
    let given: InputBody<'_> = serde_json::from_slice(body).map_err(unreadable)?;
    for (index, tensor) in given.inputs.iter().enumerate() {
        let field = format!("inputs[{index}].name");
        if !wanted.iter().any(|spec| spec.name == tensor.name) {
            let names: Vec<&str> = wanted.iter().map(|spec| spec.name.as_str()).collect();
            let message = format!("{:?} is not an input of the model, which takes {}", tensor.name, names.join(", "));
            return Err(InputFault::new(InputFaultKind::Tensor, field, message));
        }
        if given.inputs[..index].iter().any(|earlier| earlier.name == tensor.name) {
            let message = format!("{:?} is given twice", tensor.name);
            return Err(InputFault::new(InputFaultKind::Tensor, field, message));
        }
    }
    wanted.iter().map(|spec| read_one(spec, &given.inputs, keep)).collect()
}

fn read_one(spec: &TensorSpec, given: &[InputTensor<'_>], keep: Keep) -> Result<HostTensor, InputFault> {
    let Some((index, tensor)) = given.iter().enumerate().find(|(_, tensor)| tensor.name == spec.name) else {
        let message = format!("the tensor {:?} is missing", spec.name);
        return Err(InputFault::new(InputFaultKind::Tensor, "inputs", message));
    };
    let fault = |field: &str, message| {
        Err(InputFault::new(InputFaultKind::Tensor, format!("inputs[{index}].{field}"), message))
    };
    if tensor.datatype != spec.datatype.as_str() {
        let message = format!("{:?} is not {}, the datatype of {:?}", tensor.datatype, spec.datatype, spec.name);
        return fault("datatype", message);
    }
    if !spec.takes_shape(&tensor.shape) {
        let message = format!("{:?} does not fit {:?}, the shape of {:?}", tensor.shape, spec.shape, spec.name);
        return fault("shape", message);
    }
    let count = tensor.shape.iter().try_fold(1_i64, |count, size| count.checked_mul(*size));
    let expected = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let mut elements = ElementReader::new(spec.datatype, keep);
    elements.expect(expected.min(tensor.data.get().len() / 2 + 1));
    let mut json = serde_json::Deserializer::from_str(tensor.data.get());
    elements.deserialize(&mut json).map_err(unreadable)?;
    if count != i64::try_from(elements.count).ok() {
        let message = format!("{} elements do not fill the shape {:?}", elements.count, tensor.shape);
        return fault("data", message);
    }
    if let Some((position, element)) = elements.misfit {
        let message = format!("{element} is not a value of {}", spec.datatype);
        return fault(&format!("data[{position}]"), message);
    }
    let data = elements.data;
    Ok(HostTensor { name: spec.name.clone(), datatype: spec.datatype, shape: tensor.shape.clone(), data: data.into() })
}

/// Writes tensors as the body of an output. A number that is not finite becomes `null`: JSON cannot express it.
pub fn write(tensors: &[HostTensor]) -> Result<Bytes, serde_json::Error> {
    let outputs = (tensors.iter())
        .map(|tensor| OutputTensor {
            name: &tensor.name,
            datatype: tensor.datatype,
            shape: &tensor.shape,
            data: element::Elements { datatype: tensor.datatype, data: &tensor.data },
        })
        .collect();
    serde_json::to_vec(&OutputBody { outputs }).map(Bytes::from)
}

#[cfg(test)]
mod tests;
