//! The settings' page.

use std::fmt::Write as _;

use tenantry::config::SETTINGS;

const INTRODUCTION: &str = "# Settings

Each is an environment variable, a flag (`--grpc-addr`) and a key in an optional TOML file
(`grpc_addr`, `--config FILE`), in that name; a flag wins over the environment, that over the file.
All are checked at start, and everything that is wrong is said in one message.

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
