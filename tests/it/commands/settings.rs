//! Sources of settings: a flag, the environment, a file, the default.

use tempfile::NamedTempFile;

use super::{Ran, run};

/// The address that `healthcheck` tried. Nothing listens there.
fn address(ran: &Ran) -> &str {
    assert!(!ran.ok, "{ran:?}");
    let (_, rest) = ran.err.split_once("nothing answers on ").expect("the address");
    rest.split_once(": ").map_or(rest.trim(), |(address, _)| address)
}

fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

#[tokio::test]
async fn a_flag_overrides_the_environment_and_the_environment_overrides_the_file() {
    let file = file("grpc_addr = \"127.0.0.1:3\"\nmax_requests = 7\n");
    let path = file.path().to_str().expect("text");
    let flag = ["healthcheck", "--grpc-addr", "127.0.0.1:1"];
    let environment = ("GRPC_ADDR", "127.0.0.1:2");

    for (arguments, settings, used) in [
        (&flag[..], &[environment, ("TENANTRY_CONFIG", path)][..], "127.0.0.1:1"),
        (&flag[..1], &[environment, ("TENANTRY_CONFIG", path)][..], "127.0.0.1:2"),
        (&flag[..1], &[("TENANTRY_CONFIG", path)][..], "127.0.0.1:3"),
        (&["healthcheck", "--config", path][..], &[][..], "127.0.0.1:3"),
        (&flag[..1], &[("GRPC_ADDR", ""), ("TENANTRY_CONFIG", path)][..], "127.0.0.1:3"),
    ] {
        let ran = run(arguments, settings).await;
        assert_eq!(address(&ran), used, "{arguments:?} {settings:?}");
    }
}

#[tokio::test]
async fn without_a_value_the_default_applies_and_an_empty_value_counts_as_unset() {
    // The mistakes that `serve` lists show which settings have no default.
    for settings in [&[][..], &[("GRPC_ADDR", ""), ("ARGON2_MEMORY_KIB", "")][..]] {
        let ran = run(&["serve"], settings).await;
        let listed: Vec<_> = ran.err.lines().skip(1).map(str::trim).collect();
        assert_eq!(listed.len(), 6, "{ran:?}");
        for name in ["DATABASE_URL", "REDIS_URL", "JWT_ACCESS_PRIVATE_KEY_PATH"] {
            assert!(listed.contains(&format!("{name} must be set").as_str()), "{ran:?}");
        }
    }
}

#[tokio::test]
async fn an_invalid_file_is_refused_without_showing_its_lines() {
    for (text, wanted) in [
        ("grpc_adr = \"x\"", "grpc_adr is no setting"),
        ("GRPC_ADDR = \"x\"", "GRPC_ADDR is no setting"),
        ("grpc_addr = true", "grpc_addr must be a string or a whole number"),
        ("database_url = \"postgres://app:canary@x", "is not valid TOML"),
    ] {
        let file = file(text);
        let path = file.path().to_str().expect("text");
        let ran = run(&["healthcheck", "--config", path], &[]).await;
        assert!(!ran.ok && ran.err.contains(wanted), "{ran:?}");
        assert!(!ran.err.contains("canary"), "{ran:?}");
    }
    let ran = run(&["healthcheck", "--config", "/nowhere.toml"], &[]).await;
    assert!(!ran.ok && ran.err.contains("can't read /nowhere.toml"), "{ran:?}");
}

#[tokio::test]
async fn help_shows_every_setting_but_no_secret() {
    let secret = "postgres://tenantry_app:canary@x/y";
    let ran = run(&["serve", "--help"], &[("DATABASE_URL", secret)]).await;

    assert!(ran.ok && !ran.out.contains("canary"), "{ran:?}");
    for setting in tenantry::config::SETTINGS {
        assert!(ran.out.contains(&format!("--{}", setting.flag())), "{}", setting.name);
        assert!(ran.out.contains(setting.name), "{}", setting.name);
    }
}
