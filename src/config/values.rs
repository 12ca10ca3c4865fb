//! The settings as text, and a reader that collects all errors.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    thread::available_parallelism,
    time::Duration,
};

use anyhow::bail;
use clap::{Arg, ArgMatches, Command};
use secrecy::{SecretString, zeroize::Zeroizing};

use super::{
    settings::SETTINGS,
    sources::{self, FILE_VARIABLE},
};

const FILE_FLAG: &str = "config";

pub(super) const DAY: Duration = Duration::from_hours(24);

/// The text of each setting by its name. A flag overrides the environment, the environment
/// overrides the file, and the file overrides the default.
#[derive(Default)]
pub struct Values {
    texts: BTreeMap<&'static str, String>,
    /// The names of the settings that a flag, the environment or the file sets.
    explicit_names: BTreeSet<&'static str>,
    /// The mistakes in the file and in the names of environment variables.
    mistakes: Vec<String>,
}

impl Values {
    /// Adds each setting to a command, as a flag and an environment variable.
    #[must_use]
    pub fn arguments(command: Command) -> Command {
        let file = Arg::new(FILE_FLAG)
            .long(FILE_FLAG)
            .env(FILE_VARIABLE)
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

    /// Reads the settings from the command line, the environment and the file. Mistakes in the file
    /// and in the names of environment variables are reported with the invalid settings, by
    /// [`Values::check_sources`] or by the checks of this module.
    #[must_use]
    pub fn gather(matches: &ArgMatches) -> Self {
        let mut values = Self::default();
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                values.set(setting.name, default);
            }
        }
        if let Some(path) = matches.get_one::<String>(FILE_FLAG) {
            let file = sources::read_file(path);
            for (name, text) in file.settings {
                values.set_explicitly(name, text);
            }
            values.mistakes = file.mistakes;
        }
        for setting in SETTINGS {
            // An empty value means that the setting is not set, because Compose files and Helm
            // charts cannot omit a variable and set it to an empty text instead.
            let value = matches.get_one::<String>(setting.name).filter(|value| !value.is_empty());
            if let Some(value) = value {
                values.set_explicitly(setting.name, value.clone());
            }
        }
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let misspelt = sources::misspelt_variables(names, |name| values.is_explicit(name));
        values.mistakes.extend(misspelt);
        values
    }

    /// Fails when the file or the name of an environment variable has a mistake. For commands that
    /// do not check all settings.
    ///
    /// # Errors
    /// Fails with one message that lists every mistake.
    pub fn check_sources(self) -> anyhow::Result<Self> {
        Reader::new(&self).finish()?;
        Ok(self)
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

    /// Whether a flag, the environment or the file sets this setting.
    pub(super) fn is_explicit(&self, name: &str) -> bool {
        self.explicit_names.contains(name)
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
}

/// Parses settings and collects all errors.
pub(super) struct Reader<'a> {
    values: &'a Values,
    errors: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(values: &'a Values) -> Self {
        Self { values, errors: values.mistakes.clone() }
    }

    /// Parses a setting. The error of `parse` describes a valid value. The reported error also has
    /// the invalid value, unless the value may be secret. For an invalid setting, returns the
    /// default of the type. The program never uses this default, because [`Reader::finish`] then
    /// fails.
    pub(super) fn read<T: Default>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let result = match self.values.get(name) {
            Some(text) => parse(text).map_err(|error| error + &shown_value(name, text)),
            None => Err("must be set".into()),
        };
        result.unwrap_or_else(|error| {
            self.errors.push(format!("{name} {error}"));
            T::default()
        })
    }

    /// Adds an error of a setting: `problem` follows the name of the setting.
    pub(super) fn add_error(&mut self, name: &str, problem: &str) {
        let value = self.values.get(name).map(|text| shown_value(name, text)).unwrap_or_default();
        self.errors.push(format!("{name} {problem}{value}"));
    }

    /// Whether a flag, the environment or the file sets this setting.
    pub(super) fn is_explicit(&self, name: &str) -> bool {
        self.values.is_explicit(name)
    }

    /// Checks that the file of a path setting can be read, unless the setting is `off` or not set.
    pub(super) fn check_file(&mut self, name: &str) {
        let Some(path) = self.values.get(name).filter(|path| *path != "off") else { return };
        // The content may be secret, so it is erased from memory.
        if let Err(error) = std::fs::read(path).map(Zeroizing::new) {
            self.errors.push(format!("{name} must be a readable file: can't read {path}: {error}"));
        }
    }

    pub(super) fn text(&mut self, name: &str) -> String {
        self.read(name, |text| Ok(text.to_owned()))
    }

    /// Reads a URL with one of these schemes. `check` checks the URL with the library that uses it.
    /// Its error must not repeat the URL, which may contain a password.
    pub(super) fn url(
        &mut self,
        name: &str,
        schemes: &[&str],
        check: impl FnOnce(&SecretString) -> Result<(), &'static str>,
    ) -> SecretString {
        let text = self.read(name, |text| {
            check_scheme(text, schemes)?;
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

/// Checks the scheme of a URL, because the client libraries of Postgres and Redis accept unknown
/// schemes.
fn check_scheme(url: &str, schemes: &[&str]) -> Result<(), String> {
    let has_scheme = |scheme: &&str| url.split_once("://").is_some_and(|(used, _)| used == *scheme);
    if schemes.iter().any(has_scheme) {
        return Ok(());
    }
    let examples = schemes.iter().take(2).map(|scheme| format!("{scheme}://")).collect::<Vec<_>>();
    Err(format!("must be a URL that begins with {}", examples.join(" or ")))
}

/// The end of an error message: shows the invalid value. Empty if the value is long, or may contain
/// a secret or an email address.
fn shown_value(name: &str, text: &str) -> String {
    const MAX_LENGTH: usize = 100;
    let is_secret = SETTINGS.iter().any(|setting| setting.name == name && setting.secret)
        || ["_URL", "_ENDPOINT"].iter().any(|suffix| name.ends_with(suffix))
        || text.contains('@')
        || text.len() > MAX_LENGTH;
    if is_secret { String::new() } else { format!("; it is {text:?}") }
}

/// Converts the value of a setting to a number of threads. The value 0 means one thread per core.
pub(super) fn thread_count(number: u32) -> usize {
    match number {
        0 => core_count(),
        number => to_usize(number),
    }
}

/// The number of cores that this process may use. Not zero.
pub(super) fn core_count() -> usize {
    available_parallelism().map_or(1, usize::from)
}

pub(super) fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
