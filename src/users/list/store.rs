//! SQL for lists of users.

use super::{
    super::{
        UserState,
        order::{Direction, Order},
        store::SealedUserRow,
    },
    filter::UserQuery,
};
use crate::{
    api::paging::{PageRead, Position},
    db::TenantTx,
    email,
    error::Result,
    ids::{SubjectId, TenantId},
    privacy::Cipher,
};

/// The query of one page read. It has the conditions on unencrypted columns; `list/mod.rs` checks
/// the other conditions after decryption. `$order` has the keyset condition, `order by` and
/// `limit`. In `order by`, the column is `users.last_sign_in_at`, because the name without the
/// table would mean the selected value, which is null for a user who never signed in.
macro_rules! users {
    ($tx:ident, $tenant:ident, $query:ident, $email_index:ident, $read:ident, $order:literal,
     $($after:expr),*) => {
        sqlx::query_as!(
            SealedUserRow,
            r#"
            select tenant_id as "tenant_id: TenantId", user_id as "user_id: SubjectId",
                   profile, email_index, email_lookup,
                   state as "state: UserState", email_verified, version, created_at, updated_at,
                   nullif(last_sign_in_at, '-infinity') as last_sign_in_at
            from users
            where tenant_id = $1
              and ($2::text is null or state = $2)
              and ($3::bytea is null or email_index = $3)
              and ($4::uuid is null or user_id = $4)
              and ($5::boolean is null or email_verified = $5)
              and ($6::timestamptz is null or last_sign_in_at >= $6)
              and ($7::timestamptz is null
                   or last_sign_in_at < $7 and last_sign_in_at > '-infinity')
            "# + $order,
            $tenant.0,
            $query.state.map(UserState::as_str),
            $email_index,
            $query.id,
            $query.email_verified,
            $query.last_sign_in.from,
            $query.last_sign_in.before,
            $read.limit,
            $($after),*
        )
        .fetch_all($tx.conn())
        .await?
    };
}

/// Reads the next rows in the order of the query. An index supports each order: by id, or by time
/// and then id. A user who never signed in has the time `-infinity`.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub(super) async fn next_rows(
    tx: &mut TenantTx,
    tenant: TenantId,
    cipher: &Cipher,
    query: &UserQuery,
    read: &PageRead,
) -> Result<Vec<SealedUserRow>> {
    let normalized_email = query.email.as_deref().map(email::normalized);
    let email_index = normalized_email.map(|text| email::blind_index(cipher, &text).to_vec());
    let Position { id: after_id, at: after_time } = read.after.unwrap_or(query.order.start());
    Ok(match query.order {
        Order::Created(Direction::Ascending) => users!(
            tx,
            tenant,
            query,
            email_index,
            read,
            "and user_id > $9 order by user_id limit $8",
            after_id
        ),
        Order::Created(Direction::Descending) => users!(
            tx,
            tenant,
            query,
            email_index,
            read,
            "and user_id < $9 order by user_id desc limit $8",
            after_id
        ),
        Order::SignedIn(Direction::Ascending) => users!(
            tx,
            tenant,
            query,
            email_index,
            read,
            "and (last_sign_in_at, user_id) > (coalesce($10, '-infinity'::timestamptz), $9)
             order by users.last_sign_in_at, user_id limit $8",
            after_id,
            after_time
        ),
        Order::SignedIn(Direction::Descending) => users!(
            tx,
            tenant,
            query,
            email_index,
            read,
            "and (last_sign_in_at, user_id) < (coalesce($10, '-infinity'::timestamptz), $9)
             order by users.last_sign_in_at desc, user_id desc limit $8",
            after_id,
            after_time
        ),
    })
}
