//! A crate's build script: lets its programs and tests find libtorch without `LD_LIBRARY_PATH`.

use std::env;
use std::path::Path;

fn main() {
    // Cargo runs it in the crate's folder.
    println!("cargo:rerun-if-changed=../scripts/rpath.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let (Some(_), Some(libtorch)) = (env::var_os("CARGO_FEATURE_TORCH"), env::var_os("LIBTORCH")) else { return };
    // The second is where PyPI's torch has the CUDA libraries that even its CPU part asks for.
    for folder in ["lib", "../nvidia/cu13/lib"] {
        if let Ok(folder) = Path::new(&libtorch).join(folder).canonicalize() {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
        }
    }
}
