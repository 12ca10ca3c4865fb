//! Import graph of `src/`: which file imports from which. It is read from `use` declarations
//! and paths in the code.
//!
//! Each name is resolved to the file that defines it, through `pub use` and modules. So a file
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
    /// Whether the file only re-exports the name, and does not use the name itself.
    is_reexport: bool,
}

/// All files of `src/`, by module.
pub struct Imports {
    files: BTreeMap<Module, File>,
}

impl Imports {
    pub fn read(src: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut paths = Vec::new();
        super::collect_files(src, "rs", &mut paths);
        for path in paths.iter().map(PathBuf::from) {
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
            for Use { path, name, .. } in file.uses.iter().filter(|used| !used.is_reexport) {
                let is_glob = name == "*";
                let path = if is_glob { &path[..path.len() - 1] } else { path };
                imports.extend(self.absolute(module, path).and_then(|(module, rest)| {
                    // The import of a module does not count. Only the use of its names counts.
                    let is_module = !is_glob && self.files.contains_key(&join(&module, &rest));
                    (!is_module).then(|| self.defining_module(&module, &rest, 0)).flatten()
                }));
            }
            for path in &file.paths {
                let resolved = self.absolute(module, path);
                imports.extend(
                    resolved.and_then(|(module, rest)| self.defining_module(&module, &rest, 0)),
                );
            }
            imports.remove(module);
            let paths = imports.iter().map(|module| self.files[module].path.as_path());
            edges.insert(file.path.as_path(), paths.collect());
        }
        edges
    }

    /// Splits a path in the module `from` into a module of this crate and the rest. `None` when the
    /// path leads to another crate.
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
            _ if self.files.contains_key(&join(from, std::slice::from_ref(first))) => {
                Some((from.clone(), path.to_vec()))
            }
            _ => {
                let uses = &self.files.get(from)?.uses;
                let is_in_crate = |path: &[String]| ["crate", "self", "super"].contains(&&*path[0]);
                let import =
                    uses.iter().find(|used| used.name == *first && is_in_crate(&used.path))?;
                let (module, start) = self.absolute(from, &import.path)?;
                Some((module, [start, rest.to_vec()].concat()))
            }
        }
    }

    /// The module whose file defines the item at `path` in `module`.
    fn defining_module(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        // Stops following re-exports at depth 20: generated code imports names that no file
        // defines.
        if depth > 20 {
            return Some(module.clone());
        }
        let file = self.files.get(module)?;
        let Some((first, rest)) = path.split_first() else { return Some(module.clone()) };
        let child = join(module, std::slice::from_ref(first));
        if self.files.contains_key(&child) {
            return self.defining_module(&child, rest, depth + 1);
        }
        if file.defines.contains(first) {
            return Some(module.clone());
        }
        for used in &file.uses {
            if used.name == *first {
                let Some((module, start)) = self.absolute(module, &used.path) else { continue };
                let path = [start, rest.to_vec()].concat();
                return self.defining_module(&module, &path, depth + 1);
            }
        }
        for Use { path: glob_path, .. } in file.uses.iter().filter(|used| used.name == "*") {
            let resolved = self.absolute(module, &glob_path[..glob_path.len() - 1]);
            if let Some((glob_module, start)) = resolved {
                let path = [start, path.to_vec()].concat();
                return self.defining_module(&glob_module, &path, depth + 1);
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
        let path_in_code = Regex::new(r"\b(?:[a-z_][a-z0-9_]*::)+\w+").expect("a pattern");
        let code_without_uses = declaration.replace_all(&code, "");
        let mut uses = Vec::new();
        for captures in declaration.captures_iter(&code) {
            for (path, name) in expand(&captures[2]) {
                let is_used = Regex::new(&format!(r"\b{name}\b"))
                    .is_ok_and(|pattern| pattern.is_match(&code_without_uses));
                let is_reexport = captures.get(1).is_some() && !is_used;
                uses.push(Use { path, name, is_reexport });
            }
        }
        let paths = path_in_code
            .find_iter(&code_without_uses)
            .map(|found| segments(found.as_str()))
            .collect();
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

fn join(module: &Module, rest: &[String]) -> Module {
    [module.as_slice(), rest].concat()
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// The paths of a `use` declaration, each with the name that it imports.
fn expand(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    let Some((prefix, inner)) = tree.split_once('{') else {
        let (path, name) = if let Some((path, name)) = tree.split_once(" as ") {
            (segments(path), name.trim().to_owned())
        } else {
            let path = segments(tree);
            let name = path.last().cloned().unwrap_or_default();
            (path, name)
        };
        return vec![(path, name)];
    };
    let prefix = segments(prefix);
    let inner = inner.rsplit_once('}').expect("a closing brace").0;
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    // Split at the commas that are outside of inner braces.
    for (index, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    let expanded = parts.flat_map(expand).map(|(path, name)| match path.as_slice() {
        // `self` imports the prefix itself.
        [only] if only == "self" => {
            let name = if name == "self" { prefix[prefix.len() - 1].clone() } else { name };
            (prefix.clone(), name)
        }
        _ => (join(&prefix, &path), name),
    });
    expanded.collect()
}
