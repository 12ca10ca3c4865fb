//! Connections to Postgres, and the check that they are not too powerful.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, ensure};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{TenantTx, observed::Observed, share::ConnectionShares, tx::Sealing};
use crate::{
    error::{Error, Result},
    feed::Feed,
    ids::TenantId,
    privacy::{Cipher, DataKeys, MasterKeys, NewDataKey},
    proto::v1::ErrorReason,
    telemetry::Operations,
};

/// The role that the schema's migrations grant the service's rights to.
const APP_ROLE: &str = "tenantry_app";

/// How long a request waits for a free connection before it is UNAVAILABLE.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often Postgres looks whether the client of a statement is still connected: with
/// [`super::held`] it is how soon a statement ends that nobody waits for. Postgres 13 and
/// before can't; there its time-outs end it.
const CHECK_CLIENT: &str = "select set_config('client_connection_check_interval', '250ms', false)
     where current_setting('server_version_num')::int >= 140000";

/// Postgres, as the service uses it. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: PgPool,
    shares: Arc<ConnectionShares>,
    /// Statements that were ended, for nobody waited for them.
    pub(super) abandoned: Counter,
    /// Set once this process follows the feed.
    feed: Arc<OnceLock<Feed>>,
    /// Absent where no personal data is read or written.
    data_keys: Option<Arc<DataKeys>>,
    operations: Operations,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

impl Db {
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
        Ok(Self {
            pool,
            shares: Arc::new(ConnectionShares::of(max_connections)),
            abandoned: Counter::default(),
            feed: Arc::default(),
            data_keys: None,
            operations: Operations::default(),
        })
    }

    /// Shows what is counted of its connections.
    pub fn register(&self, registry: &mut Registry) {
        self.shares.register(registry);
        let help = "Statements that were ended by closing their connection, for their call \
                    was over";
        registry.register("tenantry_db_statements_abandoned", help, self.abandoned.clone());
    }

    /// The same, with what seals personal data; see [`Db::prepare`].
    #[must_use]
    pub fn with_data_keys(self, data_keys: Arc<DataKeys>) -> Self {
        Self { data_keys: Some(data_keys), ..self }
    }

    /// The same, with its statements counted together with those of others.
    #[must_use]
    pub fn with_operations(self, operations: Operations) -> Self {
        Self { operations, ..self }
    }

    pub(super) fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Makes the data keys ready for use.
    ///
    /// # Errors
    /// When Postgres or a key service is away, or the master key is not the one that
    /// the database was made with.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        self.data_keys()?.prepare(self).await
    }

    pub(super) fn data_keys(&self) -> Result<&Arc<DataKeys>> {
        self.data_keys.as_ref().ok_or_else(|| Error::defect("no data keys were given"))
    }

    /// The master keys, where personal data is read and written.
    ///
    /// # Errors
    /// When it is not.
    pub fn master_keys(&self) -> Result<&Arc<MasterKeys>> {
        Ok(self.data_keys()?.masters())
    }

    /// Seals and names what belongs to no tenant.
    ///
    /// # Errors
    /// Before [`Db::prepare`].
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        self.data_keys()?.common()
    }

    /// Seals a tenant's personal data; `None` when there is no such tenant any more.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres or the master key is away.
    pub async fn cipher(&self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        self.data_keys()?.find(self, tenant).await
    }

    /// A data key for a tenant that is about to be made. No transaction is to be open: a
    /// key service may be asked.
    ///
    /// # Errors
    /// UNAVAILABLE when the master key is away.
    pub async fn make_data_key(&self, tenant: TenantId) -> Result<NewDataKey> {
        self.data_keys()?.make_for(tenant).await
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
        .fetch_one(&self.pool)
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
        sqlx::query_scalar!(r#"select true as "up!""#).fetch_one(&self.pool).await.is_ok()
    }

    /// A connection for a statement that is complete in itself and concerns no tenant
    /// or all of them.
    #[must_use]
    pub fn pool(&self) -> Observed<'static> {
        Observed::pool(self.clone(), None)
    }

    /// A connection of a tenant's share, for a statement that is complete in itself: the
    /// SQL functions that set their tenant.
    ///
    /// # Errors
    /// OVERLOADED when none of the tenant's share comes free.
    pub async fn single(&self, tenant: TenantId) -> Result<Observed<'static>> {
        let permit = self.shares.acquire(tenant).await?;
        Ok(Observed::pool(self.clone(), Some(permit)))
    }

    /// The connections themselves.
    #[must_use]
    pub fn connections(&self) -> &PgPool {
        &self.pool
    }

    /// Begins a transaction that works in `tenant`, on a connection of the tenant's
    /// share. The tenant's data key is had before: a key service that hangs leaves no
    /// transaction open. Where it can't be had, only what needs it fails.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is away or no connection comes free, OVERLOADED when
    /// none of the tenant's share does.
    pub async fn begin(&self, tenant: TenantId) -> Result<TenantTx> {
        self.begin_within(tenant, tenant).await
    }

    /// The same, on a connection of another share than the tenant's own: for callers who
    /// did not name the tenant, or one that does not exist.
    ///
    /// # Errors
    /// Those of [`Db::begin`].
    pub async fn begin_within(&self, share: TenantId, tenant: TenantId) -> Result<TenantTx> {
        if self.data_keys.is_none() {
            return self.begin_unsealed_within(share, tenant).await;
        }
        let sealing = match self.cipher(tenant).await {
            Ok(Some(cipher)) => Sealing::Ready(cipher),
            Ok(None) => Sealing::Absent,
            Err(Error::Refused(ErrorReason::StoreUnavailable, _)) => Sealing::Away,
            Err(error) => return Err(error),
        };
        Ok(self.begin_unsealed_within(share, tenant).await?.with(sealing))
    }

    /// The same, for what neither seals nor opens personal data.
    ///
    /// # Errors
    /// Those of [`Db::begin`].
    pub async fn begin_unsealed(&self, tenant: TenantId) -> Result<TenantTx> {
        self.begin_unsealed_within(tenant, tenant).await
    }

    async fn begin_unsealed_within(&self, share: TenantId, tenant: TenantId) -> Result<TenantTx> {
        let permit = self.shares.acquire(share).await?;
        TenantTx::begin(self.clone(), permit, tenant).await
    }

    /// From here on, each commit returns once this process's memory has it.
    pub fn follow(&self, feed: Feed) {
        self.feed.set(feed).ok();
    }

    /// The feed that this process follows.
    pub(super) fn feed(&self) -> Option<&Feed> {
        self.feed.get()
    }

    /// After a commit that can alter a decision.
    pub async fn committed(&self) {
        if let Some(feed) = self.feed.get() {
            feed.catch_up().await;
        }
    }

    /// Whether the connections were closed for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    /// Closes the connections once they are idle.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// One connection for the role that owns the schema.
///
/// # Errors
/// When the URL can't be read or Postgres does not answer.
pub async fn connect_owner(url: &SecretString) -> anyhow::Result<PgConnection> {
    parse(url)?.connect().await.context("can't connect to Postgres as the schema's owner")
}

/// Applies all migrations, and gives the service's role the password that
/// `app_url` connects with, when it connects as that role with one.
///
/// # Errors
/// When Postgres does not answer or a migration fails; a failed one leaves
/// nothing behind.
pub async fn migrate(
    owner: &mut PgConnection,
    app_url: Option<&SecretString>,
) -> anyhow::Result<()> {
    sqlx::migrate!().run(&mut *owner).await.context("a migration failed")?;
    let Some(password) = app_url.and_then(app_password) else { return Ok(()) };
    let mut tx = owner.begin().await?;
    let statement = sqlx::query_scalar!(
        r#"select format('alter role tenantry_app password %L', $1::text) as "sql!""#,
        password.expose_secret()
    )
    .fetch_one(&mut *tx)
    .await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Whether a URL can be read; if not, what it should be.
pub(crate) fn check_url(url: &SecretString) -> Result<(), &'static str> {
    // The parser's own error may repeat a password.
    let read = url.expose_secret().parse::<PgConnectOptions>();
    read.map(drop).map_err(|_| "must be a URL like postgres://user@host/database")
}

fn parse(url: &SecretString) -> anyhow::Result<PgConnectOptions> {
    check_url(url)
        .map_err(|wanted| anyhow::anyhow!("a Postgres URL can't be read: it {wanted}"))?;
    let options: PgConnectOptions = url.expose_secret().parse()?;
    Ok(options.application_name("tenantry").disable_statement_logging())
}

fn app_password(url: &SecretString) -> Option<SecretString> {
    let url = url::Url::parse(url.expose_secret()).ok()?;
    let password = url.password().filter(|_| url.username() == APP_ROLE)?;
    let decoded = percent_encoding::percent_decode_str(password).decode_utf8().ok()?;
    Some(SecretString::from(decoded.into_owned()))
}
