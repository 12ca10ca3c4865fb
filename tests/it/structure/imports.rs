//! Import graph of `src/`: which file imports from which. It is read from `use` declarations
//! and paths in the code.
//!
//! Each name is followed to the file that defines it, through `pub use` and modules. A file
//! that imports `crate::db::Db` imports from `src/db/database.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

/// A module as its path from the crate's root.
type Module = Vec<String>;

/// One file of `src/`.
struct File {
    path: PathBuf,
    /// Names of the items that the file defines.
    defines: BTreeSet<String>,
    uses: Vec<Use>,
    /// Paths in the code, outside `use` declarations.
    paths: Vec<Vec<String>>,
}

/// A name that a file imports.
struct Use {
    path: Vec<String>,
    /// `*` for a glob import.
    name: String,
    /// Whether the file only re-exports the name.
    handed_on: bool,
}

/// All files of `src/`, by module.
pub struct Imports {
    files: BTreeMap<Module, File>,
}

impl Imports {
    pub fn read(src: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut found = Vec::new();
        super::files(src, "rs", &mut found);
        for path in found.iter().map(PathBuf::from) {
            let module = module(path.strip_prefix(src).expect("below src"));
            // The binary is a separate crate.
            if module != ["main"] {
                files.insert(module, File::read(path));
            }
        }
        Self { files }
    }

    /// For each file, the files that it imports from.
    pub fn edges(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut edges = BTreeMap::new();
        for (module, file) in &self.files {
            let mut imports = BTreeSet::new();
            for Use { path, name, .. } in file.uses.iter().filter(|used| !used.handed_on) {
                let all = name == "*";
                let path = if all { &path[..path.len() - 1] } else { path };
                imports.extend(self.absolute(module, path).and_then(|(module, rest)| {
                    // Importing a module alone does not count; only the use of its names
                    // counts.
                    let is_module = !all && self.files.contains_key(&joined(&module, &rest));
                    (!is_module).then(|| self.defining(&module, &rest, 0)).flatten()
                }));
            }
            for path in &file.paths {
                let found = self.absolute(module, path);
                imports.extend(found.and_then(|(module, rest)| self.defining(&module, &rest, 0)));
            }
            imports.remove(module);
            let paths = imports.iter().map(|module| self.files[module].path.as_path());
            edges.insert(file.path.as_path(), paths.collect());
        }
        edges
    }

    /// Splits a path into a module of this crate and the rest. `None` when the path leads to
    /// another crate.
    fn absolute(&self, from: &Module, path: &[String]) -> Option<(Module, Vec<String>)> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some((Vec::new(), rest.to_vec())),
            "self" => Some((from.clone(), rest.to_vec())),
            "super" => {
                let mut parent = from.clone();
                parent.pop();
                if rest.first().is_some_and(|next| next == "super") {
                    self.absolute(&parent, rest)
                } else {
                    Some((parent, rest.to_vec()))
                }
            }
            _ if self.files.contains_key(&joined(from, std::slice::from_ref(first))) => {
                Some((from.clone(), path.to_vec()))
            }
            _ => {
                let uses = &self.files.get(from)?.uses;
                let is_own = |path: &[String]| ["crate", "self", "super"].contains(&&*path[0]);
                let brought = uses.iter().find(|one| one.name == *first && is_own(&one.path))?;
                let (module, start) = self.absolute(from, &brought.path)?;
                Some((module, [start, rest.to_vec()].concat()))
            }
        }
    }

    /// The module whose file defines the item that a path names.
    fn defining(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        // Stops following re-exports at depth 20: generated code imports names that no file
        // defines.
        if depth > 20 {
            return Some(module.clone());
        }
        let file = self.files.get(module)?;
        let Some((first, rest)) = path.split_first() else { return Some(module.clone()) };
        let child = joined(module, std::slice::from_ref(first));
        if self.files.contains_key(&child) {
            return self.defining(&child, rest, depth + 1);
        }
        if file.defines.contains(first) {
            return Some(module.clone());
        }
        for used in &file.uses {
            if used.name == *first {
                let Some((module, start)) = self.absolute(module, &used.path) else { continue };
                let path = [start, rest.to_vec()].concat();
                return self.defining(&module, &path, depth + 1);
            }
        }
        for Use { path: used, .. } in file.uses.iter().filter(|used| used.name == "*") {
            let found = self.absolute(module, &used[..used.len() - 1]);
            if let Some((all, start)) = found {
                let path = [start, path.to_vec()].concat();
                return self.defining(&all, &path, depth + 1);
            }
        }
        Some(module.clone())
    }
}

impl File {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).expect("a file");
        // Unit tests may import from any file.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let comments = Regex::new(r"//[^\n]*").expect("a pattern");
        let code = comments.replace_all(code, "");
        let declaration =
            Regex::new(r"(?m)^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);").expect("a pattern");
        let item = Regex::new(
            r"(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?(?:async\s+|const\s+)*(?:fn|struct|enum|trait|type|const|static|macro_rules!)\s+(\w+)",
        )
        .expect("a pattern");
        let inline = Regex::new(r"\b(?:[a-z_][a-z0-9_]*::)+\w+").expect("a pattern");
        let body = declaration.replace_all(&code, "");
        let mut uses = Vec::new();
        for found in declaration.captures_iter(&code) {
            for (path, name) in expand(&found[2]) {
                let is_used = Regex::new(&format!(r"\b{name}\b")).is_ok_and(|n| n.is_match(&body));
                let handed_on = found.get(1).is_some() && !is_used;
                uses.push(Use { path, name, handed_on });
            }
        }
        let paths = inline.find_iter(&body).map(|found| words(found.as_str())).collect();
        let defines = item.captures_iter(&code).map(|found| found[1].to_owned()).collect();
        Self { path, defines, uses, paths }
    }
}

/// The module of a file below `src/`.
fn module(path: &Path) -> Module {
    let path = path.with_extension("");
    let mut module: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

fn joined(module: &Module, rest: &[String]) -> Module {
    [module.as_slice(), rest].concat()
}

fn words(path: &str) -> Vec<String> {
    path.split("::").map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// The paths of a `use` declaration, each with the name that it imports.
fn expand(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        let (path, name) = if let Some((path, name)) = tree.split_once(" as ") {
            (words(path), name.trim().to_owned())
        } else {
            let path = words(tree);
            let name = path.last().cloned().unwrap_or_default();
            (path, name)
        };
        return vec![(path, name)];
    };
    let before = words(before);
    let inner = inner.rsplit_once('}').expect("it ends").0;
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    let expanded = parts.flat_map(expand).map(|(path, name)| match path.as_slice() {
        [only] if only == "self" => {
            let name = if name == "self" { before[before.len() - 1].clone() } else { name };
            (before.clone(), name)
        }
        _ => (joined(&before, &path), name),
    });
    expanded.collect()
}
