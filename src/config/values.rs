//! The settings as text, and a reader that collects all errors.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    thread::available_parallelism,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};
use secrecy::SecretString;

use super::settings::SETTINGS;

const FILE_FLAG: &str = "config";

pub(super) const DAY: Duration = Duration::from_hours(24);

/// The text of each setting by its name. A flag overrides the environment, the environment
/// overrides the file, and the file overrides the default.
#[derive(Default)]
pub struct Values {
    texts: BTreeMap<&'static str, String>,
    /// The names of the settings that a flag, the environment or the file sets.
    explicit_names: BTreeSet<&'static str>,
}

impl Values {
    /// Adds each setting to a command, as a flag and an environment variable.
    #[must_use]
    pub fn arguments(command: Command) -> Command {
        let file = Arg::new(FILE_FLAG)
            .long(FILE_FLAG)
            .env("TENANTRY_CONFIG")
            .value_name("FILE")
            .help("TOML file with settings; keys are the settings' names in lower case");
        SETTINGS.iter().fold(command.arg(file), |command, setting| {
            let help = match setting.default {
                Some(default) => format!("{} [default: {default}]", setting.help),
                None => setting.help.to_owned(),
            };
            command.arg(
                Arg::new(setting.name)
                    .long(setting.flag())
                    .env(setting.name)
                    .hide_env_values(true)
                    .value_name("VALUE")
                    .help(help)
                    .help_heading("Settings"),
            )
        })
    }

    /// Reads the settings from the command line, the environment and the file.
    ///
    /// # Errors
    /// Fails when the file cannot be read, or when it contains an unknown key or an invalid value.
    pub fn gather(matches: &ArgMatches) -> anyhow::Result<Self> {
        let mut values = Self::default();
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                values.set(setting.name, default);
            }
        }
        if let Some(path) = matches.get_one::<String>(FILE_FLAG) {
            values.read_file(path)?;
        }
        for setting in SETTINGS {
            // An empty value means that the setting is not set, because Compose files and Helm
            // charts cannot omit a variable and set it to an empty text instead.
            let value = matches.get_one::<String>(setting.name).filter(|value| !value.is_empty());
            if let Some(value) = value {
                values.set_explicitly(setting.name, value.clone());
            }
        }
        Ok(values)
    }

    /// Sets a setting, and replaces any earlier value.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.texts.insert(name, value.into());
    }

    /// Sets a setting, unless a flag, the environment or the file sets it.
    pub fn set_default(&mut self, name: &'static str, value: impl Into<String>) {
        if !self.explicit_names.contains(name) {
            self.set(name, value);
        }
    }

    fn set_explicitly(&mut self, name: &'static str, value: String) {
        self.explicit_names.insert(name);
        self.set(name, value);
    }

    /// The text of a setting; `None` when it is not set or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn read_file(&mut self, path: &str) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(path).with_context(|| format!("can't read {path}"))?;
        // The message of the TOML parser would show the line, which may contain a secret.
        let table: toml::Table =
            text.parse().map_err(|_| anyhow::anyhow!("{path} is not valid TOML"))?;
        for (key, value) in table {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key() == key) else {
                bail!("{path}: {key} is no setting");
            };
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                _ => bail!("{path}: {key} must be a string or a whole number"),
            };
            self.set_explicitly(setting.name, text);
        }
        Ok(())
    }
}

/// Parses settings and collects all errors.
pub(super) struct Reader<'a> {
    values: &'a Values,
    errors: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(values: &'a Values) -> Self {
        Self { values, errors: Vec::new() }
    }

    /// Parses a setting. The error of `parse` describes a valid value. For an invalid setting,
    /// returns the default of the type. This default is never used, because [`Reader::finish`] then
    /// fails.
    pub(super) fn read<T: Default>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let result = match self.values.get(name) {
            Some(text) => parse(text),
            None => Err("must be set".into()),
        };
        result.unwrap_or_else(|error| {
            self.errors.push(format!("{name} {error}"));
            T::default()
        })
    }

    pub(super) fn text(&mut self, name: &str) -> String {
        self.read(name, |text| Ok(text.to_owned()))
    }

    /// Reads a URL. `check` checks the URL with the library that uses it. The error must not repeat
    /// the URL, which may contain a password.
    pub(super) fn url(
        &mut self,
        name: &str,
        check: impl FnOnce(&SecretString) -> Result<(), &'static str>,
    ) -> SecretString {
        let text = self.read(name, |text| {
            check(&text.into()).map_err(str::to_owned)?;
            Ok(text.to_owned())
        });
        text.into()
    }

    pub(super) fn path(&mut self, name: &str) -> PathBuf {
        self.text(name).into()
    }

    /// Reads a path; `None` for `off`.
    pub(super) fn path_or_off(&mut self, name: &str) -> Option<PathBuf> {
        self.read(name, |text| Ok((text != "off").then(|| text.into())))
    }

    pub(super) fn number(&mut self, name: &str, min: u32, max: u32) -> u32 {
        self.read(name, |text| match text.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(format!("must be a whole number from {min} to {max}")),
        })
    }

    pub(super) fn duration(&mut self, name: &str, max: Duration) -> Duration {
        self.read(name, |text| match humantime::parse_duration(text) {
            Ok(duration) if !duration.is_zero() && duration <= max => Ok(duration),
            _ => {
                Err(format!("must be a time like 15m, at most {}", humantime::format_duration(max)))
            }
        })
    }

    /// Reads a setting that is either `yes` (true) or `no` (false).
    pub(super) fn choice(&mut self, name: &str, yes: &str, no: &str) -> bool {
        self.read(name, |text| match text {
            _ if text == yes => Ok(true),
            _ if text == no => Ok(false),
            _ => Err(format!("must be {yes} or {no}")),
        })
    }

    /// Fails with one message that lists every invalid setting.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        if self.errors.is_empty() {
            return Ok(());
        }
        bail!("the settings can't be used:\n  {}", self.errors.join("\n  "))
    }
}

/// The number of threads; 0 means the number of cores.
pub(super) fn thread_count(number: u32) -> usize {
    match number {
        0 => available_parallelism().map_or(1, usize::from),
        number => to_usize(number),
    }
}

pub(super) fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
