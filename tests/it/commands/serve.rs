//! `tenantry serve`: settings with which the server refuses to start.

use std::{fs, path::Path};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use tempfile::tempdir;

use super::{CommandOutput, run};
use crate::harness::{Cluster, TestApp};

/// RSA key with 1024 bits, which is too short to sign.
const SHORT_KEY: &str = include_str!("rsa1024.pem");

/// Makes keys in a folder unusable.
type BreakKeys = Box<dyn Fn(&Path)>;

/// All settings that the server requires, with the keys of a folder.
fn settings(database: &str, dir: &Path) -> Vec<(&'static str, String)> {
    let cluster = Cluster::get();
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        ("DATABASE_URL", cluster.app_url(database)),
        ("REDIS_URL", cluster.redis_url()),
        ("GRPC_ADDR", "127.0.0.1:0".into()),
        ("JWT_ACCESS_PRIVATE_KEY_PATH", file("access.pem")),
        ("JWT_ACCESS_PUBLIC_KEY_PATH", file("access.pub.pem")),
        ("JWT_REFRESH_PRIVATE_KEY_PATH", file("refresh.pem")),
        ("JWT_REFRESH_PUBLIC_KEY_PATH", file("refresh.pub.pem")),
    ]
}

/// Copies the keys of the tests into a folder, where a test can change them.
fn copy_keys_to(dir: &Path) {
    let keys = &Cluster::get().keys;
    for (from, to) in [
        (&keys.access_private, "access.pem"),
        (&keys.access_public, "access.pub.pem"),
        (&keys.refresh_private, "refresh.pem"),
        (&keys.refresh_public, "refresh.pub.pem"),
    ] {
        fs::copy(from, dir.join(to)).expect(to);
    }
}

async fn serve(settings: &[(&'static str, String)]) -> CommandOutput {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    run(&["serve"], &settings).await
}

fn ec_key() -> String {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
    pem::encode(&pem::Pem::new("PRIVATE KEY", key.expect("a key").as_ref()))
}

#[tokio::test]
async fn one_message_reports_all_wrong_settings() {
    let wrong_settings = [
        ("DATABASE_MAX_CONNECTIONS", "0"),
        ("GRPC_ADDR", "localhost"),
        ("MAX_MESSAGE_BYTES", "1"),
        ("JWT_ACCESS_EXPIRES_IN", "25h"),
        ("JWT_REFRESH_EXPIRES_IN", "soon"),
        ("PASSWORD_MIN_LENGTH", "7"),
        ("ARGON2_MEMORY_KIB", "19455"),
        ("ARGON2_ITERATIONS", "1"),
        ("ARGON2_PARALLELISM", "-1"),
        ("TENANT_REGISTRATION", "maybe"),
        ("REFLECTION", "yes"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "a=b=c"),
    ];
    let output = run(&["serve"], &wrong_settings).await;

    assert!(!output.ok && output.out.is_empty(), "{output:?}");
    let listed_errors: Vec<_> = output.err.lines().skip(1).map(str::trim).collect();
    let missing_settings = ["DATABASE_URL", "REDIS_URL", "JWT_ACCESS_PRIVATE_KEY_PATH"];
    for name in wrong_settings.iter().map(|(name, _)| *name).chain(missing_settings) {
        let count =
            listed_errors.iter().filter(|line| line.starts_with(&format!("{name} must"))).count();
        assert_eq!(count, 1, "{name}: {}", output.err);
    }
    assert!(!output.err.contains("serving"), "{output:?}");
}

/// J06: a misconfigured server does not start, and reports the reason.
#[tokio::test]
async fn the_error_contains_the_file_of_an_unusable_key_but_not_the_key() {
    let app = TestApp::spawn().await;
    let cases: [(&str, BreakKeys); 9] = [
        ("access.pem", Box::new(|dir| write_file(dir, "access.pem", SHORT_KEY))),
        ("access.pem", Box::new(|dir| copy_file(dir, "access.pub.pem", "access.pem"))),
        ("access.pub.pem", Box::new(|dir| copy_file(dir, "access.pem", "access.pub.pem"))),
        ("access.pem", Box::new(|dir| write_file(dir, "access.pem", ""))),
        ("refresh.pub.pem", Box::new(|dir| write_file(dir, "refresh.pub.pem", "garbage"))),
        ("refresh.pem", Box::new(|dir| write_file(dir, "refresh.pem", &ec_key()))),
        ("refresh.pem", Box::new(|dir| fs::remove_file(dir.join("refresh.pem")).expect("removed"))),
        (
            "access.pub.pem does not have the public key of",
            Box::new(|dir| copy_file(dir, "refresh.pub.pem", "access.pub.pem")),
        ),
        (
            "must use different keys",
            Box::new(|dir| {
                copy_file(dir, "access.pem", "refresh.pem");
                copy_file(dir, "access.pub.pem", "refresh.pub.pem");
            }),
        ),
    ];
    for (case, (expected_error, break_keys)) in cases.iter().enumerate() {
        let dir = tempdir().expect("a folder");
        copy_keys_to(dir.path());
        break_keys(dir.path());
        let output = serve(&settings(&app.database, dir.path())).await;
        assert!(!output.ok && output.err.contains(expected_error), "case {case}: {output:?}");
        assert!(!output.err.contains("serving"), "case {case}: {output:?}");
        for file in fs::read_dir(dir.path()).expect("a folder") {
            let text = fs::read_to_string(file.expect("a file").path()).expect("text");
            // Lines of key material. A shorter line could be in the error by chance.
            for line in text.lines().filter(|line| line.len() >= 16 && !line.starts_with('-')) {
                assert!(!output.err.contains(line) && !output.out.contains(line), "case {case}");
            }
        }
    }
}

#[tokio::test]
async fn a_database_role_that_bypasses_row_security_is_refused() {
    let app = TestApp::spawn().await;
    let dir = tempdir().expect("a folder");
    copy_keys_to(dir.path());
    let mut settings = settings(&app.database, dir.path());
    // `DATABASE_URL`
    settings[0].1 = app.owner_url();

    let output = serve(&settings).await;
    assert!(!output.ok && output.err.contains("can bypass row-level security"), "{output:?}");
}

/// N36: the log says "serving" only when Postgres answered.
#[tokio::test]
async fn without_postgres_the_log_does_not_say_that_the_server_serves() {
    let dir = tempdir().expect("a folder");
    copy_keys_to(dir.path());
    let mut settings = settings("none", dir.path());
    // `DATABASE_URL`
    settings[0].1 = "postgres://tenantry_app@127.0.0.1:1/none".to_owned();

    let output = serve(&settings).await;
    let log = output.out.clone() + &output.err;
    assert!(!output.ok && !log.contains("serving"), "{output:?}");
}

#[tokio::test]
async fn the_error_contains_an_address_that_is_in_use() {
    let app = TestApp::spawn().await;
    let dir = tempdir().expect("a folder");
    copy_keys_to(dir.path());
    let mut settings = settings(&app.database, dir.path());
    // `GRPC_ADDR`
    settings[2].1 = app.addr.to_string();

    let output = serve(&settings).await;
    assert!(
        !output.ok && output.err.contains(&format!("can't listen on {}", app.addr)),
        "{output:?}"
    );
}

fn write_file(dir: &Path, file: &str, text: &str) {
    fs::write(dir.join(file), text).expect(file);
}

fn copy_file(dir: &Path, from: &str, to: &str) {
    fs::copy(dir.join(from), dir.join(to)).expect(to);
}
