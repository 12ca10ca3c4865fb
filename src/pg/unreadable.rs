//! Reports rows that this program can't decode. Another program or a manual change wrote such a
//! row. An unreadable assignment does not apply, and a tenant's unreadable settings count as empty.
//! Operators see a log line with the ids of the row, and the metric
//! `tenantry_unreadable_rows_total`.

use std::sync::LazyLock;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use uuid::Uuid;

use crate::ids::TenantId;

/// The table of the row, used as the metric label.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names of the variants are the labels")]
pub enum Table {
    /// A role assignment whose scope is unreadable. The assignment does not apply.
    role_assignment,
    /// A tenant whose settings are unreadable. The settings count as empty.
    tenant,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Label {
    table: Table,
}

/// One counter for the whole process, because the code that reads rows has no access to the
/// server's state.
static UNREADABLE_ROWS: LazyLock<Family<Label, Counter>> = LazyLock::new(Family::default);

/// Registers the metric.
pub fn register(registry: &mut Registry) {
    let help = "Rows whose data can't be decoded";
    registry.register("tenantry_unreadable_rows", help, UNREADABLE_ROWS.clone());
    for table in [Table::role_assignment, Table::tenant] {
        drop(UNREADABLE_ROWS.get_or_create(&Label { table }));
    }
}

/// Counts and logs a row that can't be decoded.
pub fn report(table: Table, tenant: TenantId, row: Uuid) {
    UNREADABLE_ROWS.get_or_create(&Label { table }).inc();
    tracing::error!(%tenant, ?table, %row, "a row can't be decoded and is treated as absent");
}
