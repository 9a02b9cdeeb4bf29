//! Files and functions must be short enough to read: a file has at most 500 lines, and a function at most 80.

use std::path::{Path, PathBuf};

use millrace_tests::repository;
use proc_macro2::Span;
use syn::visit::{self, Visit};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 80;

/// The Rust files of the repository. Generated code is in the build folder, which is not searched.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let (entry, path) = entry.map(|entry| (entry.file_name(), entry.path())).unwrap();
        let name = entry.to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// The functions of one file that are too long.
struct LongFunctions {
    found: Vec<String>,
}

impl LongFunctions {
    fn check(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = |span: Span| span.start().line;
        let (first, last) = (line(signature.fn_token.span), line(block.brace_token.span.close()));
        let lines = last + 1 - first;
        if lines > MAX_FUNCTION_LINES {
            self.found.push(format!("{first}: {} has {lines} lines", signature.ident));
        }
    }
}

impl<'ast> Visit<'ast> for LongFunctions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.check(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.check(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.check(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[test]
fn no_file_and_no_function_is_too_long() {
    let root = repository().canonicalize().unwrap();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 100, "only {} files were found in {}", files.len(), root.display());
    let mut faults = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display();
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            faults.push(format!("{name} has {lines} lines"));
        }
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut long = LongFunctions { found: Vec::new() };
        long.visit_file(&parsed);
        faults.extend(long.found.iter().map(|function| format!("{name}:{function}")));
    }
    let rule = format!("at most {MAX_FILE_LINES} lines a file and {MAX_FUNCTION_LINES} a function");
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}
