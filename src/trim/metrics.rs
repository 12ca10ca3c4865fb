//! Metrics of the trim, and of the size of tables.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use time::OffsetDateTime;

#[derive(Default)]
pub(super) struct Metrics {
    deleted_rows: Family<Label, Counter>,
    last_pass: Family<Label, Gauge>,
    estimated_rows: Family<Label, Gauge>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Label {
    table: String,
}

impl Label {
    fn of(table: &str) -> Self {
        Self { table: table.to_owned() }
    }
}

impl Metrics {
    pub(super) fn register(
        registry: &mut Registry,
        tables: impl Iterator<Item = &'static str>,
    ) -> Self {
        let metrics = Self::default();
        let help = "Ended rows that this replica deleted";
        registry.register("tenantry_trimmed_rows", help, metrics.deleted_rows.clone());
        let help = "Start of this replica's last complete pass through the table, in seconds since \
                    1970; 0 before the first. Rows that had to be deleted then are deleted";
        registry.register(
            "tenantry_trim_last_pass_timestamp_seconds",
            help,
            metrics.last_pass.clone(),
        );
        let help = "Rows of the table, as Postgres estimates them";
        registry.register("tenantry_table_rows", help, metrics.estimated_rows.clone());
        for table in tables {
            drop(metrics.deleted_rows.get_or_create(&Label::of(table)));
            drop(metrics.last_pass.get_or_create(&Label::of(table)));
        }
        metrics
    }

    pub(super) fn record_deleted(&self, table: &str, rows: i64) {
        let rows = u64::try_from(rows).unwrap_or_default();
        self.deleted_rows.get_or_create(&Label::of(table)).inc_by(rows);
    }

    pub(super) fn record_pass(&self, table: &str, started_at: OffsetDateTime) {
        self.last_pass.get_or_create(&Label::of(table)).set(started_at.unix_timestamp());
    }

    pub(super) fn record_rows(&self, tables: Vec<(String, i64)>) {
        for (table, rows) in tables {
            self.estimated_rows.get_or_create(&Label { table }).set(rows);
        }
    }
}
