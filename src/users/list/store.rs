//! SQL for lists of users.

use super::{
    super::{
        UserState,
        order::{Direction, Order},
        store::Kept,
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
/// names the table `users`: the bare name is the selected column, which is null for a user who
/// never signed in.
macro_rules! users {
    ($tx:ident, $tenant:ident, $wanted:ident, $index:ident, $read:ident, $order:literal,
     $($after:expr),*) => {
        sqlx::query_as!(
            Kept,
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
            $wanted.state.map(UserState::as_str),
            $index,
            $wanted.id,
            $wanted.verified,
            $wanted.signed_in.from,
            $wanted.signed_in.before,
            $read.limit,
            $($after),*
        )
        .fetch_all($tx.conn())
        .await?
    };
}

/// Reads the next rows in the wanted order. Each order follows an index: by id, or by time and then
/// id. A user who never signed in has the time `-infinity`.
///
/// # Errors
/// When Postgres is unavailable.
pub(super) async fn next(
    tx: &mut TenantTx,
    tenant: TenantId,
    cipher: &Cipher,
    wanted: &UserFilter,
    read: &Read,
) -> Result<Vec<Kept>> {
    let key = wanted.email.as_deref().map(email::key);
    let index = key.map(|key| email::index(cipher, &key).to_vec());
    let Position { id: after, at } = read.after.unwrap_or(wanted.order.start());
    Ok(match wanted.order {
        Order::Created(Direction::Ascending) => users!(
            tx,
            tenant,
            wanted,
            index,
            read,
            "and user_id > $9 order by user_id limit $8",
            after
        ),
        Order::Created(Direction::Descending) => users!(
            tx,
            tenant,
            wanted,
            index,
            read,
            "and user_id < $9 order by user_id desc limit $8",
            after
        ),
        Order::SignedIn(Direction::Ascending) => users!(
            tx,
            tenant,
            wanted,
            index,
            read,
            "and (last_sign_in_at, user_id) > (coalesce($10, '-infinity'::timestamptz), $9)
             order by users.last_sign_in_at, user_id limit $8",
            after,
            at
        ),
        Order::SignedIn(Direction::Descending) => users!(
            tx,
            tenant,
            wanted,
            index,
            read,
            "and (last_sign_in_at, user_id) < (coalesce($10, '-infinity'::timestamptz), $9)
             order by users.last_sign_in_at desc, user_id desc limit $8",
            after,
            at
        ),
    })
}
