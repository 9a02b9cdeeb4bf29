//! The choice of the device that a model runs on.

use std::sync::OnceLock;

use crate::runtime::error::{ModelError, ModelErrorKind};
use crate::runtime::settings::Device;

/// Chooses the device to load a model onto.
pub(super) fn choose(device: Device) -> Result<tch::Device, ModelError> {
    match (device, device == Device::Cpu || cuda().is_ok()) {
        (Device::Cpu, _) => Ok(tch::Device::Cpu),
        (Device::Auto | Device::Cuda, true) => Ok(tch::Device::Cuda(0)),
        (Device::Auto, false) => Ok(tch::Device::Cpu),
        (Device::Cuda, false) => {
            let reason = cuda().as_ref().err().map_or("it cannot be used", String::as_str);
            let message = format!("device: cuda needs a GPU: {reason}; choose auto or cpu to run without one");
            Err(ModelError::new(ModelErrorKind::Device, message))
        }
    }
}

/// Opens libtorch's library for GPUs, once. The error is the reason why there is no usable GPU.
///
/// The program links only to the library for CPUs, so that it starts without a GPU and without CUDA's libraries.
/// libtorch looks for its libraries only once, so this must come before any other call about CUDA.
fn cuda() -> &'static Result<(), String> {
    static OPENED: OnceLock<Result<(), String>> = OnceLock::new();
    OPENED.get_or_init(|| {
        // The GPU driver is opened first. Without it, opening libtorch's library would be slow and useless.
        open_forever("libcuda.so.1")?;
        open_forever("libtorch_cuda.so")?;
        match tch::Cuda::is_available() {
            true => Ok(()),
            false => Err("libtorch finds no GPU that it can use".to_owned()),
        }
    })
}

#[allow(unsafe_code, reason = "opening a library runs its initialisers")]
fn open_forever(file: &str) -> Result<(), String> {
    // SAFETY: the initialisers of the GPU driver and of libtorch may run once, at any time. The library is never
    // closed, so nothing that they register can dangle.
    match unsafe { libloading::Library::new(file) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(format!("{file} cannot be opened: {error}")),
    }
}
