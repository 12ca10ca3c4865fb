//! The private Postgres and Redis, one pair for each folder. Their data survives a restart, and
//! they end when [`Services`] is dropped.

use std::{fs, path::Path, process::Command, time::Duration};

use tempfile::tempdir;
use tenantry::dev::{Options, Services};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

const DURABLE: Options = Options { durable: true };
const FAST: Options = Options { durable: false };

/// Sends one command to Redis, and returns the whole reply.
async fn redis(services: &Services, command: &str) -> anyhow::Result<String> {
    let url = services.redis_url();
    let mut stream = UnixStream::connect(url.trim_start_matches("redis+unix://")).await?;
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok(reply)
}

async fn wait_until_removed(path: &Path) {
    while path.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn state_survives_a_stop_and_a_start() -> anyhow::Result<()> {
    let dir = tempdir()?;
    let services = Services::start(dir.path(), DURABLE).await?;
    redis(&services, "SET greeting hello").await?;
    let created_at = fs::metadata(dir.path().join("data/PG_VERSION"))?.created()?;
    services.stop().await?;
    assert!(!dir.path().join("data/postmaster.pid").exists());

    let services = Services::start(dir.path(), DURABLE).await?;
    assert!(redis(&services, "GET greeting").await?.contains("hello"));
    let created_at_after_restart = fs::metadata(dir.path().join("data/PG_VERSION"))?.created()?;
    assert_eq!(created_at, created_at_after_restart);
    services.stop().await
}

#[tokio::test]
async fn a_second_start_in_the_same_folder_is_refused() -> anyhow::Result<()> {
    let dir = tempdir()?;
    let services = Services::start(dir.path(), FAST).await?;
    let Err(error) = Services::start(dir.path(), FAST).await else {
        panic!("a second pair of servers started in the same folder");
    };
    let message = error.to_string();
    assert!(message.starts_with("already running from"), "{message}");
    assert!(message.ends_with(&format!("pid {}", std::process::id())), "{message}");
    assert!(redis(&services, "PING").await?.contains("PONG"));
    services.stop().await
}

#[tokio::test]
async fn dropping_ends_the_servers_and_the_next_start_waits_for_their_end() -> anyhow::Result<()> {
    let dir = tempdir()?;
    drop(Services::start(dir.path(), FAST).await?);
    drop(Services::start(dir.path(), FAST).await?);
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, wait_until_removed(&dir.path().join("data/postmaster.pid")))
        .await?;
    tokio::time::timeout(limit, wait_until_removed(&dir.path().join("run/redis.sock"))).await?;
    Ok(())
}

#[tokio::test]
async fn leftover_files_of_a_crash_do_not_block_a_start() -> anyhow::Result<()> {
    let dir = tempdir()?;
    fs::create_dir(dir.path().join("data.new-1"))?;
    fs::write(dir.path().join("data.new-1/PG_VERSION"), "")?;
    Services::start(dir.path(), FAST).await?.stop().await?;
    assert!(!dir.path().join("data.new-1").exists());

    // The process id in these files now belongs to another process.
    let mut other_process = Command::new("sleep").arg("60").spawn()?;
    let data_dir = dir.path().join("data").display().to_string();
    let stale_content = format!("{}\n{data_dir}\n1\n5432\n", other_process.id());
    fs::write(dir.path().join("data/postmaster.pid"), &stale_content)?;
    fs::write(dir.path().join("run/.s.PGSQL.5432.lock"), &stale_content)?;
    fs::write(dir.path().join("run/redis.sock"), "")?;
    let result = Services::start(dir.path(), FAST).await;
    other_process.kill()?;
    other_process.wait()?;
    result?.stop().await
}

#[tokio::test]
async fn sockets_move_when_their_path_would_be_too_long() -> anyhow::Result<()> {
    let dir = tempdir()?;
    // 150 characters. The path of a Unix socket has at most 107.
    let long_dir = dir.path().join("long-".repeat(30));
    let services = Services::start(&long_dir, FAST).await?;
    assert!(!services.notes().is_empty());
    assert!(redis(&services, "PING").await?.contains("PONG"));
    let url = services.postgres_url("a user", "a/database");
    assert!(url.starts_with("postgres://a%20user@localhost:5432/a%2Fdatabase?host=%2F"), "{url}");
    services.stop().await?;
    for link in ["moved-sockets", "moved-data"] {
        if let Ok(target) = fs::read_link(long_dir.join(link)) {
            fs::remove_dir_all(target)?;
        }
    }
    Ok(())
}
