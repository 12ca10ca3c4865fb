//! The table of settings. Each setting is an environment variable, a flag and a key in the
//! optional TOML file, all with the same name. `--help` and the checks at start use this table.

/// A setting: its name, default, help text and secrecy.
pub struct Setting {
    /// The environment variable. The flag is its kebab-case form, and the key in the file is
    /// its lower-case form.
    pub name: &'static str,
    /// The default value; `None` when commands that use the setting require a value.
    pub default: Option<&'static str>,
    /// The meaning of the setting, with its unit.
    pub help: &'static str,
    /// Whether the value is secret and must not be shown.
    pub secret: bool,
}

impl Setting {
    /// The name of the flag, such as `database-url`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.to_lowercase().replace('_', "-")
    }

    /// The key in the file, such as `database_url`.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.to_lowercase()
    }
}

const fn setting(name: &'static str, default: Option<&'static str>, help: &'static str) -> Setting {
    Setting { name, default, help, secret: false }
}

const fn secret(name: &'static str, help: &'static str) -> Setting {
    Setting { name, default: None, help, secret: true }
}

/// All settings, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    secret("DATABASE_URL", "Postgres, as the role tenantry_app: postgres://tenantry_app@host/db"),
    secret("MIGRATE_DATABASE_URL", "Postgres, as the role that owns the schema"),
    setting(
        "DATABASE_MAX_CONNECTIONS",
        Some("20"),
        "Maximum number of connections to Postgres for calls; the change feed and the check of \
         Postgres use three more",
    ),
    secret(
        "REDIS_URL",
        "Redis: redis://host:port, rediss:// for TLS; also redis-sentinel:// and redis-cluster:// \
         (high-availability.md)",
    ),
    setting("GRPC_ADDR", Some("127.0.0.1:50051"), "Address that gRPC is served on"),
    setting(
        "HTTP_ADDR",
        Some("127.0.0.1:8080"),
        "Address that metrics, probes and keys are served on over HTTP, or off",
    ),
    setting("TLS_CERT_PATH", Some("off"), "PEM file with gRPC's certificate and its chain, or off"),
    setting("TLS_KEY_PATH", Some("off"), "PEM file with the certificate's private key, or off"),
    setting(
        "TLS_CLIENT_CA_PATH",
        Some("off"),
        "PEM file with the CAs of client certificates, which all clients then need; or off",
    ),
    setting(
        "PLAINTEXT",
        Some("loopback"),
        "Addresses without TLS. loopback: loopback only; http: HTTP on any address; all: gRPC too",
    ),
    setting("SERVING_THREADS", Some("0"), "Threads that serve gRPC; 0: one per core"),
    setting("MAX_MESSAGE_BYTES", Some("1048576"), "Largest request message, in bytes"),
    setting(
        "REQUEST_TIMEOUT",
        Some("30s"),
        "Maximum duration of a request, also when its deadline is later",
    ),
    setting(
        "MAX_REQUESTS",
        Some("2000"),
        "Maximum number of requests in progress; more are refused",
    ),
    setting(
        "MAX_CONNECTIONS",
        Some("10000"),
        "Maximum number of open connections; more are closed",
    ),
    setting(
        "MAX_CONNECTIONS_PER_ADDRESS",
        Some("1000"),
        "Maximum number of open connections from one IPv4 address or one IPv6 /64",
    ),
    setting(
        "MAX_CONNECTION_AGE",
        Some("1h"),
        "Age from which a connection accepts no calls, so that clients reconnect to all replicas",
    ),
    setting(
        "SHUTDOWN_GRACE",
        Some("10s"),
        "How long the server waits for requests in progress when it stops",
    ),
    setting("JWT_ACCESS_PRIVATE_KEY_PATH", None, "PEM file with the keys that sign access tokens"),
    setting("JWT_ACCESS_PUBLIC_KEY_PATH", None, "PEM file with the keys that verify access tokens"),
    setting(
        "JWT_REFRESH_PRIVATE_KEY_PATH",
        None,
        "PEM file with the keys that sign refresh tokens",
    ),
    setting(
        "JWT_REFRESH_PUBLIC_KEY_PATH",
        None,
        "PEM file with the keys that verify refresh tokens",
    ),
    setting(
        "TRANSIT_URL",
        Some("off"),
        "URL of a key service (Vault's Transit API) that signs tokens instead of key files, or off",
    ),
    setting(
        "TRANSIT_MOUNT",
        Some("transit"),
        "Mount path of the transit engine in the key service",
    ),
    setting(
        "TRANSIT_TOKEN_PATH",
        None,
        "File with the token for the key service, read at each call",
    ),
    setting(
        "TRANSIT_CA_PATH",
        Some("off"),
        "PEM file with the key service's CA; off: the CAs of the system",
    ),
    setting(
        "JWT_ACCESS_TRANSIT_KEY",
        Some("tenantry-access"),
        "Key in the key service that signs access tokens",
    ),
    setting(
        "JWT_REFRESH_TRANSIT_KEY",
        Some("tenantry-refresh"),
        "Key in the key service that signs refresh tokens",
    ),
    setting(
        "MASTER_KEY_PATH",
        Some("off"),
        "File with the master keys that wrap tenants' data keys; off: data keys are not wrapped",
    ),
    setting(
        "MASTER_TRANSIT_KEY",
        Some("off"),
        "Key in the key service that wraps new data keys, or off",
    ),
    setting("JWT_ISSUER", Some("tenantry"), "The iss claim of tokens"),
    setting("JWT_AUDIENCE", Some("tenantry"), "The aud claim of access tokens"),
    setting("JWT_ACCESS_EXPIRES_IN", Some("15m"), "Lifetime of an access token, 24h at most"),
    setting(
        "JWT_REFRESH_EXPIRES_IN",
        Some("30d"),
        "Lifetime of a refresh token; a session ends if it is not refreshed for this time",
    ),
    setting(
        "SESSION_EXPIRES_IN",
        Some("30d"),
        "Maximum lifetime of a session, also when it is refreshed",
    ),
    setting(
        "TRUSTED_PROXIES",
        Some("off"),
        "Networks of proxies whose x-forwarded-for header is trusted, or off",
    ),
    setting(
        "RATE_LIMIT_SIGN_IN",
        Some("600/1m,6000/1m"),
        "Sign-ins from one network, and for one tenant; or off",
    ),
    setting(
        "RATE_LIMIT_REGISTRATION",
        Some("600/1m,6000/1m"),
        "Registrations from one network, and for one tenant; or off",
    ),
    setting(
        "RATE_LIMIT_REFRESH",
        Some("30000/1m,100000/1m"),
        "Refreshes from one network, and for one tenant, on each replica; or off",
    ),
    setting(
        "RATE_LIMIT_INTROSPECTION",
        Some("600000/1m,off"),
        "Introspections from one network, and for one tenant, on each replica; or off",
    ),
    setting(
        "RATE_LIMIT_PASSWORD_RESET",
        Some("60/1m,600/1m"),
        "Password resets from one network, and for one tenant; or off",
    ),
    setting(
        "RATE_LIMIT_API_KEY",
        Some("6000/1m,60000/1m"),
        "Uses of API keys from one network, and for one tenant; or off",
    ),
    setting(
        "MAIL_URL",
        Some("off"),
        "Mails: smtps://user:password@host, smtp://user:password@host?tls=required (STARTTLS), \
         smtp://host, file:///folder; or off",
    ),
    setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        Some("off"),
        "Trace collector (OTLP over gRPC): http://host:4317, https://host:4317; or off",
    ),
    setting(
        "OTEL_TRACES_SAMPLER_ARG",
        Some("0.01"),
        "Fraction of the calls without a client's trace that are traced, from 0 to 1",
    ),
    setting("MAIL_FROM", Some("Tenantry <tenantry@localhost>"), "Sender of mails"),
    setting(
        "PASSWORD_RESET_URL",
        Some("off"),
        "URL with {token}, to which password reset mails link; off: mails contain only the token",
    ),
    setting(
        "EMAIL_VERIFICATION_URL",
        Some("off"),
        "URL with {token}, to which mails for VerifyEmail link; off: mails contain only the token",
    ),
    setting(
        "AUDIT_STREAM_LENGTH",
        Some("1000"),
        "Approximate number of events in each tenant's Redis stream, at least 200; 0: no streams",
    ),
    setting(
        "SESSION_RETENTION",
        Some("30d"),
        "How long a session is kept after it expired or was revoked; at least 1d",
    ),
    setting(
        "ASSIGNMENT_RETENTION",
        Some("30d"),
        "How long a role assignment is kept after it expired; at least 1d",
    ),
    setting(
        "API_KEY_RETENTION",
        Some("30d"),
        "How long an API key is kept after it expired or was revoked; at least 1d",
    ),
    setting(
        "AUDIT_RETENTION",
        Some("forever"),
        "How long an audit event is kept; at least 30d. forever: events are never deleted",
    ),
    setting("PASSWORD_MIN_LENGTH", Some("8"), "Minimum password length, in characters; 8 to 64"),
    setting("ARGON2_MEMORY_KIB", Some("19456"), "argon2id memory, in KiB; 19456 at least"),
    setting("ARGON2_ITERATIONS", Some("2"), "argon2id passes; 2 at least"),
    setting("ARGON2_PARALLELISM", Some("1"), "argon2id lanes"),
    setting("PASSWORD_PEPPER_PATH", Some("off"), "File with peppers for new hashes, or off"),
    setting(
        "HASHING_THREADS",
        Some("0"),
        "Threads that hash passwords; 0: one per core, but no more than HASHING_MEMORY_BYTES allows",
    ),
    setting(
        "HASHING_MEMORY_BYTES",
        Some("0"),
        "Maximum memory of the passwords that are hashed at the same time; 0: half of the memory \
         limit (of the cgroup, or of the machine)",
    ),
    setting(
        "HASHING_QUEUE",
        Some("128"),
        "Maximum number of passwords that wait for a thread, half for one tenant; more are refused",
    ),
    setting(
        "SIGN_IN_FAILURE_TIME",
        Some("1s"),
        "Time from the start of a failed sign-in to its response, or a multiple of this time when \
         many sign-ins are in progress; 1ms to 10s",
    ),
    setting(
        "TENANT_REGISTRATION",
        Some("open"),
        "Whether Register may create tenants: open|closed",
    ),
    setting(
        "TENANTLESS_SIGN_IN",
        Some("verified"),
        "Emails that a sign-in without a tenant looks up: verified|any|off; `dev`: any",
    ),
    setting(
        "MEMORY_SUBJECT_BYTES",
        Some("134217728"),
        "Maximum size of the subject cache, in bytes; most subjects need about 300",
    ),
    setting(
        "MEMORY_TOKENS",
        Some("200000"),
        "Maximum number of verified access tokens in the token cache",
    ),
    setting("REFLECTION", Some("on"), "Whether gRPC reflection is served: on|off"),
    setting("ENVOY_AUTHORIZATION", Some("on"), "Whether Envoy's ext_authz is served: on|off"),
    setting(
        "GRPC_WEB_ORIGINS",
        Some("off"),
        "Origins of web pages that may use gRPC-Web: https://app.example.com,...; or off",
    ),
    setting("LOG_FORMAT", Some("human"), "Log lines: human|json"),
    setting("LOG_LEVEL", Some("info"), "error|warn|info|debug|trace, or a tracing filter"),
    setting("DEV_DIR", Some(".tenantry/dev"), "Folder in which `dev` keeps its servers and keys"),
];
