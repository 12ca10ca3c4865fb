//! Chooses the runtime that opens a connection. The I/O of a connection stays registered with
//! the runtime that opened it, whichever runtime uses the connection later.

use sqlx::{PgPool, Postgres, pool::PoolConnection};
use tokio::{runtime::Handle, task_local};

task_local! {
    static CONNECT_ON: Handle;
}

/// Runs `work`. Connections that `work` opens are opened on `runtime`, not on the current runtime.
pub async fn connect_on<T>(runtime: Handle, work: impl Future<Output = T>) -> T {
    CONNECT_ON.scope(runtime, work).await
}

/// Takes an idle connection of the pool, or opens a new one.
pub(super) async fn acquire(pool: &PgPool) -> sqlx::Result<PoolConnection<Postgres>> {
    let Ok(runtime) = CONNECT_ON.try_with(Handle::clone) else { return pool.acquire().await };
    if let Some(idle) = pool.try_acquire() {
        return Ok(idle);
    }
    let pool = pool.clone();
    let connection = runtime.spawn(async move { pool.acquire().await }).await;
    connection.unwrap_or(Err(sqlx::Error::PoolClosed))
}
