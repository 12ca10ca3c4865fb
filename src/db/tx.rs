//! A transaction that works in one tenant.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Executor};

use super::{
    Db,
    held::{Held, Work},
    observed::{Observed, observe},
};
use crate::{
    deadline,
    error::{Error, Result},
    ids::TenantId,
    privacy::{Cipher, NewDataKey},
    proto::v1::ErrorReason,
    shares::Permit,
};

/// The longest that a statement of a transaction may take.
const LONGEST_STATEMENT: Duration = Duration::from_secs(10);

/// How long after its call's deadline Postgres ends a statement: by then the caller has
/// the gate's own answer.
const AFTER_DEADLINE: Duration = Duration::from_millis(100);

/// A transaction whose tenant is set: row-level security shows it that
/// tenant's rows alone. Dropped without [`TenantTx::commit`], it rolls back; a statement
/// that is under way then is ended.
pub struct TenantTx {
    held: Held,
    db: Db,
    tenant: TenantId,
    sealing: Sealing,
    /// What seals the data of a tenant that this made. Memory may forget it meanwhile.
    made: Option<(TenantId, Arc<Cipher>)>,
}

/// What seals the personal data of a transaction's tenant.
pub(super) enum Sealing {
    /// It was had before the transaction began.
    Ready(Arc<Cipher>),
    /// There is no such tenant.
    Absent,
    /// It could not be had.
    Away,
}

impl TenantTx {
    /// Begins one. Its statements end with the current call's deadline.
    pub(super) async fn begin(db: Db, permit: Permit, tenant: TenantId) -> Result<Self> {
        let limit = deadline::remaining().map_or(LONGEST_STATEMENT, |left| left + AFTER_DEADLINE);
        let limit = limit.min(LONGEST_STATEMENT).as_millis();
        // A UUID's own text and a number: nothing to escape, and one round trip for all.
        let statement = format!(
            "begin; select set_config('tenantry.tenant', '{tenant}', true), \
             set_config('statement_timeout', '{limit}ms', true)"
        );
        let begun = async {
            let mut held = Held::acquire(&db, Some(permit)).await?;
            // From here on Postgres may be in a transaction, whatever is heard of it.
            held.work = Work::Transaction;
            held.connection()?.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
            Ok(held)
        };
        let held = observe(db.operations(), "BEGIN", begun).await?;
        Ok(Self { held, db, tenant, sealing: Sealing::Absent, made: None })
    }

    /// The same, with what seals its tenant's data.
    pub(super) fn with(self, sealing: Sealing) -> Self {
        Self { sealing, ..self }
    }

    /// The connection, for a statement.
    pub fn conn(&mut self) -> Observed<'_> {
        Observed::transaction(&mut self.held, self.db.operations())
    }

    /// Works in another tenant from here on: for what belongs to two, like a
    /// tenant that the platform's staff creates.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn enter(&mut self, tenant: TenantId) -> Result<()> {
        sqlx::query!("select set_config('tenantry.tenant', $1, true)", tenant.to_string())
            .fetch_one(self.conn())
            .await?;
        Ok(())
    }

    /// Seals the personal data of the tenant that this began in, or gave a data key.
    ///
    /// # Errors
    /// `NOT_FOUND` when it was deleted; UNAVAILABLE when the master key is away.
    pub fn cipher(&self, tenant: TenantId) -> Result<Arc<Cipher>> {
        self.find_cipher(tenant)?.ok_or_else(Error::not_found)
    }

    /// The same, where the tenant may have been deleted.
    ///
    /// # Errors
    /// UNAVAILABLE when the master key is away.
    pub fn find_cipher(&self, tenant: TenantId) -> Result<Option<Arc<Cipher>>> {
        if let Some((made, cipher)) = &self.made
            && *made == tenant
        {
            return Ok(Some(cipher.clone()));
        }
        match &self.sealing {
            Sealing::Ready(cipher) if tenant == self.tenant => Ok(Some(cipher.clone())),
            Sealing::Away if tenant == self.tenant => {
                let text = "a key that the answer needs can't be had; try again";
                Err(Error::refused(ErrorReason::StoreUnavailable, text))
            }
            _ => self.db.data_keys()?.known(tenant),
        }
    }

    /// Seals and names what belongs to no tenant.
    ///
    /// # Errors
    /// Before [`Db::prepare`].
    pub fn common_cipher(&self) -> Result<Arc<Cipher>> {
        self.db.common_cipher()
    }

    /// Gives a new tenant, which this works in, its data key.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is away.
    pub async fn insert_data_key(&mut self, key: &NewDataKey) -> Result<()> {
        let data_keys = self.db.data_keys()?.clone();
        self.made = Some(data_keys.insert(self, key).await?);
        Ok(())
    }

    /// The consistency token of what this transaction changes: whoever decides
    /// with it once it is committed sees that.
    ///
    /// # Errors
    /// When Postgres is away.
    pub async fn consistency_token(&mut self) -> Result<String> {
        let id = sqlx::query_scalar!(r#"select pg_current_xact_id()::text::bigint as "id!""#)
            .fetch_one(self.conn())
            .await?;
        let feed = self.db.feed().ok_or_else(|| Error::defect("no feed is followed"))?;
        feed.token_of(id.cast_unsigned())
    }

    /// Makes it all durable, and seen by whatever this process decides from here
    /// on.
    ///
    /// # Errors
    /// When Postgres is away; then it may or may not be committed.
    pub async fn commit(self) -> Result<()> {
        let db = self.db.clone();
        self.commit_record().await?;
        db.committed().await;
        Ok(())
    }

    /// Makes a record durable that no decision depends on.
    ///
    /// # Errors
    /// When Postgres is away; then it may or may not be committed.
    pub async fn commit_record(mut self) -> Result<()> {
        let commit = self.held.connection()?.execute("COMMIT");
        observe(self.db.operations(), "COMMIT", commit).await?;
        self.held.work = Work::Nothing;
        Ok(())
    }
}
