//! A connection pooler between the service and Postgres.

use secrecy::SecretString;
use tenantry::pg::Postgres;

use crate::{
    commands::run,
    harness::{Cluster, PgBouncer, TestApp},
};

/// N40: a pooler that keeps sessions works with its default settings, and the timeouts of the
/// session apply.
#[tokio::test]
async fn pgbouncer_in_session_mode_works_and_keeps_the_timeouts() {
    let pgbouncer = PgBouncer::start("session").await;
    let database = Cluster::get().new_database().await;
    let url = pgbouncer.app_url(&database);
    let app = TestApp::on_database(&database, |values| values.set("DATABASE_URL", url)).await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["invoice:read"]).await;
    assert!(acme.user_may(&ada.user_id, "invoice:read").await);
    app.stop().await;

    let url = SecretString::from(pgbouncer.app_url(&database));
    let postgres = Postgres::connect(&url, 1).expect("a pool");
    for (setting, value) in [("statement_timeout", "10s"), ("lock_timeout", "5s")] {
        let query = sqlx::query_scalar("select current_setting($1)").bind(setting);
        let actual: String = query.fetch_one(postgres.pool()).await.expect("the setting");
        assert_eq!(actual, value, "{setting}");
    }
    postgres.close().await;
}

/// N40: the service and `migrate` refuse a pooler that gives each transaction another session. The
/// error names the setting to change.
#[tokio::test]
async fn pgbouncer_in_another_pool_mode_is_refused() {
    let database = Cluster::get().new_database().await;
    for pool_mode in ["transaction", "statement"] {
        let pgbouncer = PgBouncer::start(pool_mode).await;
        let error = TestApp::start_error(&database, pgbouncer.app_url(&database)).await;
        assert!(error.contains("pool_mode = session"), "{pool_mode}: {error}");
        let owner_url = pgbouncer.owner_url(&database);
        let output = run(&["migrate"], &[("MIGRATE_DATABASE_URL", &owner_url)]).await;
        assert!(!output.ok && output.err.contains("pool_mode = session"), "{output:?}");
    }
}
