//! Which modules of the gateway may use which.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The code of each module, by its path in the crate: `intake::pool`. Lines that are comments are left out.
fn modules() -> BTreeMap<String, String> {
    fn read(folder: &Path, parent: &str, modules: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let module = format!("{parent}{}", path.file_stem().unwrap().to_str().unwrap());
            if path.is_dir() {
                read(&path, &format!("{module}::"), modules);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>();
                modules.insert(module, code.join("\n"));
            }
        }
    }
    let mut modules = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut modules);
    modules
}

/// The paths in `code` that start with `crate::`, without this prefix. `crate::jobs::{result, wait}` is two paths.
fn paths(code: &str) -> Vec<String> {
    fn expand(prefix: &str, rest: &str, paths: &mut Vec<String>) {
        let name_end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(name_end);
        let prefix = format!("{prefix}{name}");
        let Some(group) = rest.strip_prefix('{') else {
            paths.push(prefix);
            return;
        };
        let (mut depth, mut start) = (0, 0);
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    expand(&prefix, group[start..index].trim(), paths);
                    start = index + 1;
                    if c == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
    }
    let mut paths = Vec::new();
    for (index, start) in code.match_indices("crate::") {
        expand("", &code[index + start.len()..], &mut paths);
    }
    paths
}

/// The module that a path names. If the path names an item, the module of the item.
fn module_of<'a>(path: &'a str, modules: &BTreeMap<String, String>) -> Option<&'a str> {
    let mut path = path.trim_end_matches(':');
    while !modules.contains_key(path) {
        path = path.rsplit_once("::")?.0;
    }
    Some(path)
}

#[test]
fn the_intake_reaches_no_module_that_uses_axum() {
    let modules = modules();
    let is_intake = |module: &str| module == "intake" || module.starts_with("intake::");
    let mut open: Vec<String> = modules.keys().filter(|module| is_intake(module)).cloned().collect();
    assert!(open.len() > 1, "the intake has moved");
    let mut reached = BTreeSet::new();
    while let Some(module) = open.pop() {
        let code = &modules[&module];
        assert!(!code.contains("axum"), "the intake must know no protocol, but reaches {module}, which uses axum");
        open.extend(paths(code).iter().filter_map(|path| module_of(path, &modules)).map(str::to_owned));
        reached.insert(module);
        open.retain(|module| !reached.contains(module));
    }
    assert!(reached.contains("metrics"), "{reached:?}");
}

#[test]
fn groups_of_paths_are_expanded() {
    let code = "use crate::jobs::{result, status::{A, B}};\nlet x = crate::paths::job(id);";
    assert_eq!(paths(code), ["jobs::result", "jobs::status::A", "jobs::status::B", "paths::job"]);
}
