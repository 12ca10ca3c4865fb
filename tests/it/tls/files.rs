//! TLS settings and files with which the server does not start.

use std::fs;

use tenantry::{
    app::App,
    config::{Config, Values},
};

use super::{Authority, Files, path_text};
use crate::harness::{Cluster, TestApp};

async fn default_values() -> Values {
    TestApp::values(&Cluster::get().new_database().await)
}

fn config_error(values: &Values) -> String {
    Config::check(values).err().map(|error| error.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn plaintext_on_a_public_address_must_be_enabled() {
    for (setting, sufficient_plaintext) in [("GRPC_ADDR", "all"), ("HTTP_ADDR", "http")] {
        for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "[::ffff:192.0.2.1]:50051"] {
            let mut values = default_values().await;
            values.set(setting, addr);
            assert!(
                config_error(&values).contains(&format!("{setting} is not a loopback address"))
            );
            for plaintext in ["loopback", "http", "all"] {
                values.set("PLAINTEXT", plaintext);
                let is_valid = config_error(&values).is_empty();
                assert_eq!(
                    is_valid,
                    plaintext == sufficient_plaintext || plaintext == "all",
                    "{setting} {addr}"
                );
            }
            values.set("PLAINTEXT", "loopback");
            let files = Files::create(&Authority::new());
            files.set(&mut values);
            assert_eq!(config_error(&values).is_empty(), setting == "GRPC_ADDR");
        }
    }
    for addr in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0"] {
        let mut values = default_values().await;
        values.set("GRPC_ADDR", addr);
        values.set("HTTP_ADDR", addr);
        assert_eq!(config_error(&values), "", "{addr}");
    }
}

#[tokio::test]
async fn incomplete_tls_settings_are_refused() {
    for (names, expected) in [
        (&["TLS_CERT_PATH"][..], "TLS_KEY_PATH must be set"),
        (&["TLS_KEY_PATH"], "TLS_CERT_PATH is not"),
        (&["TLS_CLIENT_CA_PATH"], "TLS_KEY_PATH must be set, with TLS_CERT_PATH"),
    ] {
        let mut values = default_values().await;
        for name in names {
            values.set(name, "file.pem");
        }
        let error = config_error(&values);
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn the_server_does_not_start_with_mismatched_tls_files() {
    let authority = Authority::new();
    let other_certificate = authority.sign("localhost");
    let expired_certificate = authority.sign_until(&["localhost"], Some(-time::Duration::HOUR));
    for (name, content, expected) in [
        ("cert.pem", String::new(), "has no certificate"),
        // N37
        ("cert.pem", expired_certificate.cert, "expired at"),
        ("cert.pem", other_certificate.cert.clone(), "do not go together"),
        ("key.pem", other_certificate.cert.clone(), "has no private key"),
        ("key.pem", "secret".into(), "has no private key"),
        ("clients.pem", other_certificate.key, "has no certificate"),
    ] {
        let files = Files::create(&authority);
        let mut values = default_values().await;
        files.set_with_clients(&mut values, &authority);
        fs::write(files.path(name), content).expect("written");
        let config = Config::check(&values).expect("settings");
        let error = App::build(config).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(
            error.contains(expected) && error.contains(&path_text(&files.path(name))),
            "{error}"
        );
        assert!(!error.contains("PRIVATE") && !error.contains("secret"), "{error}");
    }
}
