//! The Postgres and Redis servers that all tests of the process share.

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::{
    dev::{Options, Services},
    tokens::{KeyPaths, pem},
};

const TEMPLATE: &str = "tenantry_template";

/// The shared Postgres and Redis, the migrated template database and the keys.
pub struct Cluster {
    services: Services,
    pub keys: KeyPaths,
    pub master_key: PathBuf,
}

impl Cluster {
    /// The cluster of this process. The first call starts the servers. The servers stop when
    /// the process exits.
    pub fn get() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| {
            let start = || {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(Self::start())
            };
            std::thread::spawn(start).join().expect("the cluster starts")
        })
    }

    async fn start() -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("it");
        // Delete the data of an earlier run. While another run holds the lock, keep the data:
        // `Services::start` then fails and reports the other run.
        let lock = std::fs::File::open(dir.join("lock"));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            std::fs::remove_dir_all(&dir).expect("the data of the last run is deleted");
        }
        let services =
            Services::start(&dir, Options { durable: false }).await.expect("servers start");
        let keys = dir.join("keys");
        pem::ensure(&keys, pem::KeyAlgorithm::Rs256).expect("keys");
        let master_key = dir.join("master.keys");
        tenantry::privacy::ensure_key(&master_key).expect("a master key");
        let cluster = Self { services, keys: pem::paths(&keys), master_key };
        cluster.stop_autovacuum().await;
        cluster.create_database(TEMPLATE, "template1").await;
        let mut owner_connection = cluster.connect_owner(TEMPLATE).await;
        tenantry::pg::migrate(&mut owner_connection).await.expect("migrations apply");
        owner_connection.close().await.expect("closes the template's connection");
        cluster
    }

    /// Creates a database with the schema, and returns its name.
    pub async fn new_database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("it_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.create_database(&name, TEMPLATE).await;
        name
    }

    /// Creates a database without the schema.
    pub async fn empty_database(&self, name: &str) {
        self.create_database(name, "template1").await;
    }

    /// Turns autovacuum off. With hundreds of databases, autovacuum visits one of them every
    /// 100 ms, and no test has enough dead rows to need a vacuum.
    async fn stop_autovacuum(&self) {
        let mut admin = self.connect_owner("postgres").await;
        for statement in ["alter system set autovacuum = off", "select pg_reload_conf()"] {
            sqlx::raw_sql(statement).execute(&mut admin).await.expect("the setting is changed");
        }
        admin.close().await.expect("closed");
    }

    async fn create_database(&self, name: &str, template: &str) {
        let mut admin = self.connect_owner("postgres").await;
        let statement = format!("create database {name} template {template}");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await.expect("a database");
        admin.close().await.expect("closed");
    }

    pub async fn connect_owner(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.owner_url(database)).await.expect("a connection")
    }

    /// Postgres URL of the schema's owner, who is a superuser.
    pub fn owner_url(&self, database: &str) -> String {
        self.services.postgres_url("postgres", database)
    }

    /// Postgres URL of the service's role.
    pub fn app_url(&self, database: &str) -> String {
        self.services.postgres_url("tenantry_app", database)
    }

    /// Path of Postgres's Unix socket.
    pub fn postgres_socket(&self) -> PathBuf {
        let url = url::Url::parse(&self.owner_url("postgres")).expect("a URL");
        let (_, dir) = url.query_pairs().find(|(key, _)| key == "host").expect("a directory");
        PathBuf::from(dir.into_owned()).join(".s.PGSQL.5432")
    }

    /// Path of Postgres's log file.
    pub fn postgres_log(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("it/postgres.log")
    }

    /// Path of Redis's Unix socket.
    pub fn redis_socket(&self) -> PathBuf {
        PathBuf::from(self.redis_url().trim_start_matches("redis+unix://"))
    }

    pub fn redis_url(&self) -> String {
        self.services.redis_url()
    }
}
