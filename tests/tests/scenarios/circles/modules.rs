//! The modules of a crate, and the paths that each module uses, read from the source text.
//!
//! Modules under `#[cfg(test)]`, and modules named `tests…`, are left out. The reader resolves no types and expands no
//! macro; in a macro call it finds the paths among the tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A module: the names of its ancestors and itself, without the crate. The crate's root is empty.
pub(super) type ModulePath = Vec<String>;

/// A path as it is written, and its line.
#[derive(Debug, Clone)]
pub(super) struct WrittenPath {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

/// The source of one module.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) file: PathBuf,
    /// The names of the items that it defines.
    pub(super) items: BTreeSet<String>,
    /// The names that it imports, with their paths.
    pub(super) imports: BTreeMap<String, WrittenPath>,
    /// The modules whose names it imports with `*`.
    pub(super) globs: Vec<WrittenPath>,
    /// All paths in its items.
    pub(super) paths: Vec<WrittenPath>,
}

/// Reads all modules of the crate whose root is this file.
pub(super) fn read(root: &Path) -> BTreeMap<ModulePath, Module> {
    let mut modules = BTreeMap::new();
    let folder = root.parent().unwrap_or(Path::new(".")).to_owned();
    read_file(root, &folder, Vec::new(), &mut modules);
    modules
}

fn read_file(file: &Path, folder: &Path, path: ModulePath, modules: &mut BTreeMap<ModulePath, Module>) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    read_items(&parsed.items, file, folder, path, modules);
}

fn read_items(
    items: &[syn::Item],
    file: &Path,
    folder: &Path,
    path: ModulePath,
    modules: &mut BTreeMap<ModulePath, Module>,
) {
    let mut reader = Reader { module: Module { file: file.to_owned(), ..Module::default() } };
    for item in items {
        match item {
            syn::Item::Mod(child) => {
                if is_test(&child.attrs) || child.ident.to_string().starts_with("tests") {
                    continue;
                }
                let name = child.ident.to_string();
                let child_path = [path.as_slice(), std::slice::from_ref(&name)].concat();
                let child_folder = folder.join(&name);
                match &child.content {
                    Some((_, items)) => read_items(items, file, &child_folder, child_path, modules),
                    None => read_file(&folder.join(format!("{name}.rs")), &child_folder, child_path, modules),
                }
            }
            item if is_test(attributes(item)) => {}
            item => {
                reader.module.items.extend(name_of(item));
                reader.visit_item(item);
            }
        }
    }
    modules.insert(path, reader.module);
}

/// Collects the imports and the paths of one module.
struct Reader {
    module: Module,
}

impl Reader {
    fn import(&mut self, tree: &syn::UseTree, mut prefix: Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, prefix.clone())),
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                self.module.globs.push(WrittenPath { segments: prefix.clone(), line });
                self.module.paths.push(WrittenPath { segments: prefix, line });
            }
            syn::UseTree::Name(name) => self.import_name(&name.ident, &name.ident, prefix),
            syn::UseTree::Rename(rename) => self.import_name(&rename.ident, &rename.rename, prefix),
        }
    }

    fn import_name(&mut self, imported: &syn::Ident, name: &syn::Ident, mut segments: Vec<String>) {
        let line = imported.span().start().line;
        let mut name = name.to_string();
        if imported == "self" {
            // `use a::b::{self}` imports `b`.
            if name == "self" {
                name = segments.last().cloned().unwrap_or_default();
            }
        } else {
            segments.push(imported.to_string());
        }
        let path = WrittenPath { segments, line };
        self.module.paths.push(path.clone());
        self.module.imports.insert(name, path);
    }

    fn scan(&mut self, tokens: TokenStream) {
        let mut segments: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        let mut end = |segments: &mut Vec<String>, line: usize| {
            if segments.len() > 1 {
                self.module.paths.push(WrittenPath { segments: segments.clone(), line });
            }
            segments.clear();
        };
        let mut groups = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        end(&mut segments, line);
                        line = ident.span().start().line;
                    }
                    segments.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !segments.is_empty() => colons += 1,
                TokenTree::Group(group) => {
                    end(&mut segments, line);
                    colons = 0;
                    groups.push(group.stream());
                }
                _ => {
                    end(&mut segments, line);
                    colons = 0;
                }
            }
        }
        end(&mut segments, line);
        groups.into_iter().for_each(|group| self.scan(group));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // A leading `::` names another crate.
        if item.leading_colon.is_none() && !is_test(&item.attrs) {
            self.import(&item.tree, Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none()
            && let Some(first) = path.segments.first()
        {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.module.paths.push(WrittenPath { segments, line: first.ident.span().start().line });
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.scan(call.tokens.clone());
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

/// Whether the attributes leave an item out of the program: `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    let mentions_test = |tokens: TokenStream| {
        let text = tokens.to_string();
        !text.contains("not") && text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "test")
    };
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => mentions_test(list.tokens.clone()),
        meta => meta.path().is_ident("test"),
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(ident.to_string())
}
