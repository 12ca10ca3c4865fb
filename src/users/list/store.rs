//! SQL for lists of users.

use super::{
    super::{
        UserState,
        order::{Direction, Order},
        store::SealedUserRow,
    },
    filter::UserFilter,
};
use crate::{
    api::paging::{Position, Read},
    db::TenantTx,
    email,
    error::Result,
    ids::{TenantId, UserId},
    privacy::Cipher,
};

/// One query with the conditions that Postgres checks, and the position in the order. `order by`
/// names the table `users`, because the bare column name means the selected column, which is null
/// for a user who never signed in.
macro_rules! users {
    ($tx:ident, $tenant:ident, $filter:ident, $index:ident, $batch:ident, $order:literal,
     $($after:expr),*) => {
        sqlx::query_as!(
            SealedUserRow,
            r#"
            select tenant_id as "tenant_id: TenantId", user_id as "user_id: UserId",
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
            $filter.state.map(UserState::as_str),
            $index,
            $filter.id,
            $filter.email_verified,
            $filter.last_sign_in.from,
            $filter.last_sign_in.before,
            $batch.limit,
            $($after),*
        )
        .fetch_all($tx.conn())
        .await?
    };
}

/// Reads the next rows in the order of the filter. Each order follows an index: by id, or by time
/// and then id. A user who never signed in has the time `-infinity`.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub(super) async fn next_rows(
    tx: &mut TenantTx,
    tenant: TenantId,
    cipher: &Cipher,
    filter: &UserFilter,
    batch: &Read,
) -> Result<Vec<SealedUserRow>> {
    let key = filter.email.as_deref().map(email::key);
    let index = key.map(|key| email::index(cipher, &key).to_vec());
    let Position { id: after_id, at: after_time } = batch.after.unwrap_or(filter.order.start());
    Ok(match filter.order {
        Order::Created(Direction::Ascending) => users!(
            tx,
            tenant,
            filter,
            index,
            batch,
            "and user_id > $9 order by user_id limit $8",
            after_id
        ),
        Order::Created(Direction::Descending) => users!(
            tx,
            tenant,
            filter,
            index,
            batch,
            "and user_id < $9 order by user_id desc limit $8",
            after_id
        ),
        Order::SignedIn(Direction::Ascending) => users!(
            tx,
            tenant,
            filter,
            index,
            batch,
            "and (last_sign_in_at, user_id) > (coalesce($10, '-infinity'::timestamptz), $9)
             order by users.last_sign_in_at, user_id limit $8",
            after_id,
            after_time
        ),
        Order::SignedIn(Direction::Descending) => users!(
            tx,
            tenant,
            filter,
            index,
            batch,
            "and (last_sign_in_at, user_id) < (coalesce($10, '-infinity'::timestamptz), $9)
             order by users.last_sign_in_at desc, user_id desc limit $8",
            after_id,
            after_time
        ),
    })
}
