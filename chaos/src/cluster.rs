//! The running system: stores and replicas.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, ensure};
use tenantry::{privacy, tokens::pem};
use tokio::{process::Command, sync::Mutex};

use crate::{
    replica::{Links, Program, Release, Replica, faketime_library},
    stores::{DATABASE, RedisOption, Stores, StoresOption},
    workload::PlatformAdmin,
};

pub struct Cluster {
    pub stores: Stores,
    /// A fault of a replica locks only that replica, so that a fault of another part can be
    /// injected at the same time.
    pub replicas: Vec<Mutex<Replica>>,
    /// The proxies between each replica and the stores.
    pub links: Vec<Links>,
    pub program: Program,
    /// URL of the database for the role of the service. Connections to this URL bypass the proxies.
    app_url: String,
}

/// The options of [`Cluster::start`].
pub struct ClusterOptions<'a> {
    /// Directory for all files.
    pub dir: &'a Path,
    pub stores: &'a StoresOption,
    pub redis: RedisOption,
    /// Number of replicas.
    pub replicas: usize,
    /// Path of the program of the previous release. The schema and the replicas are then those of
    /// the previous release.
    pub previous: Option<PathBuf>,
    /// Additional settings. They replace usual settings of the same name.
    pub settings: Vec<(&'static str, String)>,
}

impl Cluster {
    /// Starts the stores and the replicas.
    ///
    /// # Errors
    /// Returns an error when a program is not installed or does not start.
    pub async fn start(options: ClusterOptions<'_>) -> anyhow::Result<(Self, PlatformAdmin)> {
        let ClusterOptions { dir, stores, redis, replicas, previous, settings } = options;
        let log_dir = dir.join("logs");
        fs::remove_dir_all(&log_dir).ok();
        fs::create_dir_all(&log_dir).with_context(|| log_dir.display().to_string())?;
        let program = Program {
            path: sibling_program("tenantry")?,
            previous,
            settings: [usual_settings(&dir.join("keys"))?, settings].concat(),
            log_dir,
            faketime: faketime_library().await,
        };
        let stores = Stores::start(stores, redis, &dir.join("stores")).await?;
        let app_url = stores.app_url()?;
        let mut cluster =
            Self { stores, replicas: Vec::new(), links: Vec::new(), program, app_url };
        cluster.migrate(cluster.program.first_release()).await?;
        let platform = cluster.bootstrap().await?;
        for number in 0..replicas {
            let links = Links::start(&cluster.stores).await?;
            let replica = Replica::start(number, &cluster.program, &links).await?;
            cluster.replicas.push(Mutex::new(replica));
            cluster.links.push(links);
        }
        Ok((cluster, platform))
    }

    /// The addresses of the replicas.
    pub async fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for replica in &self.replicas {
            addresses.push(replica.lock().await.addr);
        }
        addresses
    }

    /// Creates or upgrades the schema with the program of a release.
    ///
    /// # Errors
    /// Returns an error when the program can't be started or fails.
    pub async fn migrate(&self, release: Release) -> anyhow::Result<()> {
        let output = self.run(release, &["migrate"]).await?;
        output_text(&output).map(drop)
    }

    /// Creates the platform tenant with the program's own command.
    async fn bootstrap(&self) -> anyhow::Result<PlatformAdmin> {
        let text = output_text(&self.run(self.program.first_release(), &["bootstrap"]).await?)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned()).with_context(|| format!("no {name}"))
        };
        Ok(PlatformAdmin { email: field("email ")?, password: field("password ")? })
    }

    /// Verifies the audit trails with the program's own command. Returns the output if the command
    /// fails, for example because a trail has faults.
    ///
    /// # Errors
    /// Returns an error when the program cannot be started.
    pub async fn verify_audit(&self) -> anyhow::Result<Option<String>> {
        let output = self.run(Release::Current, &["audit", "verify"]).await?;
        let text = [output.stdout, output.stderr].concat();
        let is_sound = output.status.success();
        Ok((!is_sound).then(|| String::from_utf8_lossy(&text).into_owned()))
    }

    async fn run(&self, release: Release, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(self.program.path_of(release)?);
        command
            .args(arguments)
            .env_clear()
            .envs(self.program.settings.iter().map(|(name, value)| (name, value)))
            .env("DATABASE_URL", &self.app_url)
            .env("MIGRATE_DATABASE_URL", self.stores.owner_url(DATABASE))
            .kill_on_drop(true);
        command.output().await.context("can't run tenantry")
    }

    /// Stops the replicas and the stores that this run started.
    ///
    /// # Errors
    /// Returns an error when a process does not stop in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        for replica in &self.replicas {
            replica.lock().await.stop().await?;
        }
        self.stores.stop().await
    }
}

/// The standard output of a program.
///
/// # Errors
/// Returns its error output when it failed.
fn output_text(output: &Output) -> anyhow::Result<String> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Path of another program of this build, in the same directory as this program.
fn sibling_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("this program has no path")?.with_file_name(name);
    ensure!(path.exists(), "{} does not exist: build it first", path.display());
    Ok(path)
}

/// The settings of all replicas and commands. Creates the keys if they do not exist.
fn usual_settings(keys_dir: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    pem::ensure(keys_dir, pem::KeyAlgorithm::Rs256)?;
    let master_key = keys_dir.join("master.keys");
    privacy::ensure_key(&master_key)?;
    let keys = pem::paths(keys_dir);
    Ok(vec![
        ("JWT_ACCESS_PRIVATE_KEY_PATH", keys.access_private.display().to_string()),
        ("JWT_ACCESS_PUBLIC_KEY_PATH", keys.access_public.display().to_string()),
        ("JWT_REFRESH_PRIVATE_KEY_PATH", keys.refresh_private.display().to_string()),
        ("JWT_REFRESH_PUBLIC_KEY_PATH", keys.refresh_public.display().to_string()),
        ("MASTER_KEY_PATH", master_key.display().to_string()),
        // The administrators sign in once, at the start.
        ("JWT_ACCESS_EXPIRES_IN", "24h".to_owned()),
        // All calls come from one address, so the rate limits of a network would refuse them.
        ("RATE_LIMIT_SIGN_IN", "off".to_owned()),
        ("RATE_LIMIT_REGISTRATION", "off".to_owned()),
        ("SIGN_IN_FAILURE_TIME", "200ms".to_owned()),
        // A line for each decision, so that the pipe of an unread log becomes full.
        ("LOG_LEVEL", "info,tenantry=debug".to_owned()),
    ])
}
