//! `ListUsers`: pages of users in Postgres. What Postgres can't see, names and parts of
//! emails, takes a look into each row.

use super::{
    order::{Direction, Order},
    store::{Kept, state_text},
};
use crate::{
    api::{
        filter::{Field, Filter, Kind, Times},
        paging::{Page, Position, ROWS_PER_READ, Read},
    },
    db::TenantTx,
    email,
    error::{Error, Result},
    ids::TenantId,
    privacy::Cipher,
    proto::v1::{ListUsersRequest, User, UserState},
};

const FIELDS: &[Field] = &[
    Field { name: "id", kind: Kind::Id },
    Field {
        name: "state",
        kind: Kind::Choice("USER_STATE_", |name| UserState::from_str_name(name).map(i32::from)),
    },
    Field { name: "email", kind: Kind::Text },
    Field { name: "display_name", kind: Kind::Text },
    Field { name: "email_verified", kind: Kind::Flag },
    Field { name: "last_sign_in_time", kind: Kind::Time },
];

/// Which users to list, in which order.
pub struct EventFilter {
    state: Option<&'static str>,
    id: Option<uuid::Uuid>,
    verified: Option<bool>,
    signed_in: Times,
    /// A whole email, which the blind index answers.
    email: Option<String>,
    /// What takes a look into each row.
    texts: Filter,
    order: Order,
}

impl EventFilter {
    /// Reads a request's filter and order.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when they are not understood.
    pub fn read(request: &ListUsersRequest) -> Result<Self> {
        let mut filter = Filter::parse(&request.filter, FIELDS)?;
        Ok(Self {
            state: filter.choice("state").map(state_text),
            id: filter.id("id"),
            verified: filter.flag("email_verified"),
            signed_in: filter.times("last_sign_in_time"),
            email: filter.take_exact("email"),
            texts: filter,
            order: Order::parse(&request.order_by)?,
        })
    }
}

/// Fills a page with users.
///
/// # Errors
/// When Postgres is away.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    wanted: &EventFilter,
    page: &mut Page<User>,
) -> Result<()> {
    let cipher = tx.cipher(tenant)?;
    let is_by_time = matches!(wanted.order, Order::SignedIn(_));
    while let Some(read) = page.next_read(ROWS_PER_READ) {
        let rows = next(tx, tenant, &cipher, wanted, &read).await?;
        let position = |row: &Kept| Position {
            id: row.user_id,
            at: row.last_sign_in_at.filter(|_| is_by_time),
        };
        let show = |kept: Kept| {
            let unreadable = kept.unreadable();
            let row = match kept.open(&cipher) {
                Ok(row) => row,
                // Nobody knows whether a filter means it.
                Err(Error::Unreadable) => {
                    return Ok((!wanted.texts.has_text_condition()).then(|| unreadable.into()));
                }
                Err(error) => return Err(error),
            };
            let text =
                |field: &str| if field == "email" { &*row.email } else { &*row.display_name };
            let is_meant = wanted.texts.matches(text);
            Ok(is_meant.then(|| row.into()))
        };
        page.take(read.found(rows), position, show).await?;
    }
    Ok(())
}

/// The columns of a user, for those whom Postgres finds; then the place in the order. An
/// `order by` names the table: the column alone would be the one that is shown, where a
/// user who never signed in has null.
macro_rules! users {
    ($tx:ident, $tenant:ident, $wanted:ident, $index:ident, $read:ident, $order:literal,
     $($after:expr),*) => {
        sqlx::query_as!(
            Kept,
            r#"
            select tenant_id, user_id, profile, email_index, email_lookup, state,
                   email_verified, version, created_at, updated_at,
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
            $wanted.state,
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

/// The next rows in the order that is wanted. Each order is a walk through an index: by
/// the id, or by the time and then the id, where a user who never signed in has
/// `-infinity`.
async fn next(
    tx: &mut TenantTx,
    tenant: TenantId,
    cipher: &Cipher,
    wanted: &EventFilter,
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
