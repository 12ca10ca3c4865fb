//! Gathers what subjects hold.

use serde_json::Value;

use super::{Grant, Standing};
use crate::{
    db::Db,
    error::{Error, Result},
    ids::{SessionId, TenantId, UserId},
};

/// Knows what each subject holds. It reads Postgres on each question, in one
/// round trip, so each answer sees every change that was acknowledged before.
#[derive(Clone)]
pub struct Engine {
    db: Db,
}

impl Engine {
    /// An engine on this database.
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// What a subject holds now, and whether the session is its own and live;
    /// `None` when there is no such tenant.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is away: it never guesses.
    pub async fn standing(
        &self,
        tenant: TenantId,
        user: UserId,
        session: Option<SessionId>,
    ) -> Result<Option<Standing>> {
        let row = sqlx::query!(
            r#"
            select tenant_slug as "tenant_slug!", tenant_state as "tenant_state!",
                   is_platform as "is_platform!", user_state, session_live,
                   grants as "grants!"
            from subject_standing($1, $2, $3)
            "#,
            tenant.0,
            user.0,
            session.map(|id| id.0),
        )
        .fetch_optional(self.db.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Standing {
            tenant_slug: row.tenant_slug,
            tenant_active: row.tenant_state == "active",
            is_platform: row.is_platform,
            user_known: row.user_state.is_some(),
            user_active: row.user_state.as_deref() == Some("active"),
            session_live: row.session_live == Some(true),
            grants: grants(row.grants)?,
        }))
    }
}

fn grants(json: Value) -> Result<Vec<Grant>> {
    serde_json::from_value(json).map_err(|_| Error::defect("unreadable grants"))
}
