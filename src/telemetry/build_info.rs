//! The metric of the build: version and commit.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// The version and the commit, as `tenantry --version` prints them.
const VERSION: &str = env!("TENANTRY_VERSION");

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Build {
    version: &'static str,
    commit: &'static str,
}

/// Registers the metric. Its value is always 1.
pub fn register_build_info(registry: &mut Registry) {
    let (version, commit) = split(VERSION);
    let builds = Family::<Build, Gauge>::default();
    builds.get_or_create(&Build { version, commit }).set(1);
    let help = "The version and the commit that this replica is built from; always 1";
    registry.register("tenantry_build_info", help, builds);
}

/// Splits `0.1.0 (0123456789ab)`. The commit is `unknown` in a build without git.
fn split(version: &str) -> (&str, &str) {
    match version.split_once(" (") {
        Some((version, commit)) => (version, commit.trim_end_matches(')')),
        None => (version, "unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N42: a build from a tarball has no commit.
    #[test]
    fn a_version_without_a_commit_is_split_too() {
        assert_eq!(split("0.1.0 (0123456789ab)"), ("0.1.0", "0123456789ab"));
        assert_eq!(split("0.1.0"), ("0.1.0", "unknown"));
    }
}
