//! Postgres as features use it: [`Db`] begins transactions that work in one tenant, seal
//! its personal data, and are in this process's memory once they are committed.

mod database;
mod tx;

pub use database::Db;
pub use tx::TenantTx;
