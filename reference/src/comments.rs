//! Reads comments from the proto files.

use prost_reflect::{FileDescriptor, prost_types::source_code_info::Location};

/// The comment before an element of the file, given by the element's path in the descriptor. Each
/// paragraph is on one line of Markdown.
pub fn comment_before(file: &FileDescriptor, path: &[i32]) -> String {
    let source = file.file_descriptor_proto().source_code_info.as_ref();
    let location =
        source.and_then(|info| info.location.iter().find(|location| location.path == path));
    let text = location.map_or("", Location::leading_comments);
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let paragraphs = lines.split(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    paragraphs.map(|lines| lines.join(" ")).collect::<Vec<_>>().join("\n\n")
}

/// The comment before an element, on one line and escaped for a table cell.
pub fn comment_for_cell(file: &FileDescriptor, path: &[i32]) -> String {
    escape_cell(&comment_before(file, path).replace("\n\n", " "))
}

/// Escapes a text for a table cell.
pub fn escape_cell(text: &str) -> String {
    text.replace('|', "\\|")
}
