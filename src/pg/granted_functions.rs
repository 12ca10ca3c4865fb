//! The functions of the schema that the service calls.

use super::known_migrations::MIGRATIONS;

/// The names of the functions that the migrations allow a role to execute.
pub(super) fn names(role: &str) -> Vec<String> {
    let statements = MIGRATIONS.iter().flat_map(|migration| migration.sql.as_str().split(';'));
    let name = |statement: &str| {
        let (_, granted) = statement.split_once("\ngrant execute on function ")?;
        let (function, granted_to) = granted.rsplit_once(" to ")?;
        let (name, _) = function.split_once('(')?;
        (granted_to == role).then(|| name.to_owned())
    };
    statements.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    /// N51: the names are found in the migrations, also in statements of several lines.
    #[test]
    fn the_functions_that_the_service_may_execute_are_found() {
        let names = super::names("tenantry_app");
        for name in ["open_session", "read_changes", "server_identity"] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        assert!(!names.iter().any(|known| known == "begin_epoch"), "{names:?}");
    }
}
