//! The pool of connections to Postgres, and the check that they are not too powerful.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use sqlx::{Executor, PgPool, postgres::PgPoolOptions};

use super::{Observed, Tx, held::Pool, share::ConnectionShares, url::parse};
use crate::{error::Result, ids::TenantId, telemetry::Operations};

/// The role that the schema's migrations grant the service's rights to.
pub(super) const APP_ROLE: &str = "tenantry_app";

/// How long a request waits for a free connection before it is UNAVAILABLE.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often Postgres looks whether the client of a statement is still connected: with
/// [`super::held`] it is how soon a statement ends that nobody waits for. Postgres 13 and
/// before can't; there its time-outs end it.
const CHECK_CLIENT: &str = "select set_config('client_connection_check_interval', '250ms', false)
     where current_setting('server_version_num')::int >= 140000";

/// Postgres. Cheap to clone.
#[derive(Clone)]
pub struct Postgres {
    pool: Pool,
    shares: Arc<ConnectionShares>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    /// A pool of at most `max_connections`, which connects when first used.
    ///
    /// # Errors
    /// When the URL can't be read.
    pub fn connect(url: &SecretString, max_connections: u32) -> anyhow::Result<Self> {
        let options = parse(url)?.options([
            ("statement_timeout", "10s"),
            ("lock_timeout", "5s"),
            // Of a process that hangs or can't be reached any more, which would keep its
            // locks: no transaction here waits for anything but Postgres.
            ("idle_in_transaction_session_timeout", "10s"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A ping on each acquire doubles the round trips; a broken
            // connection shows at its first use and is replaced.
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // Some systems that Postgres runs on can't.
                    if let Err(error) = connection.execute(CHECK_CLIENT).await {
                        tracing::debug!(%error, "statements end by their time-outs alone");
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool: Pool::new(pool), shares: Arc::new(ConnectionShares::of(max_connections)) })
    }

    /// Shows what is counted of its connections.
    pub fn register(&self, registry: &mut Registry) {
        self.shares.register(registry);
        self.pool.register(registry);
    }

    /// The same, with its statements counted together with those of others.
    #[must_use]
    pub fn with_operations(self, operations: Operations) -> Self {
        Self { pool: self.pool.with_operations(operations), ..self }
    }

    /// Refuses a role that row-level security does not bind.
    ///
    /// # Errors
    /// When Postgres is away, the schema is missing, or the role is a
    /// superuser, bypasses row security, or owns tables or the functions that
    /// look across tenants, itself or through a role that it can become.
    pub async fn check_privileges(&self) -> anyhow::Result<()> {
        let found = sqlx::query!(
            r#"
            select current_user::text as "name!",
                   bool_or(r.rolsuper or r.rolbypassrls) as "bypasses!",
                   exists (
                       select from pg_class c
                       where c.relnamespace = 'public'::regnamespace
                         and pg_has_role(current_user, c.relowner, 'member')
                   ) or exists (
                       select from pg_proc p
                       where p.pronamespace = 'public'::regnamespace
                         and pg_has_role(current_user, p.proowner, 'member')
                   ) as "owns!"
            from pg_roles r
            where pg_has_role(current_user, r.oid, 'member')
            "#
        )
        .fetch_one(self.connections())
        .await
        .context("can't ask Postgres about the role of DATABASE_URL")?;
        ensure!(
            !found.bypasses && !found.owns,
            "DATABASE_URL connects as {}, which row-level security does not bind; \
             connect as {APP_ROLE}",
            found.name
        );
        Ok(())
    }

    /// Whether Postgres answers.
    pub async fn is_up(&self) -> bool {
        sqlx::query_scalar!(r#"select true as "up!""#).fetch_one(self.connections()).await.is_ok()
    }

    /// A connection for a statement that is complete in itself and concerns no tenant
    /// or all of them.
    #[must_use]
    pub fn pool(&self) -> Observed<'static> {
        Observed::pool(self.pool.clone(), None)
    }

    /// A connection of a tenant's share, for a statement that is complete in itself: the
    /// SQL functions that set their tenant.
    ///
    /// # Errors
    /// OVERLOADED when none of the tenant's share comes free.
    pub async fn single(&self, tenant: TenantId) -> Result<Observed<'static>> {
        let permit = self.shares.acquire(tenant).await?;
        Ok(Observed::pool(self.pool.clone(), Some(permit)))
    }

    /// The connections themselves.
    #[must_use]
    pub fn connections(&self) -> &PgPool {
        self.pool.connections()
    }

    /// Begins a transaction that works in `tenant`, on a connection of the tenant's share.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is away or no connection comes free, OVERLOADED when
    /// none of the tenant's share does.
    pub async fn begin(&self, tenant: TenantId) -> Result<Tx> {
        self.begin_within(tenant, tenant).await
    }

    /// The same, on a connection of another share than the tenant's own: for callers who
    /// did not name the tenant, or one that does not exist.
    ///
    /// # Errors
    /// Those of [`Postgres::begin`].
    pub async fn begin_within(&self, share: TenantId, tenant: TenantId) -> Result<Tx> {
        let permit = self.shares.acquire(share).await?;
        Tx::begin(&self.pool, permit, tenant).await
    }

    /// Whether the connections were closed for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connections().is_closed()
    }

    /// Closes the connections once they are idle.
    pub async fn close(&self) {
        self.connections().close().await;
    }
}
