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
        let listed_errors: Vec<_> = output.err.lines().skip(1).map(str::trim).collect();
        assert_eq!(listed_errors.len(), 6, "{output:?}");
        for name in ["DATABASE_URL", "REDIS_URL", "JWT_ACCESS_PRIVATE_KEY_PATH"] {
            assert!(listed_errors.contains(&format!("{name} must be set").as_str()), "{output:?}");
        }
    }
}

#[tokio::test]
async fn the_error_for_an_invalid_file_does_not_contain_its_lines() {
    for (text, expected_error) in [
        ("grpc_adr = \"x\"", "grpc_adr is no setting"),
        ("GRPC_ADDR = \"x\"", "GRPC_ADDR is no setting"),
        ("grpc_addr = true", "grpc_addr must be a string or a whole number"),
        ("# A comment\ndatabase_url = \"postgres://app:canary@x", "is not valid TOML: line 2"),
        ("grpc_adr = \"x\"\nmail = 1\nmax_requests = 1.5", "max_requests must be a string"),
        ("max_requests = 1.5\ngrpc_adr = \"x\"", "grpc_adr is no setting; did you mean grpc_addr?"),
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

/// N36: one message has the mistakes of all sources: the file, the names of environment variables,
/// the values, and pairs of values.
#[tokio::test]
async fn one_message_has_the_mistakes_of_all_sources() {
    let file = settings_file(
        "tenant_registraton = \"closed\"\nlog_format = true\nsession_expires_in = \"1d\"\n",
    );
    let settings = [
        ("TENANTRY_CONFIG", file.path().to_str().expect("text")),
        ("RATE_LIMIT_SIGNIN", "off"),
        ("EMAIL_FROM", "somebody"),
        ("DATABASE_URL", "postgresx:/tenantry_app:canary@host"),
        ("REDIS_URL", "http://:canary@host"),
        ("MAIL_URL", "mailto:canary@host"),
        ("GRPC_ADDR", "0.0.0.0:7000"),
        ("HTTP_ADDR", "127.0.0.1:7000"),
        ("PLAINTEXT", "all"),
        ("JWT_ACCESS_EXPIRES_IN", "2h"),
        ("JWT_REFRESH_EXPIRES_IN", "1h"),
        ("MAX_REQUESTS", "many"),
        ("JWT_ACCESS_PRIVATE_KEY_PATH", "/nowhere/1"),
        ("JWT_ACCESS_PUBLIC_KEY_PATH", "/nowhere/2"),
        ("JWT_REFRESH_PRIVATE_KEY_PATH", "/nowhere/3"),
        ("JWT_REFRESH_PUBLIC_KEY_PATH", "/nowhere/4"),
        ("MASTER_KEY_PATH", "/nowhere/5"),
        ("TLS_CERT_PATH", "/nowhere/6"),
        ("TLS_KEY_PATH", "/nowhere/7"),
    ];
    let output = run(&["serve"], &settings).await;

    assert!(!output.ok && !output.err.contains("canary"), "{output:?}");
    let files = (1..=7).map(|number| format!("can't read /nowhere/{number}:"));
    let other_mistakes = [
        "tenant_registraton is no setting; did you mean tenant_registration?",
        "log_format must be a string or a whole number",
        "RATE_LIMIT_SIGNIN is no setting; did you mean RATE_LIMIT_SIGN_IN?",
        "DATABASE_URL must be a URL that begins with postgres:// or postgresql://",
        "REDIS_URL must be a URL that begins with redis:// or rediss://",
        "MAIL_URL must be a URL like",
        "HTTP_ADDR must have another port than GRPC_ADDR; it is \"127.0.0.1:7000\"",
        "JWT_ACCESS_EXPIRES_IN must be at most JWT_REFRESH_EXPIRES_IN, which is 1h; it is \"2h\"",
        "MAX_REQUESTS must be a whole number from 1 to 1000000; it is \"many\"",
    ];
    let expected: Vec<_> = other_mistakes.map(str::to_owned).into_iter().chain(files).collect();
    for mistake in &expected {
        assert!(output.err.contains(mistake), "{mistake}: {}", output.err);
    }
    assert_eq!(output.err.lines().count(), 1 + expected.len(), "{}", output.err);
}

/// N36: a command that does not check all settings refuses mistakes in names too.
#[tokio::test]
async fn every_command_refuses_misspelt_names_and_urls_of_other_stores() {
    let output = run(&["healthcheck"], &[("GRPC_ADR", "127.0.0.1:1")]).await;
    assert!(!output.ok && output.err.contains("did you mean GRPC_ADDR?"), "{output:?}");
    let url = ("MIGRATE_DATABASE_URL", "mysql://root:canary@host/db");
    for command in ["migrate", "bootstrap"] {
        let output = run(&[command], &[url]).await;
        let reports_setting =
            output.err.contains("MIGRATE_DATABASE_URL must be a URL that begins with");
        assert!(!output.ok && reports_setting && !output.err.contains("canary"), "{output:?}");
    }
}
