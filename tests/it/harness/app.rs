//! One server for one test.

use std::{
    mem,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};
use tenantry::{
    app::App,
    cli::provision::{self, Credentials},
    config::{self, Config, Passwords, SETTINGS, Values},
    db::Db,
    ids::TenantId,
    privacy::{Cipher, DataKeys},
    server::{self, Listeners},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime,
    sync::{Mutex, MutexGuard, OnceCell, oneshot},
    task::JoinHandle,
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Client, Cluster, Forge, leaks, within_seconds};

/// A running server and its database. Dropping the value stops the server, unless tests share it.
pub struct TestApp {
    pub addr: SocketAddr,
    pub http: SocketAddr,
    pub channel: Channel,
    pub database: String,
    stop: Option<oneshot::Sender<()>>,
    server_task: Option<JoinHandle<anyhow::Result<()>>>,
    /// Suffix of the tenant slugs of this test. `Some` exactly when tests share the server.
    suffix: Option<String>,
    /// The connection of [`TestApp::reused_owner_connection`].
    owner_connection: OnceCell<Mutex<PgConnection>>,
}

impl TestApp {
    /// A server with the default settings on a new database.
    pub async fn spawn() -> Self {
        Self::with_settings(|_| {}).await
    }

    /// A server on a new database, with settings changed by `adjust`.
    pub async fn with_settings(adjust: impl FnOnce(&mut Values)) -> Self {
        let database = Cluster::get().new_database().await;
        Self::on_database(&database, adjust).await
    }

    /// The server that tests of this process share. For a test that uses only its own
    /// tenants. Their slugs get a suffix, so a test reads a slug from the tenant's [`Client`].
    /// A test needs [`TestApp::spawn`] when it uses shared state: settings, metrics, logs, the
    /// platform tenant, the server's start and stop, table locks, or the rows of all tenants.
    pub fn shared() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let server = shared_server();
        // Each test calls from its own address, because the server limits the calls of one
        // network.
        let [.., high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, 1, high, low);
        let endpoint = Endpoint::from_shared(format!("http://{}", server.addr));
        let endpoint = endpoint.expect("an endpoint").local_address(Some(address.into()));
        Self {
            addr: server.addr,
            http: server.http,
            channel: endpoint.connect_lazy(),
            database: server.database.clone(),
            stop: None,
            server_task: None,
            suffix: Some(number.to_string()),
            owner_connection: OnceCell::new(),
        }
    }

    /// Asserts that no other test uses this server.
    #[track_caller]
    pub(super) fn assert_not_shared(&self) {
        assert!(self.suffix.is_none(), "the test must start its server with `TestApp::spawn`");
    }

    /// A server on a new database that hashes passwords with the parameters of its settings.
    /// For tests about password hashes and about the duration of hashing.
    pub async fn with_production_hash_cost(adjust: impl FnOnce(&mut Values)) -> Self {
        let database = Cluster::get().new_database().await;
        Self::with_production_hash_cost_on(&database, adjust).await
    }

    /// Like [`TestApp::with_production_hash_cost`], on an existing database.
    pub async fn with_production_hash_cost_on(
        database: &str,
        adjust: impl FnOnce(&mut Values),
    ) -> Self {
        Self::start(database, adjust, |_| {}).await
    }

    /// A server on an existing database: another replica, or the same server after a restart.
    pub async fn on_database(database: &str, adjust: impl FnOnce(&mut Values)) -> Self {
        Self::start(database, adjust, set_cheap_hashing).await
    }

    async fn start(
        database: &str,
        adjust: impl FnOnce(&mut Values),
        adjust_passwords: impl FnOnce(&mut Passwords),
    ) -> Self {
        leaks::start_detector();
        let mut values = Self::values(database);
        adjust(&mut values);
        let mut config = Config::check(&values).expect("the settings are valid");
        adjust_passwords(&mut config.passwords);
        let listeners = Listeners::bind(&config.server).await.expect("the listeners are bound");
        let app = App::build(config).expect("the app builds");
        let addr = listeners.grpc.local_addr().expect("an address");
        let http = listeners.http.as_ref().expect("HTTP is on").local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let server_task = tokio::spawn(server::serve(app, listeners, async {
            stopped.await.ok();
        }));
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an endpoint");
        let channel = endpoint.connect_lazy();
        Self {
            addr,
            http,
            channel,
            database: database.to_owned(),
            stop: Some(stop),
            server_task: Some(server_task),
            suffix: None,
            owner_connection: OnceCell::new(),
        }
    }

    /// Starts a server with this `DATABASE_URL`, and returns the error with which the start fails.
    pub async fn start_error(database: &str, url: String) -> String {
        let mut values = Self::values(database);
        values.set("DATABASE_URL", url);
        let config = Config::check(&values).expect("the settings are valid");
        let listeners = Listeners::bind(&config.server).await.expect("the listeners are bound");
        let app = App::build(config).expect("the app builds");
        let served = Box::pin(server::serve(app, listeners, std::future::pending()));
        within_seconds(10, served).await.expect_err("the start should fail").to_string()
    }

    /// Whether the server reports that it is ready.
    pub async fn is_serving(&self) -> bool {
        let request = HealthCheckRequest { service: String::new() };
        let reply = HealthClient::new(self.channel.clone()).check(request).await;
        reply.expect("a health response").into_inner().status() == ServingStatus::Serving
    }

    /// The settings of a test server.
    pub fn values(database: &str) -> Values {
        let cluster = Cluster::get();
        let mut values = Values::default();
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                values.set(setting.name, default);
            }
        }
        let keys = &cluster.keys;
        for (name, value) in [
            ("DATABASE_URL", cluster.app_url(database)),
            ("REDIS_URL", cluster.redis_url()),
            ("JWT_ACCESS_PRIVATE_KEY_PATH", keys.access_private.display().to_string()),
            ("JWT_ACCESS_PUBLIC_KEY_PATH", keys.access_public.display().to_string()),
            ("JWT_REFRESH_PRIVATE_KEY_PATH", keys.refresh_private.display().to_string()),
            ("JWT_REFRESH_PUBLIC_KEY_PATH", keys.refresh_public.display().to_string()),
            ("MASTER_KEY_PATH", cluster.master_key.display().to_string()),
            ("DATABASE_MAX_CONNECTIONS", "4".into()),
            ("GRPC_ADDR", "127.0.0.1:0".into()),
            ("HTTP_ADDR", "127.0.0.1:0".into()),
            ("SHUTDOWN_GRACE", "2s".into()),
            ("SIGN_IN_FAILURE_TIME", "1ms".into()),
            // All tests call from one address, so limits for one network are off.
            ("RATE_LIMIT_SIGN_IN", "off".into()),
            ("RATE_LIMIT_REGISTRATION", "off".into()),
            ("RATE_LIMIT_REFRESH", "off".into()),
            ("RATE_LIMIT_INTROSPECTION", "off".into()),
            ("RATE_LIMIT_PASSWORD_RESET", "off".into()),
            ("RATE_LIMIT_API_KEY", "off".into()),
        ] {
            values.set(name, value);
        }
        values
    }

    /// A client without a token.
    pub fn anonymous(&self) -> Client {
        Client::anonymous(self.channel.clone())
    }

    /// Signs up a tenant with this slug and returns its signed-in administrator. On a shared
    /// server the slug gets a suffix that is unique to this test.
    pub async fn create_tenant(&self, slug: &str) -> Client {
        let slug = match &self.suffix {
            Some(suffix) => format!("{slug}-{suffix}"),
            None => slug.to_owned(),
        };
        self.anonymous().sign_up_tenant(&slug).await
    }

    /// The platform's first administrator, signed in. On a shared server all tests share the
    /// platform tenant, so a test may only read it.
    pub async fn platform_admin(&self) -> Client {
        static SHARED: OnceCell<Credentials> = OnceCell::const_new();
        let anonymous = self.anonymous();
        if self.suffix.is_some() {
            let credentials = SHARED.get_or_init(|| self.create_platform()).await;
            anonymous.login(&credentials.tenant, &credentials.email, &credentials.password).await
        } else {
            let credentials = self.create_platform().await;
            anonymous.login(&credentials.tenant, &credentials.email, &credentials.password).await
        }
    }

    async fn create_platform(&self) -> Credentials {
        let values = Self::values(&self.database);
        let owner_db = self.owner_db().await;
        let mut passwords = Passwords::check(&values).expect("the settings are valid");
        set_cheap_hashing(&mut passwords);
        let hasher = tenantry::passwords::Hasher::start(&passwords).expect("a hasher");
        let credentials =
            provision::create_platform_tenant(&owner_db, &hasher, "root@platform.test").await;
        owner_db.close().await;
        credentials.expect("Postgres responds").expect("the platform did not exist")
    }

    /// Path of the master key file.
    pub fn master_key(&self) -> String {
        let values = Self::values(&self.database);
        values.get("MASTER_KEY_PATH").expect("it is set").to_owned()
    }

    /// The cipher that encrypts a tenant's personal data.
    pub async fn cipher(&self, tenant_id: &str) -> Arc<Cipher> {
        let tenant = TenantId(tenant_id.parse().expect("a UUID"));
        let db = self.owner_db().await;
        let cipher =
            db.cipher(tenant).await.expect("Postgres responds").expect("the tenant exists");
        db.close().await;
        cipher
    }

    /// A [`Db`] that is connected as the schema's owner, like the command-line commands.
    async fn owner_db(&self) -> Db {
        let source =
            config::master_keys(&Self::values(&self.database)).expect("the settings are valid");
        let data_keys = DataKeys::load(&source).expect("a master key");
        let db = Db::connect(&self.owner_url().into(), 1).expect("a pool");
        let db = db.with_data_keys(data_keys);
        db.load_common_data_key().await.expect("a data key");
        db
    }

    /// A connection as the schema's owner, which sees the rows of all tenants.
    pub async fn owner_connection(&self) -> PgConnection {
        Cluster::get().connect_owner(&self.database).await
    }

    /// A reused connection as the schema's owner, for single statements. A new connection
    /// costs more than most statements.
    pub(super) async fn reused_owner_connection(&self) -> MutexGuard<'_, PgConnection> {
        let connection = self
            .owner_connection
            .get_or_init(|| async { Mutex::new(self.owner_connection().await) });
        connection.await.lock().await
    }

    /// A pool of one connection that uses the service's database role.
    pub async fn app_role_pool(&self) -> PgPool {
        let url = Cluster::get().app_url(&self.database);
        PgPoolOptions::new().max_connections(1).connect(&url).await.expect("a connection")
    }

    pub fn owner_url(&self) -> String {
        Cluster::get().owner_url(&self.database)
    }

    /// Sends an HTTP GET and returns the status and the body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.get_with_head(path).await;
        (status, body)
    }

    /// Sends an HTTP GET and returns the status, the head and the body.
    pub async fn get_with_head(&self, path: &str) -> (u16, String, String) {
        self.assert_not_shared();
        let mut stream = TcpStream::connect(self.http).await.expect("HTTP is served");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).await.expect("read");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), head.to_owned(), body.to_owned())
    }

    /// Value of a metric, by its name and labels as `/metrics` prints them. `None` when the
    /// page does not contain the metric.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics").await;
        let values = page.lines().filter_map(|line| line.rsplit_once(' '));
        let mut samples = values.filter(|(sample, _)| *sample == name);
        samples.next().map(|(_, value)| value.parse().expect("a number"))
    }

    /// Makes valid and invalid tokens, signed with this server's keys.
    pub fn forge(&self) -> Forge {
        Forge::new(&Cluster::get().keys)
    }

    /// Starts a shutdown, as a signal does, and waits until the server has stopped.
    pub async fn stop(mut self) {
        self.assert_not_shared();
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(server_task) = self.server_task.take() {
            server_task.await.expect("no panic").expect("the server stops without an error");
        }
    }
}

/// Sets the argon2id parameters to their minimum, because most tests start with sign-ins and
/// hashing is most of a sign-in's cost. Settings cannot have these values: `commands::serve`
/// tests that the program refuses them.
fn set_cheap_hashing(passwords: &mut Passwords) {
    passwords.memory_kib = 8;
    passwords.iterations = 1;
}

/// The shared server. It has its own runtime, because the runtime of the test that starts the
/// server ends with the test.
fn shared_server() -> &'static TestApp {
    static SERVER: OnceLock<TestApp> = OnceLock::new();
    SERVER.get_or_init(|| {
        let start = || {
            let mut runtime = runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
            let server = runtime.block_on(TestApp::with_settings(|values| {
                values.set("DATABASE_MAX_CONNECTIONS", "16");
            }));
            // The runtime runs until the process exits.
            mem::forget(runtime);
            server
        };
        thread::spawn(start).join().expect("the server starts")
    })
}
