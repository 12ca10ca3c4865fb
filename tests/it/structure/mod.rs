//! Facts that the documentation states about the code, checked against the files.

mod imports;
mod release;
mod requirements;
mod rules;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use imports::Imports;

use tenantry::EventKind;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).expect("a file")
}

/// Adds the files with this extension below a folder to `found`.
fn collect_files(dir: &Path, extension: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect_files(&path, extension, found);
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path.display().to_string());
        }
    }
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files that are in an import cycle, or that import from such files, directly or indirectly.
/// Each file is listed with its imports among these files.
fn import_cycles(src: &Path) -> Vec<String> {
    let imports = Imports::read(src);
    let mut remaining = imports.edges();
    // Remove the files that import none of the remaining files, until no file can be removed.
    loop {
        let count_before = remaining.len();
        let files: BTreeSet<_> = remaining.keys().copied().collect();
        remaining.retain(|_, imports| !imports.is_disjoint(&files));
        if remaining.len() == count_before {
            break;
        }
    }
    let relative =
        |path: &Path| path.strip_prefix(src).expect("a file below src").display().to_string();
    let files: BTreeSet<_> = remaining.keys().copied().collect();
    remaining
        .iter()
        .map(|(file, imports)| {
            let cyclic_imports: Vec<_> =
                imports.intersection(&files).map(|path| relative(path)).collect();
            format!("{} -> {}", relative(file), cyclic_imports.join(", "))
        })
        .collect()
}

#[test]
fn imports_form_no_cycle() {
    let import_cycles = import_cycles(&source_folder());
    assert!(import_cycles.is_empty(), "{}", import_cycles.join("\n"));
}

/// The cycle goes through a re-exported name and through a path in the code.
#[test]
fn import_cycles_are_detected() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, text).expect("written");
    };
    write("lib.rs", "mod a;\nmod b;\nmod c;\n");
    write("a/mod.rs", "mod inner;\npub use inner::Inner;\n");
    write(
        "a/inner.rs",
        "use crate::{\n    b::{self as other},\n    c::C,\n};\npub struct Inner(C);\n",
    );
    write("b.rs", "use crate::a::Inner;\npub struct B(Inner);\n");
    write("c.rs", "pub struct C;\n");
    assert_eq!(
        import_cycles(dir.path()),
        Vec::<String>::new(),
        "the import of a module alone does not count"
    );
    write("c.rs", "pub struct C;\nfn c() -> crate::b::B { todo!() }\n");
    assert_eq!(
        import_cycles(dir.path()),
        ["a/inner.rs -> c.rs", "b.rs -> a/inner.rs", "c.rs -> b.rs"]
    );
}

/// Stores work the same for all callers, so they need no proof from the gate.
#[test]
fn no_store_reaches_the_gate() {
    let imports = Imports::read(&source_folder());
    let edges = imports.edges();
    let mut stores = 0;
    for store in edges.keys().filter(|path| path.ends_with("store.rs")) {
        stores += 1;
        let (mut reached, mut queue) = (BTreeSet::new(), vec![*store]);
        while let Some(file) = queue.pop() {
            queue.extend(edges[file].iter().copied().filter(|file| reached.insert(*file)));
        }
        let gate = source_folder().join("gate");
        let gate_files: Vec<_> = reached.iter().filter(|file| file.starts_with(&gate)).collect();
        assert!(gate_files.is_empty(), "{} reaches {gate_files:?}", store.display());
    }
    assert!(stores > 8, "{stores}");
}

/// N23: values in Redis may be of any size, so scripts read them only through `values.lua`,
/// which checks the size first.
#[test]
fn only_values_lua_reads_values_from_redis() {
    let mut scripts = Vec::new();
    collect_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "lua", &mut scripts);
    assert!(scripts.len() > 5, "{scripts:?}");
    for file in scripts.iter().filter(|file| !file.ends_with("/src/redis/values.lua")) {
        let text = fs::read_to_string(file).expect("a file");
        for command in ["'GET'", "'MGET'", "'GETEX'", "'HGET'", "'HMGET'", "'HGETALL'", "'LRANGE'"]
        {
            assert!(!text.contains(command), "{file} has {command}: use src/redis/values.lua");
        }
    }
}

#[test]
fn every_rpc_has_a_comment_in_its_proto_file() {
    for method in crate::harness::methods() {
        let service = method.0.parent_service();
        let proto = read(&format!("proto/{}", service.parent_file().name()));
        let line = format!("  rpc {}(", method.0.name());
        let text_before = proto.split(&line).next().expect("the RPC");
        let comment = text_before.trim_end().lines().last().expect("a line");
        assert!(comment.trim_start().starts_with("//"), "{} has no comment", method.path());
    }
}

/// N09: SQL functions write audit events by the name of their kind.
#[test]
fn event_kinds_in_migrations_exist_in_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut kinds = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a file");
        for insert in text.split("insert into audit_events").skip(1) {
            let kind = insert.split(';').next().and_then(|statement| statement.split('\'').nth(1));
            kinds.push(kind.expect("the kind of the event").to_owned());
        }
    }
    assert!(!kinds.is_empty());
    for kind in kinds {
        let is_known = EventKind::ALL.iter().any(|known| known.as_str() == kind);
        assert!(is_known, "{kind} is not in src/audit/kind.rs");
    }
}

/// N21: each bound in docs/limits.md that is a constant or a setting exists under its name.
#[test]
fn every_bound_on_the_limits_page_exists() {
    let page = read("docs/limits.md");
    let settings = read("docs/reference/settings.md");
    let mut count = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && line.ends_with(" |")) {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().expect("a cell");
        let Some(name) = cell.strip_prefix('`').and_then(|cell| cell.split('`').next()) else {
            continue;
        };
        if name.chars().any(|c| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_') {
            continue;
        }
        count += 1;
        match cell.split_once("](../") {
            Some((_, file)) => {
                let file = read(file.trim_end_matches(')'));
                let is_defined = ["const", "static"]
                    .iter()
                    .any(|kind| file.contains(&format!("{kind} {name}: ")));
                assert!(is_defined, "{row}");
            }
            None => assert!(settings.contains(&format!("| `{name}` |")), "{row}"),
        }
    }
    assert!(count > 40, "{count}");
}

/// N21: docs/limits.md lists every bound on stored data by its name.
#[test]
fn every_bound_on_stored_data_is_on_the_limits_page() {
    let (source, page) = (read("src/api/bounds.rs"), read("docs/limits.md"));
    let bounds = source.split(": Bound =").skip(1);
    let mut count = 0;
    for bound in bounds {
        let name = bound.split("name: \"").nth(1).and_then(|rest| rest.split('"').next());
        let name = name.expect("a name");
        assert!(page.contains(&format!("| `{name}` | ")), "{name}");
        count += 1;
    }
    assert!(count >= 6, "{count}");
}
