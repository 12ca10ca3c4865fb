//! A connection of the pool that a piece of work holds, and what becomes of it when the
//! work is given up.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection, Postgres, pool::PoolConnection};
use tokio::time;

use super::{Db, connecting};
use crate::shares::Permit;

/// How long a statement may go on that nobody waits for any more. After that its
/// connection is closed, which ends the statement; see [`super::pool`].
const GRACE: Duration = Duration::from_millis(500);

/// What is under way on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    /// Nothing: it is free for others.
    Nothing,
    /// A statement.
    Statement,
    /// A transaction, or its begin or end.
    Transaction,
}

/// A connection of the pool. Dropped, it returns there, with nothing under way.
#[derive(Debug)]
pub(super) struct Held {
    /// Present until dropped.
    connection: Option<PoolConnection<Postgres>>,
    pub(super) work: Work,
    permit: Option<Permit>,
    db: Db,
}

impl Held {
    /// A connection for a piece of work, of the share that `permit` belongs to.
    pub(super) async fn acquire(db: &Db, permit: Option<Permit>) -> sqlx::Result<Self> {
        let connection = Some(connecting::acquire(db.connections()).await?);
        Ok(Self { connection, work: Work::Nothing, permit, db: db.clone() })
    }

    pub(super) fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let (permit, work, db) = (self.permit.take(), self.work, self.db.clone());
        if work != Work::Nothing {
            tokio::spawn(async move {
                end(connection, work, &db).await;
                drop(permit);
            });
        }
    }
}

/// Ends what is under way on a connection that nobody waits for, before the pool gives it
/// to somebody else (launchbadge/sqlx#4393).
async fn end(mut connection: PoolConnection<Postgres>, work: Work, db: &Db) {
    let ended = async {
        match work {
            Work::Transaction => (&mut *connection).execute("rollback").await.map(drop),
            Work::Statement | Work::Nothing => connection.ping().await,
        }
    };
    match time::timeout(GRACE, ended).await {
        Ok(Ok(())) => {}
        ended => {
            if ended.is_err() {
                db.abandoned.inc();
            }
            // The connection may be broken, or the network hang.
            time::timeout(GRACE, connection.close()).await.ok();
        }
    }
}
