//! Where connections are opened. A connection's input is waited for by the runtime that
//! opened it, whoever uses it later.

use sqlx::{PgPool, Postgres, pool::PoolConnection};
use tokio::{runtime::Handle, task_local};

task_local! {
    static CONNECT_ON: Handle;
}

/// Works with connections that are opened on another runtime than this one.
pub async fn connect_on<T>(runtime: Handle, work: impl Future<Output = T>) -> T {
    CONNECT_ON.scope(runtime, work).await
}

/// A connection of the pool.
pub(super) async fn acquire(pool: &PgPool) -> sqlx::Result<PoolConnection<Postgres>> {
    let Ok(runtime) = CONNECT_ON.try_with(Handle::clone) else { return pool.acquire().await };
    if let Some(idle) = pool.try_acquire() {
        return Ok(idle);
    }
    let pool = pool.clone();
    let acquired = runtime.spawn(async move { pool.acquire().await }).await;
    acquired.unwrap_or(Err(sqlx::Error::PoolClosed))
}
