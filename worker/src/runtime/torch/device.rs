//! Which device a model runs on.

use std::sync::OnceLock;

use crate::model::{Device, ModelError};

/// The device to load onto.
pub(super) fn choose(device: Device) -> Result<tch::Device, ModelError> {
    match (device, device == Device::Cpu || cuda().is_ok()) {
        (Device::Cpu, _) => Ok(tch::Device::Cpu),
        (Device::Auto | Device::Cuda, true) => Ok(tch::Device::Cuda(0)),
        (Device::Auto, false) => Ok(tch::Device::Cpu),
        (Device::Cuda, false) => {
            let reason = cuda().as_ref().err().map_or("it cannot be used", String::as_str);
            Err(ModelError(format!("device: cuda needs a GPU: {reason}; choose auto or cpu to run without one")))
        }
    }
}

/// Makes libtorch's part for GPUs known to libtorch, once; an error says why there is none.
///
/// The program is linked to the part for CPUs alone, so that it starts where there is no GPU and none of CUDA's
/// libraries. libtorch asks only once what parts there are, so this must come before any other question about CUDA.
fn cuda() -> &'static Result<(), String> {
    static OPENED: OnceLock<Result<(), String>> = OnceLock::new();
    OPENED.get_or_init(|| {
        // The driver first: without it, opening libtorch's part would be long, big and useless.
        open_for_good("libcuda.so.1")?;
        open_for_good("libtorch_cuda.so")?;
        match tch::Cuda::is_available() {
            true => Ok(()),
            false => Err("libtorch finds no GPU that it can use".to_owned()),
        }
    })
}

#[allow(unsafe_code, reason = "opening a library runs its initialisers")]
fn open_for_good(file: &str) -> Result<(), String> {
    // SAFETY: the initialisers of the GPU driver and of libtorch are meant to be run at any time, once; the library is
    // never closed, so nothing that they register can dangle.
    match unsafe { libloading::Library::new(file) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(format!("{file} cannot be opened: {error}")),
    }
}
