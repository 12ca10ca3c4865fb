//! Generates the reference page of the settings.

use std::fmt::Write as _;

use tenantry::config::SETTINGS;

const INTRODUCTION: &str = "# Settings

Each setting is an environment variable, a flag (`--grpc-addr`) and a key in an optional TOML file
(`grpc_addr`, `--config FILE`). A flag overrides the environment variable, which overrides the file.
All settings are checked at start, and one message lists all mistakes: invalid values, files that
can't be read, pairs of values that make no sense, unknown keys in the file, and names of environment
variables that are nearly the name of a setting that is not set.

| setting | default | meaning |
| --- | --- | --- |
";

pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for setting in SETTINGS {
        let default = match setting.default {
            Some(default) => format!("`{default}`"),
            None if setting.secret => "(a secret)".to_owned(),
            None => String::new(),
        };
        let help = setting.help.replace('|', "\\|");
        writeln!(page, "| `{}` | {default} | {help} |", setting.name).ok();
    }
    page
}
