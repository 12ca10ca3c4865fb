//! The epochs of the database: which transactions of the past Postgres still has.
//!
//! A new epoch begins when `tenantry restored` runs after a restore, when a standby is promoted, and
//! when the database is on another cluster. Postgres may then assign the ids of lost transactions
//! again. So a consistency token has the epoch in which it was made.
//!
//! - Rule: `note_epoch` (`migrations/0038_epochs.sql`) decides when another server begins an epoch.
//! - Rule: `server_identity` (`migrations/0038_epochs.sql`) tells one server from another.
//! - Rule: `read_epochs` (`migrations/0038_epochs.sql`) decides up to which transaction id the
//!   tokens of an earlier epoch stay valid.

use super::Revision;
use crate::{
    error::Result,
    pg::{InstrumentedExecutor, Postgres},
};

/// The epochs of the database, the current one first. Empty before the first read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Epochs(Vec<Epoch>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Epoch {
    epoch: u64,
    /// Tokens of the epoch are valid up to this transaction id; `None` for the current epoch.
    kept_below: Option<u64>,
}

impl Epochs {
    /// Reads the epochs.
    ///
    /// # Errors
    /// UNAVAILABLE when Postgres is unavailable.
    pub(super) async fn read(executor: InstrumentedExecutor<'static>) -> Result<Self> {
        let rows = sqlx::query!(r#"select epoch as "epoch!", kept_below from read_epochs()"#)
            .fetch_all(executor)
            .await?;
        let epochs = rows.into_iter().map(|row| Epoch {
            epoch: row.epoch.cast_unsigned(),
            kept_below: row.kept_below.map(i64::cast_unsigned),
        });
        Ok(Self(epochs.collect()))
    }

    /// The current epoch; 0, the first epoch of each database, before the first read.
    pub(super) fn current(&self) -> u64 {
        self.0.first().map_or(0, |epoch| epoch.epoch)
    }

    /// Whether the database still has the transactions that the revision includes; `None` when the
    /// epoch of the revision is unknown.
    pub(super) fn have_transactions_of(&self, revision: Revision) -> Option<bool> {
        let epoch = self.0.iter().find(|epoch| epoch.epoch == revision.epoch)?;
        Some(epoch.kept_below.is_none_or(|kept_below| revision.position <= kept_below))
    }
}

/// Begins an epoch if another server began the current one. `pg/server_check.rs` does the same before
/// it uses a server; a connection pooler can switch to another server without a new connection.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn record_server(postgres: &Postgres) -> Result<()> {
    sqlx::query!("select note_epoch()").execute(postgres.executor()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N39: after a restore (2) no token stays valid; after a failover (3) the earlier ones do.
    #[test]
    fn a_token_is_kept_by_all_later_epochs_or_refused() {
        let epoch = |epoch, kept_below| Epoch { epoch, kept_below };
        let epochs = Epochs(vec![epoch(3, None), epoch(2, Some(50)), epoch(0, Some(0))]);
        let keep =
            |epoch, position| epochs.have_transactions_of(Revision { horizon: 1, position, epoch });
        assert_eq!((epochs.current(), keep(3, u64::MAX)), (3, Some(true)));
        assert_eq!((keep(2, 50), keep(2, 51)), (Some(true), Some(false)));
        assert_eq!((keep(0, 7), keep(9, 7)), (Some(false), None));
    }
}
