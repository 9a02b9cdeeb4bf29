//! The errors of libtorch: their kind and a message of one line.

use tch::TchError;

use crate::runtime::error::{ModelError, ModelErrorKind};

/// The texts of libtorch for an allocation that failed: on a GPU, and in main memory.
const OUT_OF_MEMORY: [&str; 5] =
    ["out of memory", "OutOfMemoryError", "CUBLAS_STATUS_ALLOC_FAILED", "not enough memory", "can't allocate memory"];

/// The texts of libtorch for a device that failed.
const DEVICE: [&str; 6] =
    ["CUDA error", "CUDA driver", "cuDNN error", "CUBLAS_STATUS_", "CUSOLVER_STATUS_", "device-side assert"];

/// An error of libtorch. `action` is the call that failed.
pub(super) fn model_error(action: &str, error: &TchError) -> ModelError {
    let text = text(error);
    ModelError::new(kind(&text), format!("{action}: {}", first_reason(&text)))
}

fn text(error: &TchError) -> String {
    match error {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    }
}

fn kind(text: &str) -> ModelErrorKind {
    let has_any = |patterns: &[&str]| patterns.iter().any(|pattern| text.contains(pattern));
    // A failed allocation on a GPU is also reported as a CUDA error, so it is tested first.
    if has_any(&OUT_OF_MEMORY) {
        ModelErrorKind::OutOfMemory
    } else if has_any(&DEVICE) {
        ModelErrorKind::Device
    } else {
        ModelErrorKind::Model
    }
}

/// The line that names the cause. Stack traces, which fill a page, are left out.
fn first_reason(text: &str) -> String {
    let lines: Vec<&str> =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Exception raised")).collect();
    // The exception of a script is on the last line: `builtins.ValueError: the first value is negative`.
    let is_exception = |line: &&&str| line.split_once("Error: ").is_some_and(|(kind, _)| !kind.contains(' '));
    let chosen = lines.iter().rfind(is_exception).or_else(|| lines.iter().find(|line| !line.is_empty()));
    chosen.map_or_else(|| "libtorch gave no reason".to_owned(), |line| (*line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_libtorch_are_sorted_by_their_cause() {
        for (text, kind) in [
            (
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB",
                ModelErrorKind::OutOfMemory,
            ),
            (
                "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: \
                 you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)",
                ModelErrorKind::OutOfMemory,
            ),
            ("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`", ModelErrorKind::OutOfMemory),
            ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", ModelErrorKind::OutOfMemory),
            (
                "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously \
                 reported at some other API call",
                ModelErrorKind::Device,
            ),
            ("CUDA error: device-side assert triggered", ModelErrorKind::Device),
            ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", ModelErrorKind::Device),
            ("The size of tensor a (2) must match the size of tensor b (3)", ModelErrorKind::Model),
            ("builtins.ValueError: the first value is negative", ModelErrorKind::Model),
        ] {
            let error = model_error("the forward pass failed", &TchError::Torch(text.to_owned()));
            assert_eq!(error.kind(), kind, "{text}");
        }
    }
}
