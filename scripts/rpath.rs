//! A build script that lets the programs and tests of a crate find libtorch without `LD_LIBRARY_PATH`.

use std::env;
use std::path::Path;

fn main() {
    // Cargo runs the script in the folder of the crate.
    println!("cargo:rerun-if-changed=../scripts/rpath.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let (Some(_), Some(libtorch)) = (env::var_os("CARGO_FEATURE_TORCH"), env::var_os("LIBTORCH")) else { return };
    // PyPI's torch has CUDA libraries in the second folder. Even its CPU part is linked with them.
    for folder in ["lib", "../nvidia/cu13/lib"] {
        if let Ok(folder) = Path::new(&libtorch).join(folder).canonicalize() {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
        }
    }
}
