//! The module comments of Rust files name the SQL functions and Lua scripts that decide rules.

use std::{collections::BTreeMap, path::Path};

use super::{collect_files, read, source_folder};

/// The rules in the module comment of a file: the function or script, and the path of its file.
fn rules_in(text: &str) -> Vec<(String, String)> {
    let comment: Vec<_> = text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.trim().trim_start_matches("- "))
        .collect();
    let rules = comment.join(" ");
    let rules = rules.split("Rule: `").skip(1);
    rules
        .map(|rule| {
            let (name, rest) = rule.split_once("` (`").expect(rule);
            let (file, _) = rest.split_once("`) ").expect(rule);
            (name.to_owned(), file.to_owned())
        })
        .collect()
}

/// The functions that migrations create, each with the last file that creates it and the comment
/// above it.
fn functions() -> BTreeMap<String, (String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect_files(&root.join("migrations"), "sql", &mut paths);
    // A later migration may replace a function of an earlier one.
    paths.sort();
    let mut functions_by_name = BTreeMap::new();
    for path in paths {
        let path = Path::new(&path)
            .strip_prefix(root)
            .expect("a file below the root")
            .display()
            .to_string();
        let text = read(&path);
        let mut comment = String::new();
        for line in text.lines() {
            let create_statements = ["create function ", "create or replace function "];
            if line.starts_with("-- ") {
                comment.push_str(line);
            } else if let Some(rest) =
                create_statements.iter().find_map(|start| line.strip_prefix(start))
            {
                let name = rest.split('(').next().expect("a name").to_owned();
                functions_by_name.insert(name, (path.clone(), std::mem::take(&mut comment)));
            } else if !line.starts_with("--") {
                comment.clear();
            }
        }
    }
    functions_by_name
}

#[test]
fn every_function_in_sql_says_what_it_decides_and_who_calls_it() {
    let functions = functions();
    assert!(functions.len() > 30);
    for (name, (file, comment)) in functions {
        for part in ["Decides", "Called by:", "In SQL because:"] {
            assert!(comment.contains(part), "{name} in {file} has no `{part}`");
        }
    }
}

#[test]
fn every_rule_in_sql_and_lua_is_named_in_rust() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect_files(&source_folder(), "rs", &mut sources);
    let texts: Vec<_> =
        sources.iter().map(|path| std::fs::read_to_string(path).expect("a file")).collect();
    let rules: Vec<_> = texts.iter().flat_map(|text| rules_in(text)).collect();
    let functions = functions();
    for (name, file) in &rules {
        let exists = match functions.get(name) {
            Some((created, _)) => created == file,
            None => file.ends_with(&format!("/{name}")) && root.join(file).is_file(),
        };
        assert!(exists, "{name} is not in {file}");
    }
    // These functions are called only by other SQL functions, so no Rust file names them.
    let parts = ["canonical_number", "scope_is_readable"];
    let mut scripts = Vec::new();
    collect_files(&source_folder(), "lua", &mut scripts);
    let scripts = scripts.iter().filter_map(|path| Path::new(path).file_name()?.to_str());
    let names = functions.keys().map(String::as_str).chain(scripts);
    for name in names.filter(|name| !parts.contains(name)) {
        assert!(rules.iter().any(|(named, _)| named == name), "no Rust file has a rule `{name}`");
    }
}
