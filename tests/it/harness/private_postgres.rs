//! A Postgres of its own for a test that stops the server, makes it read-only, or needs a standby.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::dev::{Options, Services};

const DATABASE: &str = "tenantry";

/// A running Postgres with a migrated database. Dropping the value stops the server and deletes its
/// data.
pub struct PrivatePostgres {
    dir: PathBuf,
    /// `None` only while the server is stopped.
    services: Option<Services>,
}

impl PrivatePostgres {
    /// Starts a server with a new cluster. `name` must be unique to the test.
    pub async fn start(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{name}"));
        fs::remove_dir_all(&dir).ok();
        let postgres = Self::start_in(dir).await;
        postgres.execute("postgres", &format!("create database {DATABASE}")).await;
        let mut owner_connection = postgres.owner_connection(DATABASE).await;
        tenantry::pg::migrate(&mut owner_connection).await.expect("migrations apply");
        owner_connection.close().await.expect("closed");
        postgres
    }

    async fn start_in(dir: PathBuf) -> Self {
        let services = Services::start(&dir, Options { durable: false }).await;
        Self { dir, services: Some(services.expect("the servers start")) }
    }

    /// Starts a standby with a copy of this server's data. The standby receives no later changes.
    /// This server is stopped while its data is copied, and then starts again.
    pub async fn start_standby(&mut self) -> Self {
        let services = self.services.take().expect("the server runs");
        services.stop().await.expect("the server stops");
        let dir = self.dir.with_extension("standby");
        fs::remove_dir_all(&dir).ok();
        let copied = Command::new("cp").arg("-a").args([&self.dir, &dir]).status();
        assert!(copied.expect("cp runs").success(), "the data is copied");
        File::create(dir.join("data/standby.signal")).expect("a file");
        *self = Self::start_in(std::mem::take(&mut self.dir)).await;
        Self::start_in(dir).await
    }

    /// Makes a standby the primary.
    pub async fn promote(&self) {
        self.execute("postgres", "select pg_promote()").await;
    }

    /// Makes all transactions of the server read-only, or allows writes again.
    pub async fn set_read_only(&self, read_only: bool) {
        let mut owner_connection = self.owner_connection("postgres").await;
        for statement in [
            // Lets this connection write while the server is read-only.
            "set default_transaction_read_only = off",
            &format!("alter system set default_transaction_read_only = {read_only}"),
            "select pg_reload_conf()",
        ] {
            execute(&mut owner_connection, statement).await;
        }
    }

    /// Executes statements as the superuser.
    pub async fn execute(&self, database: &str, sql: &str) {
        execute(&mut self.owner_connection(database).await, sql).await;
    }

    async fn owner_connection(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url("postgres", database)).await.expect("a connection")
    }

    /// URL of the migrated database, for the service's role.
    pub fn app_url(&self) -> String {
        self.url("tenantry_app", DATABASE)
    }

    /// URL of a database, for a role.
    pub fn url(&self, user: &str, database: &str) -> String {
        self.services.as_ref().expect("the server runs").postgres_url(user, database)
    }

    /// From now on, the role of the service must sign in with its password.
    pub async fn require_app_password(&self) {
        let rules = "local all tenantry_app scram-sha-256\nlocal all all trust\n";
        fs::write(self.dir.join("data/pg_hba.conf"), rules).expect("written");
        self.execute("postgres", "select pg_reload_conf()").await;
    }

    /// Path of the server's Unix socket.
    pub fn socket(&self) -> PathBuf {
        let url = url::Url::parse(&self.app_url()).expect("a URL");
        let (_, dir) = url.query_pairs().find(|(key, _)| key == "host").expect("a directory");
        PathBuf::from(dir.into_owned()).join(".s.PGSQL.5432")
    }
}

async fn execute(owner_connection: &mut PgConnection, sql: &str) {
    let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    statement.execute(owner_connection).await.expect("executed");
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        drop(self.services.take());
        fs::remove_dir_all(&self.dir).ok();
    }
}
