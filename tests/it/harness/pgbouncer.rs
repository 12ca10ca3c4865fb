//! A `PgBouncer` in front of the Postgres of all tests.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{Cluster, wait_until};

/// A running `PgBouncer`. Dropping it stops the process.
pub struct PgBouncer {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl PgBouncer {
    /// Starts a `PgBouncer` with this `pool_mode`. Other settings are the defaults of `PgBouncer`.
    pub async fn start(pool_mode: &str) -> Self {
        let free_address =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free_address.expect("a free port").port();
        let socket = Cluster::get().postgres_socket();
        let host = socket.parent().expect("a folder").display().to_string();
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let (users, config) = (dir.path().join("users"), dir.path().join("pgbouncer.ini"));
        fs::write(&users, "\"tenantry_app\" \"\"\n\"postgres\" \"\"\n").expect("written");
        let settings = format!(
            "[databases]\n* = host={host}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = {pool_mode}\n",
            users.display()
        );
        fs::write(&config, settings).expect("written");
        let mut command = Self::command();
        command.arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("pgbouncer is installed");
        let pgbouncer = Self { process, port, _dir: dir };
        wait_until(10, || async { TcpStream::connect(("127.0.0.1", port)).await.is_ok() }).await;
        pgbouncer
    }

    /// The command that runs `PgBouncer`. When the tests run as root, `PgBouncer` runs as the user
    /// `postgres`: it refuses to run as root, and the directory of Postgres's socket belongs to
    /// this user.
    fn command() -> Command {
        // Debian keeps the program in a directory that is in the PATH of root only.
        let installed = "/usr/sbin/pgbouncer";
        let program = if Path::new(installed).exists() { installed } else { "pgbouncer" };
        if !rustix::process::geteuid().is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--clear-groups", "--", program]);
        command
    }

    /// URL of a database, for the role of the service.
    pub fn app_url(&self, database: &str) -> String {
        format!("postgres://tenantry_app@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// URL of a database, for the schema's owner.
    pub fn owner_url(&self, database: &str) -> String {
        self.app_url(database).replacen("tenantry_app", "postgres", 1)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
