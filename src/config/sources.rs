//! The file of settings, and misspelt names of settings in the file and in the environment.

use super::settings::SETTINGS;

/// The environment variable with the path of the file.
pub(super) const FILE_VARIABLE: &str = "TENANTRY_CONFIG";

/// Minimum length of the name of a setting in which two wrong characters are a spelling mistake. In
/// a shorter name, only one wrong character is a mistake, because the variables of other programs
/// may differ from it in two characters.
const LONG_NAME: usize = 14;

/// The settings in a file, by the name of the setting, and the mistakes in the file.
#[derive(Default)]
pub(super) struct FileContent {
    pub settings: Vec<(&'static str, String)>,
    pub mistakes: Vec<String>,
}

/// Reads a TOML file. No mistake repeats a value, which may be a secret.
pub(super) fn read_file(path: &str) -> FileContent {
    let mut content = FileContent::default();
    match std::fs::read_to_string(path) {
        Ok(text) => content.parse(path, &text),
        Err(error) => {
            content.mistakes.push(format!("{FILE_VARIABLE}: can't read {path} ({error})"));
        }
    }
    content
}

impl FileContent {
    fn parse(&mut self, path: &str, text: &str) {
        let table: toml::Table = match toml::from_str(text) {
            Ok(table) => table,
            // The message of the parser would show the line, which may contain a secret.
            Err(error) => {
                let error_start = error.span().map_or(0, |span| span.start);
                let line = text.get(..error_start).unwrap_or_default().matches('\n').count() + 1;
                self.mistakes.push(format!("{path} is not valid TOML: line {line}"));
                return;
            }
        };
        for (key, value) in table {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key() == key) else {
                let hint = nearest_setting(&key.to_uppercase())
                    .map(|name| format!("; did you mean {}?", name.to_lowercase()));
                self.mistakes
                    .push(format!("{path}: {key} is no setting{}", hint.unwrap_or_default()));
                continue;
            };
            match value {
                toml::Value::String(text) => self.settings.push((setting.name, text)),
                toml::Value::Integer(number) => {
                    self.settings.push((setting.name, number.to_string()));
                }
                _ => {
                    self.mistakes.push(format!("{path}: {key} must be a string or a whole number"));
                }
            }
        }
    }
}

/// The setting whose name is the most similar to this name, if it is similar enough for a hint.
fn nearest_setting(name: &str) -> Option<&'static str> {
    let distances = SETTINGS.iter().map(|s| (strsim::damerau_levenshtein(name, s.name), s.name));
    let (distance, nearest) = distances.min()?;
    (distance <= nearest.len() / 3).then_some(nearest)
}

/// The mistakes in the names of environment variables: each name that is no setting, but very near
/// to the name of a setting. If that setting is set, the variable belongs to another program.
pub(super) fn misspelt_variables(
    variables: impl Iterator<Item = String>,
    is_set: impl Fn(&str) -> bool,
) -> Vec<String> {
    let names = || SETTINGS.iter().map(|setting| setting.name).chain([FILE_VARIABLE]);
    let unknown = variables.filter(|variable| names().all(|name| name != variable));
    let mistake = |variable: String| {
        let mut near_names = names().filter(|name| is_misspelt(&variable, name) && !is_set(name));
        let name = near_names.next()?;
        Some(format!("{variable} is no setting; did you mean {name}?"))
    };
    let mut mistakes: Vec<_> = unknown.filter_map(mistake).collect();
    mistakes.sort_unstable();
    mistakes
}

/// Whether a variable is very near to the name of a setting. The first letters must be equal,
/// because people rarely misspell the first letter, and other programs use names such as
/// `EMAIL_FROM`.
fn is_misspelt(variable: &str, name: &str) -> bool {
    let max_distance = if name.len() >= LONG_NAME { 2 } else { 1 };
    variable.as_bytes().first() == name.as_bytes().first()
        && strsim::damerau_levenshtein(variable, name) <= max_distance
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N36: a variable is reported only if it is very near to a setting, and this setting is not
    /// set.
    #[test]
    fn variables_of_other_programs_are_no_mistakes() {
        let mistakes = |variable: &str, set_name: &'static str| {
            misspelt_variables([variable.to_owned()].into_iter(), |name| name == set_name)
        };
        for (variable, name) in [
            ("TENANT_REGISTRATON", "TENANT_REGISTRATION"),
            ("JWT_ACCES_EXPIRE_IN", "JWT_ACCESS_EXPIRES_IN"),
            ("DATABASE_ULR", "DATABASE_URL"),
            ("GRPC_ADDRS", "GRPC_ADDR"),
            ("TENANTRY_CONFG", "TENANTRY_CONFIG"),
        ] {
            let expected = format!("{variable} is no setting; did you mean {name}?");
            assert_eq!(mistakes(variable, ""), [expected]);
        }
        for variable in [
            "EMAIL_FROM",
            "DATABASE_PORT",
            "REDIS_PORT",
            "REDIS_HOST",
            "LOG_DIR",
            "HTTP_PROXY",
            "TENANTRY_PORT",
            "TENANTRY_SERVICE_HOST",
            "TENANTRY_COMMIT",
            "OTEL_TRACES_SAMPLER",
            "OTEL_SERVICE_NAME",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "PATH",
            "HOME",
            "RUST_LOG",
        ] {
            assert_eq!(mistakes(variable, ""), Vec::<String>::new(), "{variable}");
        }
        assert_eq!(mistakes("DATABASE_URI", "DATABASE_URL"), Vec::<String>::new());
    }
}
