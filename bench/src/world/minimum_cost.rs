//! Minimum cost of a sign-in and of a refresh: one argon2 hash (sign-in only), two signatures and
//! one commit. One thread on the server's core runs each operation alone, in a loop. The cost is
//! the processor time per operation, in microseconds.

use std::{fs, hint::black_box, path::Path, thread};

use anyhow::{Context, anyhow};
use argon2::{Algorithm, Argon2, Block, ParamsBuilder, Version};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::{config::Passwords, pg, tokens::pem as key_files};

use super::databases::PASSWORD;
use crate::cores::pin;

/// Number of measured hashes.
const HASHES: u32 = 20;
/// Number of measured pairs of signatures.
const SIGNATURES: u32 = 100;
/// Number of measured commits.
const COMMITS: u32 = 500;

/// Approximate length of an access token's header and claims, in bytes.
const TOKEN_BYTES: usize = 600;

/// Cost of each operation, in microseconds of processor time.
#[derive(Clone, Copy, Debug)]
pub struct MinimumCost {
    /// One password hash with the server's default parameters.
    pub hash: f64,
    /// One signature with the access key and one with the refresh key.
    pub signatures: f64,
    /// One update of a row with its commit. Includes only the processor time of the client side,
    /// not of Postgres.
    pub commit: f64,
}

/// Measures the three operations on an otherwise idle core.
///
/// # Errors
/// Returns an error when a key cannot be read or Postgres is unavailable.
pub fn measure(
    core: usize,
    keys_dir: &Path,
    passwords: &Passwords,
    database: &SecretString,
) -> anyhow::Result<MinimumCost> {
    let measure_all = || {
        pin(&[core])?;
        Ok(MinimumCost {
            hash: measure_hash(passwords)?,
            signatures: measure_signatures(keys_dir)?,
            commit: measure_commit(database)?,
        })
    };
    thread::scope(|scope| {
        scope.spawn(measure_all).join().map_err(|_| anyhow!("the measurement panicked"))?
    })
}

fn measure_hash(passwords: &Passwords) -> anyhow::Result<f64> {
    let params = ParamsBuilder::new()
        .m_cost(passwords.memory_kib)
        .t_cost(passwords.iterations)
        .p_cost(passwords.parallelism)
        .build()
        .map_err(|error| anyhow!("argon2: {error}"))?;
    let mut memory = vec![Block::default(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    cost_per_run(HASHES, || {
        let mut out = [0; 32];
        argon2
            .hash_password_into_with_memory(PASSWORD.as_bytes(), &[7; 16], &mut out, &mut memory)
            .map_err(|error| anyhow!("argon2: {error}"))?;
        black_box(out);
        Ok(())
    })
}

fn measure_signatures(keys_dir: &Path) -> anyhow::Result<f64> {
    let paths = key_files::paths(keys_dir);
    let (access, refresh) = (read_key(&paths.access_private)?, read_key(&paths.refresh_private)?);
    let random = SystemRandom::new();
    let message = [b'x'; TOKEN_BYTES];
    cost_per_run(SIGNATURES, || {
        for key in [&access, &refresh] {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature)
                .ok()
                .context("a key can't sign")?;
            black_box(signature);
        }
        Ok(())
    })
}

fn read_key(path: &Path) -> anyhow::Result<RsaKeyPair> {
    let block = pem::parse(fs::read_to_string(path)?)?;
    RsaKeyPair::from_pkcs8(block.contents()).ok().context("the file has no RSA key")
}

#[expect(clippy::disallowed_methods, reason = "the schema does not have this table")]
fn measure_commit(database: &SecretString) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut connection = runtime.block_on(pg::connect_owner(database))?;
    let create = "create table if not exists bench_commits (id int primary key, number bigint); \
                 insert into bench_commits values (1, 0) on conflict do nothing";
    runtime.block_on(execute(&mut connection, create))?;
    let update = || {
        let update = sqlx::query("update bench_commits set number = number + 1 where id = $1");
        runtime.block_on(update.bind(1).execute(&mut connection))?;
        Ok(())
    };
    let cost = cost_per_run(COMMITS, update)?;
    runtime.block_on(connection.close())?;
    Ok(cost)
}

async fn execute(connection: &mut PgConnection, sql: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await?;
    Ok(())
}

/// Average processor time of one run of `operation`, in microseconds. Runs the operation once
/// before the measurement.
fn cost_per_run(
    runs: u32,
    mut operation: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    operation()?;
    let start_nanos = cpu_nanos()?;
    for _ in 0..runs {
        operation()?;
    }
    let used_nanos = cpu_nanos()?.saturating_sub(start_nanos);
    Ok(crate::to_f64(used_nanos) / 1000.0 / f64::from(runs))
}

/// Processor time of this thread so far, in nanoseconds.
fn cpu_nanos() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let used_nanos = text.split_whitespace().next().context("schedstat is empty")?;
    Ok(used_nanos.parse()?)
}
