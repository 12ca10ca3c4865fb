//! The pool of connections to Postgres, and the check of its role's privileges.

use std::{fmt, sync::Arc};

use anyhow::{Context, anyhow, ensure};
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use sqlx::{Executor, PgConnection, PgPool, postgres::PgPoolOptions};

use super::{
    InstrumentedExecutor, Tx, granted_functions, pooled::Pool, primary::Primary,
    server_check::read_only_server, share::ConnectionShares, url::parse, validity::Validity,
    waiting::ACQUIRE_TIMEOUT,
};
use crate::{error::Result, ids::TenantId, telemetry::Operations};

/// The database role that the service connects as. The migrations grant it its privileges.
pub(super) const APP_ROLE: &str = "tenantry_app";

/// Makes Postgres check every 250 ms that the client of a running statement is still connected.
/// Together with [`super::pooled`], this check bounds how long the statement of a cancelled call
/// runs. Postgres 13 and older lack the setting; there only the statement timeout ends the
/// statement.
const SET_CLIENT_CHECK_INTERVAL: &str =
    "select set_config('client_connection_check_interval', '250ms', false)
     where current_setting('server_version_num')::int >= 140000";

/// A handle to Postgres. Cheap to clone.
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
    /// Creates a pool of at most `max_connections`. Each connection is opened at its first use, to
    /// the primary: the first server of the URL, until [`Postgres::check`] finds another primary.
    ///
    /// # Errors
    /// When the URL can't be read.
    pub fn connect(url: &SecretString, max_connections: u32) -> anyhow::Result<Self> {
        let servers = parse(url)?;
        Ok(Self::with_pool(Arc::new(Primary::new(servers)), max_connections))
    }

    /// A handle with a pool of its own, to the same primary. Calls that use all connections of one
    /// pool do not delay the users of the other pool.
    #[must_use]
    pub fn with_own_pool(&self, max_connections: u32) -> Self {
        let handle = Self::with_pool(self.pool.primary().clone(), max_connections);
        handle.with_operations(self.pool.operations().clone())
    }

    fn with_pool(primary: Arc<Primary>, max_connections: u32) -> Self {
        let (validity, new_validity) = (primary.validity().clone(), primary.validity().clone());
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A ping on each acquire would double the round trips. A broken connection fails at
            // its first use and is then replaced.
            .test_before_acquire(false)
            .before_acquire(move |_, state| {
                let accepted = validity.accepts(state.age);
                Box::pin(async move { Ok(accepted) })
            })
            .after_connect(move |connection, _| {
                let validity = new_validity.clone();
                Box::pin(async move { set_up(connection, &validity).await })
            })
            .connect_lazy_with(primary.server().options.clone());
        Self {
            pool: Pool::new(pool, primary),
            shares: Arc::new(ConnectionShares::new(max_connections)),
        }
    }

    /// Registers the metrics of the connections.
    pub fn register(&self, registry: &mut Registry) {
        self.shares.register(registry);
        self.pool.register(registry);
        self.pool.primary().register(registry);
    }

    /// Records the statements in `operations`, where Redis commands are recorded too.
    #[must_use]
    pub fn with_operations(self, operations: Operations) -> Self {
        Self { pool: self.pool.with_operations(operations), ..self }
    }

    /// Refuses a database role that can bypass row-level security.
    ///
    /// # Errors
    /// Fails when Postgres is unavailable, when the schema is missing, or when the role is a
    /// superuser, has `BYPASSRLS`, or owns tables or functions of the schema, directly or
    /// through a role that it is a member of. Also fails when the role may not execute a function
    /// that the service calls.
    pub async fn check_privileges(&self) -> anyhow::Result<()> {
        let role = sqlx::query!(
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
        .fetch_one(self.pool())
        .await
        .context("can't ask Postgres about the role of DATABASE_URL")?;
        ensure!(
            !role.bypasses && !role.owns,
            "DATABASE_URL connects as {}, which can bypass row-level security; \
             connect as {APP_ROLE}",
            role.name
        );
        self.check_functions(&role.name).await
    }

    /// Refuses a role that may not execute a function that the service calls.
    async fn check_functions(&self, role: &str) -> anyhow::Result<()> {
        let mut forbidden = sqlx::query_scalar!(
            r#"
            select distinct p.proname::text as "name!"
            from pg_proc p
            where p.pronamespace = 'public'::regnamespace
              and not has_function_privilege(p.oid, 'execute')
            order by 1
            "#
        )
        .fetch_all(self.pool())
        .await
        .context("can't ask Postgres about the functions of the schema")?;
        let granted = granted_functions::names(APP_ROLE);
        forbidden.retain(|name| granted.contains(name));
        ensure!(
            forbidden.is_empty(),
            "DATABASE_URL connects as {role}, which may not execute the functions {}; connect as \
             {APP_ROLE}, and repeat the lost grants as the owner of the functions: grant execute on \
             function … to {APP_ROLE}",
            forbidden.join(", ")
        );
        Ok(())
    }

    /// Checks that one of the servers is the primary, accepts writes, and has a schema that suits
    /// this program. If the last check failed, calls that need a connection fail immediately.
    ///
    /// # Errors
    /// The cause for each server of the URL.
    pub async fn check(&self) -> anyhow::Result<()> {
        self.pool
            .primary()
            .check()
            .await
            .map_err(|cause| anyhow!("Postgres can't be used: {cause}"))
    }

    /// A number that changes whenever the open connections are invalidated, so at the latest when
    /// another server becomes the primary.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.pool.primary().validity().generation()
    }

    /// Waits until the next check is due: after a second, or earlier when a call suspects that the
    /// server is gone, or when the last check found no usable server.
    pub async fn wait_for_next_check(&self) {
        self.pool.primary().wait_for_next_check().await;
    }

    /// Looks at all servers of the URL again and again, while the future is polled. Moves to the
    /// primary with the highest timeline, and reports when several servers accept writes.
    pub async fn keep_looking_at_all_servers(&self) {
        self.pool.primary().keep_looking_at_all_servers().await;
    }

    /// An executor for a single statement that concerns no tenant or all tenants.
    #[must_use]
    pub fn executor(&self) -> InstrumentedExecutor<'static> {
        InstrumentedExecutor::pool(self.pool.clone(), None)
    }

    /// An executor for a single statement on a connection of the tenant's share: for SQL
    /// functions that set the tenant themselves.
    ///
    /// # Errors
    /// OVERLOADED when no connection of the tenant's share becomes free.
    pub async fn executor_in_share(
        &self,
        tenant: TenantId,
    ) -> Result<InstrumentedExecutor<'static>> {
        let permit = self.shares.acquire(tenant).await?;
        Ok(InstrumentedExecutor::pool(self.pool.clone(), Some(permit)))
    }

    /// The pool itself, without metrics and shares.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.pool.connections()
    }

    /// Begins a transaction in `tenant`, on a connection of the tenant's share.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable or no connection becomes free; OVERLOADED when
    /// no connection of the tenant's share becomes free.
    pub async fn begin(&self, tenant: TenantId) -> Result<Tx> {
        self.begin_in_share(tenant, tenant).await
    }

    /// Like [`Postgres::begin`], but takes the connection from the share of the tenant `share`, not
    /// from the share of `tenant`: for clients that did not name the tenant, or named a tenant that
    /// does not exist.
    ///
    /// # Errors
    /// The same as [`Postgres::begin`].
    pub async fn begin_in_share(&self, share: TenantId, tenant: TenantId) -> Result<Tx> {
        let permit = self.shares.acquire(share).await?;
        Tx::begin(&self.pool, permit, tenant).await
    }

    /// The name of the database that the pool connects to.
    #[must_use]
    pub fn database_name(&self) -> String {
        let options = self.pool().connect_options();
        options.get_database().unwrap_or_else(|| options.get_username()).to_owned()
    }

    /// Whether the pool is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.pool().is_closed()
    }

    /// Closes the pool, and waits until all connections in use are returned and closed. Also closes
    /// the connection of the checks.
    pub async fn close(&self) {
        self.pool.primary().close().await;
        self.pool().close().await;
    }
}

/// Sets up a new connection: sets the timeouts of its session. The timeouts are not sent as startup
/// parameters of the connection, because connection poolers refuse or ignore these parameters.
///
/// Refuses a read-only server, such as a standby, because its data may be outdated. The pool then
/// tries to open another connection until its timeout.
async fn set_up(connection: &mut PgConnection, validity: &Validity) -> sqlx::Result<()> {
    // `idle_in_transaction_session_timeout` ends the transaction of a process that hangs or is
    // unreachable, because the transaction would keep its locks. A transaction of this service
    // waits only for Postgres, so it is never idle for long.
    let settings = sqlx::query!(
        r#"
        select current_setting('transaction_read_only')::boolean as "read_only!",
               set_config('statement_timeout', '10s', false) as "statement!",
               set_config('lock_timeout', '5s', false) as "lock!",
               set_config('idle_in_transaction_session_timeout', '10s', false) as "idle!"
        "#
    );
    if settings.fetch_one(&mut *connection).await?.read_only {
        validity.record_other_server();
        return Err(read_only_server());
    }
    // Not every operating system that Postgres runs on supports this setting, so an error is only
    // logged.
    if let Err(error) = connection.execute(SET_CLIENT_CHECK_INTERVAL).await {
        tracing::debug!(%error, "Postgres can't check that clients are connected");
    }
    Ok(())
}
