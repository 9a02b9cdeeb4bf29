//! Conversion between items in main memory and the tensors of a whole batch.

use bytes::Bytes;
use model::{Datatype, HostTensor, TensorSpec};
use tch::{Device, Kind, TchError, Tensor};

use super::error;
use crate::runtime::error::ModelError;
use crate::runtime::interface::Item;

/// Stacks the items along a new first dimension. Returns one tensor per input, on `device`. Each byte is copied once,
/// and once more to a GPU.
pub(super) fn stack(specs: &[TensorSpec], items: &[Item], device: Device) -> Result<Vec<Tensor>, ModelError> {
    if let Some(item) = items.iter().find(|item| item.tensors.len() != specs.len()) {
        let count = item.tensors.len();
        return Err(ModelError::input(format!("an item has {count} tensors where the model takes {}", specs.len())));
    }
    let stack_input = |(index, spec): (usize, &TensorSpec)| {
        let tensors: Vec<&HostTensor> = items.iter().map(|item| &item.tensors[index]).collect();
        stack_one(spec, &tensors)?.f_to_device(device).map_err(move_failed)
    };
    specs.iter().enumerate().map(stack_input).collect()
}

fn stack_one(spec: &TensorSpec, tensors: &[&HostTensor]) -> Result<Tensor, ModelError> {
    let Some(first) = tensors.first() else { return Err(ModelError::input("a batch has no items")) };
    let kind = kind_of(spec.datatype)?;
    let elements: i64 = first.shape.iter().product();
    let bytes = usize::try_from(elements).unwrap_or(0) * kind.elt_size_in_bytes();
    for tensor in tensors {
        let name = &spec.name;
        if tensor.datatype != spec.datatype {
            return Err(ModelError::input(format!(
                "{name}: the datatype {} is not {}",
                tensor.datatype, spec.datatype
            )));
        }
        if !spec.takes_shape(&tensor.shape) {
            return Err(ModelError::input(format!(
                "{name}: the shape {:?} does not fit {:?}",
                tensor.shape, spec.shape
            )));
        }
        if tensor.shape != first.shape {
            let shapes = format!("{:?} and {:?}", first.shape, tensor.shape);
            return Err(ModelError::input(format!("{name}: the shapes {shapes} cannot share a batch")));
        }
        if tensor.data.len() != bytes {
            let given = tensor.data.len();
            return Err(ModelError::input(format!("{name}: {given} bytes do not fill the shape {:?}", tensor.shape)));
        }
    }
    let mut shape = vec![tensors.len() as i64];
    shape.extend(&first.shape);
    let whole = Tensor::f_empty(&shape, (kind, Device::Cpu)).map_err(move_failed)?;
    fill(&whole, bytes, tensors);
    Ok(whole)
}

/// Copies the data of the tensors, each `bytes` long, one after the other into `whole`.
#[allow(unsafe_code, reason = "the safe functions of tch that fill a tensor copy everything twice")]
fn fill(whole: &Tensor, bytes: usize, tensors: &[&HostTensor]) {
    let room = whole.numel() * whole.kind().elt_size_in_bytes();
    assert!(room == bytes * tensors.len() && tensors.iter().all(|tensor| tensor.data.len() == bytes));
    let start = whole.data_ptr().cast::<u8>();
    if room == 0 {
        return;
    }
    for (index, tensor) in tensors.iter().enumerate() {
        // SAFETY: `whole` is new, contiguous, in main memory, and has no other reference. It holds `room` bytes, and
        // the assertion above proves that exactly these bytes are written here.
        unsafe { std::ptr::copy_nonoverlapping(tensor.data.as_ptr(), start.add(index * bytes), bytes) };
    }
}

/// Splits the outputs of a batch into the outputs of each item.
pub(super) fn split(
    specs: &[TensorSpec],
    outputs: &[Tensor],
    items: usize,
) -> Result<Vec<Vec<HostTensor>>, ModelError> {
    if outputs.len() != specs.len() {
        let counts = format!("{} tensors where {} were expected", outputs.len(), specs.len());
        return Err(ModelError::model(format!("forward returned {counts}")));
    }
    let mut shares: Vec<Vec<HostTensor>> = (0..items).map(|_| Vec::with_capacity(specs.len())).collect();
    for (spec, output) in specs.iter().zip(outputs) {
        let (shape, data) = to_host(spec, output, items)?;
        let bytes = data.len() / items.max(1);
        for (index, share) in shares.iter_mut().enumerate() {
            share.push(HostTensor {
                name: spec.name.clone(),
                datatype: spec.datatype,
                shape: shape.clone(),
                data: data.slice(index * bytes..(index + 1) * bytes),
            });
        }
    }
    Ok(shares)
}

/// The shape of the output of one item, and the elements of all items.
fn to_host(spec: &TensorSpec, output: &Tensor, items: usize) -> Result<(Vec<i64>, Bytes), ModelError> {
    let name = &spec.name;
    // Results in half precision become FP32: no datatype of ours is shorter.
    let output = match output.kind() {
        Kind::Half | Kind::BFloat16 => output.f_to_kind(Kind::Float).map_err(move_failed)?,
        _ => output.shallow_clone(),
    };
    let wanted = kind_of(spec.datatype)?;
    if output.kind() != wanted {
        let kind = output.kind();
        return Err(ModelError::model(format!("{name}: forward returned {kind:?} where {wanted:?} was expected")));
    }
    let size = output.size();
    let fits = |given: &i64, wanted: &i64| *wanted == -1 || given == wanted;
    let shape = match size.split_first() {
        Some((rows, shape)) if *rows == items as i64 => shape.to_vec(),
        _ => {
            let message = format!("{name}: forward returned the shape {size:?} for a batch of {items}");
            return Err(ModelError::model(message));
        }
    };
    if shape.len() != spec.shape.len() || !shape.iter().zip(&spec.shape).all(|(given, wanted)| fits(given, wanted)) {
        let wanted = &spec.shape;
        return Err(ModelError::model(format!(
            "{name}: forward returned the shape {shape:?} where {wanted:?} was expected"
        )));
    }
    let output = output.f_to_device(Device::Cpu).and_then(|output| output.f_contiguous()).map_err(move_failed)?;
    let mut data = vec![0; output.numel() * wanted.elt_size_in_bytes()];
    output.f_copy_data_u8(&mut data, output.numel()).map_err(move_failed)?;
    Ok((shape, data.into()))
}

/// An item of zeros. `free` is the size of each free dimension.
pub(super) fn blank(specs: &[TensorSpec], free: i64) -> Item {
    let zeros = |spec: &TensorSpec| {
        let shape: Vec<i64> = spec.shape.iter().map(|size| if *size == -1 { free } else { *size }).collect();
        let elements = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        let data = vec![0; elements * spec.datatype.size_bytes().unwrap_or(0)];
        HostTensor { name: spec.name.clone(), datatype: spec.datatype, shape, data: data.into() }
    };
    Item { tensors: specs.iter().map(zeros).collect() }
}

fn kind_of(datatype: Datatype) -> Result<Kind, ModelError> {
    match datatype {
        Datatype::Bool => Ok(Kind::Bool),
        Datatype::Uint8 => Ok(Kind::Uint8),
        Datatype::Int8 => Ok(Kind::Int8),
        Datatype::Int16 => Ok(Kind::Int16),
        Datatype::Int32 => Ok(Kind::Int),
        Datatype::Int64 => Ok(Kind::Int64),
        Datatype::Fp32 => Ok(Kind::Float),
        Datatype::Fp64 => Ok(Kind::Double),
        Datatype::Bytes => Err(ModelError::model("TorchScript has no tensors of BYTES")),
    }
}

fn move_failed(error: TchError) -> ModelError {
    error::model_error("a batch could not be moved", &error)
}
