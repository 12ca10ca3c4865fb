//! TLS settings and files with which the server does not start.

use std::fs;

use tenantry::{
    app::App,
    config::{Config, Values},
};

use super::{Authority, Files, text};
use crate::harness::{Cluster, TestApp};

async fn values() -> Values {
    TestApp::values(&Cluster::get().new_database().await)
}

fn mistake(values: &Values) -> String {
    Config::check(values).err().map(|error| error.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn plaintext_on_a_public_address_must_be_enabled() {
    for (setting, enough) in [("GRPC_ADDR", "all"), ("HTTP_ADDR", "http")] {
        for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "[::ffff:192.0.2.1]:50051"] {
            let mut values = values().await;
            values.set(setting, addr);
            assert!(mistake(&values).contains(&format!("{setting} is not a loopback address")));
            for plaintext in ["loopback", "http", "all"] {
                values.set("PLAINTEXT", plaintext);
                let served = mistake(&values).is_empty();
                assert_eq!(served, plaintext == enough || plaintext == "all", "{setting} {addr}");
            }
            values.set("PLAINTEXT", "loopback");
            let files = Files::of(&Authority::new());
            files.set(&mut values);
            assert_eq!(mistake(&values).is_empty(), setting == "GRPC_ADDR");
        }
    }
    for addr in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0"] {
        let mut values = values().await;
        values.set("GRPC_ADDR", addr);
        values.set("HTTP_ADDR", addr);
        assert_eq!(mistake(&values), "", "{addr}");
    }
}

#[tokio::test]
async fn incomplete_tls_settings_are_refused() {
    for (set, wanted) in [
        (&["TLS_CERT_PATH"][..], "TLS_KEY_PATH must be set"),
        (&["TLS_KEY_PATH"], "TLS_CERT_PATH is not"),
        (&["TLS_CLIENT_CA_PATH"], "TLS_KEY_PATH must be set, with TLS_CERT_PATH"),
    ] {
        let mut values = values().await;
        for name in set {
            values.set(name, "file.pem");
        }
        let mistake = mistake(&values);
        assert!(mistake.contains(wanted), "{mistake}");
    }
}

#[tokio::test]
async fn mismatched_tls_files_stop_the_start() {
    let authority = Authority::new();
    let other = authority.sign("localhost");
    for (name, content, wanted) in [
        ("cert.pem", String::new(), "has no certificate"),
        ("cert.pem", other.cert.clone(), "do not go together"),
        ("key.pem", other.cert.clone(), "has no private key"),
        ("key.pem", "secret".into(), "has no private key"),
        ("clients.pem", other.key, "has no certificate"),
    ] {
        let files = Files::of(&authority);
        let mut values = values().await;
        files.set_with_clients(&mut values, &authority);
        fs::write(files.path(name), content).expect("written");
        let config = Config::check(&values).expect("settings");
        let error = App::build(config).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains(wanted) && error.contains(&text(&files.path(name))), "{error}");
        assert!(!error.contains("PRIVATE") && !error.contains("secret"), "{error}");
    }
}
