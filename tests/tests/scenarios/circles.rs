//! No import circles between the modules of a crate, so that each module can be read, tested and moved alone.
//!
//! Imports between a module and its ancestors do not count: a parent declares and re-exports its children, and a child
//! may use its parent's items. The import of a re-exported name counts twice: as an import of the module that
//! re-exports it, and of the module that defines it.

mod modules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cargo_metadata::{MetadataCommand, TargetKind};
use millrace_tests::repository;

use modules::{Module, ModulePath};

/// Imports that are allowed although they close a circle: crate, from, to, reason.
const EXCEPTIONS: [(&str, &str, &str, &str); 0] = [];

/// The longest chain of re-exports that is followed.
const MAX_REEXPORTS: usize = 8;

type Modules = BTreeMap<ModulePath, Module>;

/// The imports between modules: from, to, and one place of the import as `file:line`.
type Arrows<'a> = BTreeMap<&'a ModulePath, BTreeMap<&'a ModulePath, String>>;

/// Finds the modules behind paths.
struct Resolver<'a> {
    modules: &'a Modules,
}

impl<'a> Resolver<'a> {
    /// Adds the modules that a path reaches when it is written in module `from`.
    fn resolve(&self, from: &'a ModulePath, segments: &[String], found: &mut Vec<&'a ModulePath>, depth: usize) {
        let Some((first, rest)) = segments.split_first() else { return };
        let child = |module: &ModulePath, name: &String| [module.as_slice(), std::slice::from_ref(name)].concat();
        match first.as_str() {
            "crate" => self.descend(&[], rest, found, depth),
            "self" => self.descend(from, rest, found, depth),
            "super" => {
                let mut base = from.as_slice();
                let mut rest = segments;
                while let Some((first, after)) = rest.split_first()
                    && first == "super"
                    && let Some((_, parent)) = base.split_last()
                {
                    (base, rest) = (parent, after);
                }
                self.descend(base, rest, found, depth);
            }
            _ if self.modules.contains_key(&child(from, first)) => self.descend(from, segments, found, depth),
            _ => self.follow(from, first, rest, found, depth),
        }
    }

    /// Walks down from module `base` as far as the segments name modules, and then follows re-exports.
    fn descend(&self, base: &[String], segments: &[String], found: &mut Vec<&'a ModulePath>, depth: usize) {
        let mut place = base.to_vec();
        let mut rest = segments;
        while let Some((first, after)) = rest.split_first() {
            place.push(first.clone());
            if !self.modules.contains_key(&place) {
                place.pop();
                break;
            }
            rest = after;
        }
        let Some((module, source)) = self.modules.get_key_value(&place) else { return };
        found.push(module);
        if let Some((name, after)) = rest.split_first()
            && !source.items.contains(name)
        {
            self.follow(module, name, after, found, depth);
        }
    }

    /// Follows a name that a module imports.
    fn follow(
        &self,
        module: &'a ModulePath,
        name: &String,
        rest: &[String],
        found: &mut Vec<&'a ModulePath>,
        depth: usize,
    ) {
        if depth == MAX_REEXPORTS {
            return;
        }
        let source = &self.modules[module];
        if let Some(import) = source.imports.get(name) {
            // `use name::Item` imports from the crate `name`. It does not import itself.
            if import.segments.first() != Some(name) {
                self.resolve(module, &[import.segments.as_slice(), rest].concat(), found, depth + 1);
            }
            return;
        }
        for glob in &source.globs {
            let mut origins = Vec::new();
            self.resolve(module, &glob.segments, &mut origins, depth + 1);
            let defines = |origin: &ModulePath| {
                let origin = &self.modules[origin];
                origin.items.contains(name) || origin.imports.contains_key(name)
            };
            if let Some(origin) = origins.last().filter(|origin| **origin != module && defines(origin)) {
                self.descend(origin, &[std::slice::from_ref(name), rest].concat(), found, depth + 1);
                return;
            }
        }
    }
}

/// All imports within a crate, except those between a module and its ancestors.
fn arrows(modules: &Modules) -> Arrows<'_> {
    let resolver = Resolver { modules };
    let mut arrows = Arrows::new();
    for (from, source) in modules {
        for path in &source.paths {
            let mut found = Vec::new();
            resolver.resolve(from, &path.segments, &mut found, 0);
            for to in found.into_iter().filter(|to| !from.starts_with(to) && !to.starts_with(from)) {
                let place = || format!("{}:{}", source.file.display(), path.line);
                arrows.entry(from).or_default().entry(to).or_insert_with(place);
            }
        }
    }
    arrows
}

/// The shortest way from one module to another, both included.
fn way<'a>(arrows: &Arrows<'a>, from: &'a ModulePath, to: &'a ModulePath) -> Option<Vec<&'a ModulePath>> {
    let mut came_from = BTreeMap::from([(from, from)]);
    let mut waiting = VecDeque::from([from]);
    while let Some(module) = waiting.pop_front() {
        if module == to {
            let mut way = vec![to];
            while way.last() != Some(&from) {
                way.push(came_from[way[way.len() - 1]]);
            }
            way.reverse();
            return Some(way);
        }
        for next in arrows.get(module).into_iter().flat_map(|next| next.keys()) {
            if !came_from.contains_key(next) {
                came_from.insert(next, module);
                waiting.push_back(next);
            }
        }
    }
    None
}

/// Every circle once, as text with the place of each import.
fn circles(arrows: &Arrows<'_>) -> Vec<String> {
    let mut reported = BTreeSet::new();
    let mut circles = Vec::new();
    for (from, next) in arrows {
        for to in next.keys() {
            let Some(back) = way(arrows, to, from) else { continue };
            if !reported.insert(back.iter().copied().collect::<BTreeSet<_>>()) {
                continue;
            }
            let circle: Vec<&ModulePath> = std::iter::once(*from).chain(back).collect();
            let steps = circle.windows(2).map(|step| {
                let [from, to] = step else { return String::new() };
                format!("    {} → {}  ({})", name(from), name(to), arrows[from][to])
            });
            circles.push(steps.collect::<Vec<_>>().join("\n"));
        }
    }
    circles
}

fn name(module: &ModulePath) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

#[test]
fn no_crate_has_an_import_circle() {
    let root = repository().canonicalize().unwrap();
    let metadata = MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec().unwrap();
    let mut faults = Vec::new();
    let mut modules_read = 0;
    for package in &metadata.packages {
        for target in package.targets.iter().filter(|target| !target.kind.contains(&TargetKind::CustomBuild)) {
            let mut modules = modules::read(target.src_path.as_std_path());
            modules_read += modules.len();
            for module in modules.values_mut() {
                module.file = module.file.strip_prefix(&root).unwrap_or(&module.file).to_owned();
            }
            let mut arrows = arrows(&modules);
            for (from, next) in &mut arrows {
                next.retain(|to, _| {
                    !EXCEPTIONS.iter().any(|(of, one, other, _)| {
                        *of == package.name.as_str() && *one == name(from) && *other == name(to)
                    })
                });
            }
            let found = circles(&arrows);
            faults.extend(found.iter().map(|circle| format!("{} ({}):\n{circle}", package.name, target.name)));
        }
    }
    assert!(modules_read > 100, "only {modules_read} modules were read");
    assert!(faults.is_empty(), "{} import circles:\n{}", faults.len(), faults.join("\n"));
}
