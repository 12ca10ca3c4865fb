//! Sources of settings: a flag, the environment, a file, the default.

use tempfile::NamedTempFile;

use super::{CommandOutput, run};

/// The address in the error of `healthcheck`. No server listens on this address.
fn tried_address(output: &CommandOutput) -> &str {
    assert!(!output.ok, "{output:?}");
    let (_, rest) = output.err.split_once("nothing answers on ").expect("the address");
    rest.split_once(": ").map_or(rest.trim(), |(address, _)| address)
}

/// A settings file.
fn settings_file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

#[tokio::test]
async fn a_flag_overrides_the_environment_and_the_environment_overrides_the_file() {
    let file = settings_file("grpc_addr = \"127.0.0.1:3\"\nmax_requests = 7\n");
    let path = file.path().to_str().expect("text");
    // `with_flag[..1]` is the command without the flag.
    let with_flag = ["healthcheck", "--grpc-addr", "127.0.0.1:1"];
    let environment = ("GRPC_ADDR", "127.0.0.1:2");

    for (arguments, settings, expected) in [
        (&with_flag[..], &[environment, ("TENANTRY_CONFIG", path)][..], "127.0.0.1:1"),
        (&with_flag[..1], &[environment, ("TENANTRY_CONFIG", path)][..], "127.0.0.1:2"),
        (&with_flag[..1], &[("TENANTRY_CONFIG", path)][..], "127.0.0.1:3"),
        (&["healthcheck", "--config", path][..], &[][..], "127.0.0.1:3"),
        (&with_flag[..1], &[("GRPC_ADDR", ""), ("TENANTRY_CONFIG", path)][..], "127.0.0.1:3"),
    ] {
        let output = run(arguments, settings).await;
        assert_eq!(tried_address(&output), expected, "{arguments:?} {settings:?}");
    }
}

#[tokio::test]
async fn without_a_value_the_default_applies_and_an_empty_value_counts_as_unset() {
    // The six errors of `serve` are the settings without a default.
    for settings in [&[][..], &[("GRPC_ADDR", ""), ("ARGON2_MEMORY_KIB", "")][..]] {
        let output = run(&["serve"], settings).await;
        let listed: Vec<_> = output.err.lines().skip(1).map(str::trim).collect();
        assert_eq!(listed.len(), 6, "{output:?}");
        for name in ["DATABASE_URL", "REDIS_URL", "JWT_ACCESS_PRIVATE_KEY_PATH"] {
            assert!(listed.contains(&format!("{name} must be set").as_str()), "{output:?}");
        }
    }
}

#[tokio::test]
async fn the_error_for_an_invalid_file_does_not_contain_its_lines() {
    for (text, expected_error) in [
        ("grpc_adr = \"x\"", "grpc_adr is no setting"),
        ("GRPC_ADDR = \"x\"", "GRPC_ADDR is no setting"),
        ("grpc_addr = true", "grpc_addr must be a string or a whole number"),
        ("database_url = \"postgres://app:canary@x", "is not valid TOML"),
    ] {
        let file = settings_file(text);
        let path = file.path().to_str().expect("text");
        let output = run(&["healthcheck", "--config", path], &[]).await;
        assert!(!output.ok && output.err.contains(expected_error), "{output:?}");
        assert!(!output.err.contains("canary"), "{output:?}");
    }
    let output = run(&["healthcheck", "--config", "/nowhere.toml"], &[]).await;
    assert!(!output.ok && output.err.contains("can't read /nowhere.toml"), "{output:?}");
}

#[tokio::test]
async fn help_shows_every_setting_but_no_secret() {
    let secret = "postgres://tenantry_app:canary@x/y";
    let output = run(&["serve", "--help"], &[("DATABASE_URL", secret)]).await;

    assert!(output.ok && !output.out.contains("canary"), "{output:?}");
    for setting in tenantry::config::SETTINGS {
        assert!(output.out.contains(&format!("--{}", setting.flag())), "{}", setting.name);
        assert!(output.out.contains(setting.name), "{}", setting.name);
    }
}
