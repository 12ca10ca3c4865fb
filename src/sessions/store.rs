//! SQL for sessions. The data about the user's client is sealed.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use uuid::Uuid;

use super::EndedSessions;
use crate::{
    api::{
        filter::Filter,
        paging::{Page, Position, ROWS_PER_READ},
    },
    db::TenantTx,
    error::{Error, Result},
    ids::{SessionId, SubjectId, TenantId},
    privacy::{Cipher, SealContext, bound_row_bytes},
    proto::v1::Session,
};

/// The client that a session's user signed in with.
#[derive(Default, Serialize, Deserialize)]
pub struct SessionClient {
    /// The name that the user gave the device.
    pub device_name: String,
    /// The IP address of the sign-in.
    pub ip: String,
    /// The client's `user-agent`.
    pub user_agent: String,
}

impl SessionClient {
    /// Seals the client for the session's row.
    pub(super) fn seal(&self, cipher: &Cipher, session: Uuid, user: Uuid) -> Result<Vec<u8>> {
        let row = bound_row_bytes(&session, &[user.as_bytes()]);
        cipher.seal_json(SealContext { table: "sessions", row: &row }, self)
    }
}

/// A row of `sessions`.
pub struct SessionRow {
    pub session_id: SessionId,
    pub tenant_id: TenantId,
    pub user_id: SubjectId,
    /// The sealed client: see [`SessionRow::open_client`].
    pub client: Vec<u8>,
    /// Time of the sign-in.
    pub created_at: OffsetDateTime,
    /// Time of the last refresh.
    pub last_used_at: OffsetDateTime,
    /// Time when the session ends, even if it is refreshed.
    pub expires_at: OffsetDateTime,
    /// Time when the session ends unless it is refreshed: the later expiry of its two newest
    /// tokens, and no later than `expires_at`.
    pub ends_at: OffsetDateTime,
    /// Time of the revocation.
    pub revoked_at: Option<OffsetDateTime>,
    /// Whether `ends_at` has passed, by Postgres's clock.
    pub expired: bool,
}

impl SessionRow {
    /// Opens the sealed client.
    ///
    /// # Errors
    /// `DATA_UNREADABLE` when the sealed value was altered.
    pub fn open_client(&self, cipher: &Cipher) -> Result<SessionClient> {
        let row = bound_row_bytes(&self.session_id.0, &[self.user_id.0.as_bytes()]);
        cipher.open_json(SealContext { table: "sessions", row: &row }, &self.client)
    }
}

/// Reads a session of the tenant; with `required_user`, only a session of that user.
pub async fn get(
    tx: &mut TenantTx,
    tenant: TenantId,
    session: SessionId,
    required_user: Option<SubjectId>,
) -> Result<Option<SessionRow>> {
    let row = sqlx::query_as!(
        SessionRow,
        r#"
        select session_id as "session_id: SessionId", tenant_id as "tenant_id: TenantId",
               user_id as "user_id: SubjectId", client, created_at, last_used_at, expires_at,
               ends_at as "ends_at!", revoked_at, ends_at <= now() as "expired!"
        from sessions,
            least(expires_at, greatest(refresh_expires_at, access_expires_at)) as ends_at
        where tenant_id = $1 and session_id = $2 and ($3::uuid is null or user_id = $3)
        "#,
        tenant.0,
        session.0,
        required_user.map(|id| id.0),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row)
}

/// Locks a session's row, so that the session can't be revoked until the transaction ends. Returns
/// whether the session is live and its user and tenant are active.
pub async fn lock_live(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: SubjectId,
    session: SessionId,
) -> Result<bool> {
    let row = sqlx::query_scalar!(
        r#"
        select true as "live!"
        from sessions s
        join users u on u.tenant_id = s.tenant_id and u.user_id = s.user_id
        join tenants t on t.tenant_id = s.tenant_id
        where s.tenant_id = $1 and s.user_id = $2 and s.session_id = $3
          and s.revoked_at is null and s.expires_at > now()
          and u.state = 'active' and t.state = 'active'
        for share of s
        "#,
        tenant.0,
        user.0,
        session.0,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.is_some())
}

/// The user of a session; with `required_user`, only of a session of that user.
pub async fn find_user(
    tx: &mut TenantTx,
    tenant: TenantId,
    session: SessionId,
    required_user: Option<SubjectId>,
) -> Result<Option<SubjectId>> {
    let user = sqlx::query_scalar!(
        r#"
        select user_id as "user_id: SubjectId" from sessions
        where tenant_id = $1 and session_id = $2 and ($3::uuid is null or user_id = $3)
        "#,
        tenant.0,
        session.0,
        required_user.map(|id| id.0),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(user)
}

/// Whether a user's session is not revoked and was opened by a sign-in within the last `age`.
pub async fn was_opened_within(
    tx: &mut TenantTx,
    tenant: TenantId,
    session: SessionId,
    user: SubjectId,
    age: std::time::Duration,
) -> Result<bool> {
    let was_opened = sqlx::query_scalar!(
        r#"
        select exists (
            select from sessions
            where tenant_id = $1 and session_id = $2 and user_id = $3
              and revoked_at is null and created_at > now() - make_interval(secs => $4)
        ) as "fresh!"
        "#,
        tenant.0,
        session.0,
        user.0,
        age.as_secs_f64(),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(was_opened)
}

/// Fills a page with a user's live sessions, ordered by id. Device names are sealed, so the filter
/// is checked after a row is opened.
pub async fn list_live(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: SubjectId,
    filter: &Filter,
    page: &mut Page<Session>,
) -> Result<()> {
    let cipher = tx.cipher(tenant)?;
    while let Some(read) = page.next_read(ROWS_PER_READ) {
        let rows = sqlx::query_as!(
            SessionRow,
            r#"
            select session_id as "session_id: SessionId", tenant_id as "tenant_id: TenantId",
                   user_id as "user_id: SubjectId", client, created_at, last_used_at, expires_at,
                   ends_at as "ends_at!", revoked_at, ends_at <= now() as "expired!"
            from sessions,
                least(expires_at, greatest(refresh_expires_at, access_expires_at)) as ends_at
            where tenant_id = $1 and user_id = $2 and session_id > $3
              and revoked_at is null and ends_at > now()
            order by session_id
            limit $4
            "#,
            tenant.0,
            user.0,
            read.after_id(),
            read.limit,
        )
        .fetch_all(tx.conn())
        .await?;
        let convert = |row: SessionRow| match row.open_client(&cipher) {
            Ok(client) => {
                let is_match = filter.matches_text(|_| &client.device_name);
                Ok(is_match.then(|| Session::from((row, Some(client)))))
            }
            // A filter on texts can't match a row that can't be opened.
            Err(Error::Unreadable) => {
                Ok((!filter.has_text_condition()).then(|| Session::from((row, None))))
            }
            Err(error) => Err(error),
        };
        page.add_rows(read.batch(rows), |row| Position::by_id(row.session_id.0), convert).await?;
    }
    Ok(())
}

/// A session as it was before the call that asked to revoke it.
pub struct SessionBefore {
    /// The session's user.
    pub user: SubjectId,
    /// Whether the session was live until now. A session that has already ended is not changed.
    pub was_live: bool,
}

/// Revokes a session of the tenant; with `required_user`, only a session of that user. `None` when
/// there is no such session.
pub async fn revoke(
    tx: &mut TenantTx,
    tenant: TenantId,
    session: SessionId,
    required_user: Option<SubjectId>,
    reason: &str,
) -> Result<Option<(SessionBefore, EndedSessions)>> {
    let row = sqlx::query!(
        r#"
        with found as materialized (
            select tenant_id, session_id, user_id,
                   revoked_at is null and clock_timestamp()
                       < least(expires_at, greatest(refresh_expires_at, access_expires_at)) as live
            from sessions
            where tenant_id = $1 and session_id = $2 and ($3::uuid is null or user_id = $3)
            for update
        ), revoked as (
            update sessions s
            set revoked_at = clock_timestamp(), revoke_reason = $4
            from found f
            where s.tenant_id = f.tenant_id and s.session_id = f.session_id and f.live
        )
        select user_id as "user_id!: SubjectId", live as "live!" from found
        "#,
        tenant.0,
        session.0,
        required_user.map(|id| id.0),
        reason,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| {
        let session_before = SessionBefore { user: row.user_id, was_live: row.live };
        (session_before, EndedSessions::in_tenant(tenant))
    }))
}

/// A batch of sessions that [`revoke_batch`] revoked.
pub struct RevokedBatch {
    /// Number of sessions that were live.
    pub live: i64,
    /// The last session of the batch; `None` when no session was left.
    pub last: Option<SessionId>,
}

/// Revokes at most `limit` sessions of a tenant that are not revoked, in the order of their ids.
/// The batch starts after the session `after`.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn revoke_batch(
    tx: &mut TenantTx,
    tenant: TenantId,
    after: Option<SessionId>,
    limit: i64,
    reason: &str,
) -> Result<(RevokedBatch, EndedSessions)> {
    let batch = sqlx::query_as!(
        RevokedBatch,
        r#"
        with found as materialized (
            select tenant_id, session_id, clock_timestamp()
                       < least(expires_at, greatest(refresh_expires_at, access_expires_at)) as live
            from sessions
            where tenant_id = $1 and revoked_at is null and ($2::uuid is null or session_id > $2)
            order by session_id limit $3
            for update
        ), revoked as (
            update sessions s
            set revoked_at = clock_timestamp(), revoke_reason = $4
            from found f
            where s.tenant_id = f.tenant_id and s.session_id = f.session_id
        )
        select count(*) filter (where live) as "live!",
               (array_agg(session_id order by session_id desc))[1] as "last: SessionId"
        from found
        "#,
        tenant.0,
        after.map(|id| id.0),
        limit,
        reason,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((batch, EndedSessions::in_tenant(tenant)))
}

/// Revokes a user's live sessions except `except`. Returns the number of revoked sessions. The
/// statement first locks all sessions that are not revoked, because a concurrent refresh can extend
/// a session that seems to have expired.
pub async fn revoke_all(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: SubjectId,
    except: Option<SessionId>,
    reason: &str,
) -> Result<(u64, EndedSessions)> {
    let result = sqlx::query!(
        r#"
        with found as materialized (
            select tenant_id, session_id,
                   least(expires_at, greatest(refresh_expires_at, access_expires_at)) as ends_at
            from sessions
            where tenant_id = $1 and user_id = $2 and revoked_at is null
              and session_id is distinct from $3
            for update
        )
        update sessions s
        set revoked_at = clock_timestamp(), revoke_reason = $4
        from found f
        where s.tenant_id = f.tenant_id and s.session_id = f.session_id
          and f.ends_at > clock_timestamp()
        "#,
        tenant.0,
        user.0,
        except.map(|id| id.0),
        reason,
    )
    .execute(tx.conn())
    .await?;
    Ok((result.rows_affected(), EndedSessions::in_tenant(tenant)))
}

/// The number of a user's live sessions.
pub async fn count_live(tx: &mut TenantTx, tenant: TenantId, user: SubjectId) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from sessions
        where tenant_id = $1 and user_id = $2 and revoked_at is null
          and now() < least(expires_at, greatest(refresh_expires_at, access_expires_at))
        "#,
        tenant.0,
        user.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(count)
}
