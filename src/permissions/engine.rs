//! Knows what each subject holds: from memory where that may answer, else from
//! Postgres, in one round trip.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::time;
use uuid::Uuid;

use super::{
    Scope,
    compiled::{PermissionSet, Shared},
    memory::Memory,
    standing::{Grant, Role, Standing, Tenant, UserStanding},
};
use crate::{
    db::Db,
    error::{Error, Result},
    feed::Feed,
    ids::{SessionId, TenantId, UserId},
    proto::v1::Consistency,
};

/// How long Postgres may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

/// Knows what each subject holds. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    db: Db,
    memory: Arc<Memory>,
    pub(super) feed: Feed,
}

/// A standing, and whether a session is live with it.
pub struct Read {
    /// What the subject holds.
    pub standing: Arc<Standing>,
    /// Whether the session that was asked about is the user's and live; false
    /// when none was asked about.
    pub session_live: bool,
}

impl Engine {
    /// An engine on this database, whose memory `feed` keeps true.
    #[must_use]
    pub fn new(db: Db, memory: Arc<Memory>, feed: Feed) -> Self {
        Self { db, memory, feed }
    }

    /// A subject's standing if memory has it and may answer.
    #[must_use]
    pub fn remembered(&self, tenant: TenantId, user: UserId) -> Option<Arc<Standing>> {
        if self.feed.is_fresh() { self.memory.get(tenant, user) } else { None }
    }

    /// What a subject holds, as fresh as asked for; `None` when there is no such
    /// tenant. Many that ask at once for a subject that memory lacks make one
    /// query.
    ///
    /// # Errors
    /// UNAVAILABLE when memory may not answer and Postgres is away: it never
    /// guesses.
    pub async fn standing(
        &self,
        tenant: TenantId,
        user: UserId,
        consistency: Consistency,
    ) -> Result<Option<Arc<Standing>>> {
        // Asked anew on each turn: those who wait for one reader must not wait for
        // one another once Postgres has gone away.
        while consistency != Consistency::FullyConsistent && self.feed.is_fresh() {
            if let Some(standing) = self.memory.get(tenant, user) {
                return Ok(Some(standing));
            }
            let Err(place) = self.memory.get_or_place(tenant, user).await else {
                // Somebody else read it: the next turn finds it, if it is not
                // stale already.
                continue;
            };
            if !self.feed.is_fresh() {
                break;
            }
            let tide = self.memory.tide(tenant);
            let read = self.query(tenant, user, None).await?;
            return Ok(read.map(|(standing, _)| self.memory.keep(tenant, standing, tide, place)));
        }
        let read = self.query(tenant, user, None).await?;
        Ok(read.map(|(standing, _)| Arc::new(standing)))
    }

    /// What a subject holds now and whether a session is live, read from
    /// Postgres in one round trip, and remembered.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is away.
    pub async fn read(
        &self,
        tenant: TenantId,
        user: UserId,
        session: Option<SessionId>,
    ) -> Result<Option<Read>> {
        let place = match self.memory.get(tenant, user) {
            None if self.feed.is_fresh() => self.memory.place(tenant, user),
            _ => None,
        };
        let tide = self.memory.tide(tenant);
        let Some((standing, session_live)) = self.query(tenant, user, session).await? else {
            return Ok(None);
        };
        let standing = match place {
            Some(place) => self.memory.keep(tenant, standing, tide, place),
            None => Arc::new(standing),
        };
        Ok(Some(Read { standing, session_live }))
    }

    async fn query(
        &self,
        tenant: TenantId,
        user: UserId,
        session: Option<SessionId>,
    ) -> Result<Option<(Standing, bool)>> {
        let row = sqlx::query!(
            r#"
            select snapshot_xmax::text::bigint as "xmax!", tenant_slug as "tenant_slug!", tenant_state as "tenant_state!",
                   is_platform as "is_platform!", user_state, session_live,
                   grants as "grants!: sqlx::types::Json<Vec<GrantRow>>"
            from subject_standing($1, $2, $3)
            "#,
            tenant.0,
            user.0,
            session.map(|id| id.0),
        )
        .fetch_optional(self.db.pool());
        // One that hangs is away as well.
        let row = time::timeout(PATIENCE, row).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        let Some(row) = row else { return Ok(None) };
        self.feed.saw(row.xmax.cast_unsigned());
        let user = match row.user_state.as_deref() {
            None => UserStanding::Unknown,
            Some("active") => UserStanding::Active,
            Some("disabled") => UserStanding::Disabled,
            Some(_) => return Err(Error::defect("a user in no known state")),
        };
        let tenant = Tenant {
            slug: row.tenant_slug,
            active: row.tenant_state == "active",
            is_platform: row.is_platform,
        };
        let standing = Standing {
            tenant: Arc::new(Shared::new(tenant)),
            user,
            grants: row.grants.0.into_iter().map(Grant::from).collect(),
        };
        Ok(Some((standing, row.session_live == Some(true))))
    }
}

/// A grant as `subject_standing` tells it.
#[derive(Debug, Deserialize)]
struct GrantRow {
    role_id: Uuid,
    role_name: String,
    level: i32,
    permissions: Vec<String>,
    scope: Option<Scope>,
    expires_at: Option<i64>,
}

impl From<GrantRow> for Grant {
    fn from(row: GrantRow) -> Self {
        let role = Role {
            id: row.role_id,
            name: row.role_name,
            level: row.level,
            permissions: PermissionSet::compile(row.permissions),
        };
        Self {
            role: Arc::new(Shared::new(role)),
            scope: row.scope.map(Box::new),
            expires_at: row.expires_at,
        }
    }
}
