//! Comments name requirements by codes such as `C04`. docs/requirements.md lists the codes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use regex::Regex;

use super::{collect_files, read};

/// The codes at the beginning of comment lines, each with a file that has the code.
fn codes_in_comments() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["tests", "src", "bench/src", "chaos/src", "clients/rust/src"] {
        collect_files(&root.join(folder), "rs", &mut files);
    }
    let line =
        Regex::new(r"(?m)^ *//[/!]? ([A-Z][0-9]+(?:, [A-Z][0-9]+)*)(?:[:.]|$)").expect("a pattern");
    let mut codes = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a file");
        for found in line.captures_iter(&text) {
            for code in found[1].split(", ") {
                codes.insert(code.to_owned(), file.clone());
            }
        }
    }
    codes
}

#[test]
fn the_requirements_page_lists_exactly_the_codes_in_comments() {
    let codes = codes_in_comments();
    assert!(codes.len() > 100, "{}", codes.len());
    let page = read("docs/requirements.md");
    let row = Regex::new(r"(?m)^\| ([A-Z][0-9]{2}) \| [A-Z].*\. \|$").expect("a pattern");
    let mut listed_codes = BTreeSet::new();
    for found in row.captures_iter(&page) {
        let code = found[1].to_owned();
        assert!(codes.contains_key(&code), "{code} is on the page, but in no comment");
        assert!(listed_codes.insert(code), "{} is twice on the page", &found[1]);
    }
    for (code, file) in codes {
        assert!(listed_codes.contains(&code), "{code} in {file} is not on the page");
    }
}
