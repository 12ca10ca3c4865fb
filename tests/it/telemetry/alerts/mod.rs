//! Which alerts fire in which outage. A real server goes through each outage, and promtool
//! evaluates the rules of `deploy/prometheus/alerts.yml` with the metrics of that server.

mod short;
mod timeline;

use sqlx::Connection;
use tenantry::{
    config::Values,
    proto::v1::{CheckRequest, UpdateTenantRequest, WhoAmIRequest},
};
use tonic::Code;

use self::timeline::{Scrape, Timeline};
use crate::harness::{
    Client, Cluster, PASSWORD, PrivateRedis, Proxy, TestApp, assert_refused, mail_settings,
    wait_until,
};

/// A server whose connections to its stores can be cut.
struct Setup {
    app: TestApp,
    admin: Client,
    postgres: Proxy,
    redis: Proxy,
}

impl Setup {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(adjust: impl FnOnce(&mut Values)) -> Self {
        let database = Cluster::get().new_database().await;
        let (postgres, redis) = (Proxy::postgres().await, Proxy::redis().await);
        let (postgres_url, redis_url) = (postgres.postgres_url(&database), redis.redis_url());
        let app = TestApp::on_database(&database, |values| {
            values.set("DATABASE_URL", postgres_url);
            values.set("REDIS_URL", redis_url);
            values.set("RATE_LIMIT_SIGN_IN", "off");
            adjust(values);
        })
        .await;
        let admin = app.create_tenant("acme").await;
        Self { app, admin, postgres, redis }
    }

    /// Scrapes before and after calls. Repeats this until no call to a store fails, because on a
    /// busy machine a store may answer too late.
    async fn scrape_before_outage(&self) -> [Scrape; 2] {
        self.wait_for_metric("tenantry_redis_up", |up| up > 0.5).await;
        for _ in 0..20 {
            let [before, after] = self.scrape_calls(PASSWORD).await;
            if before.has_no_store_errors(&after) {
                return [before, after];
            }
        }
        panic!("calls to a store fail without an outage");
    }

    /// Scrapes before and after calls.
    async fn scrape_calls(&self, password: &str) -> [Scrape; 2] {
        let before = Scrape::take(&self.app).await;
        make_calls(&self.admin, password).await;
        [before, Scrape::take(&self.app).await]
    }

    /// Asserts that these alerts fire in the outage that has begun, and none before it.
    async fn assert_alerts(&self, quiet: [Scrape; 2], alerts: &[&str]) {
        let outage = Some(self.scrape_calls(PASSWORD).await);
        Timeline { quiet, outage }.assert_alerts(alerts).await;
    }

    async fn wait_for_metric(&self, name: &str, is_reached: impl Fn(f64) -> bool) {
        wait_until(30, || async { self.app.metric(name).await.is_some_and(&is_reached) }).await;
    }
}

/// Makes calls of several kinds. In an outage they fail.
async fn make_calls(admin: &Client, password: &str) {
    for _ in 0..5 {
        admin.try_login(&admin.slug, &admin.email, password).await.ok();
        admin.auth().who_am_i(WhoAmIRequest {}).await.ok();
        let check = CheckRequest { permission: "doc:read".into(), ..CheckRequest::default() };
        admin.permissions().check(check).await.ok();
        let update =
            UpdateTenantRequest { name: Some("Acme".into()), ..UpdateTenantRequest::default() };
        admin.tenants().update_tenant(update).await.ok();
    }
}

const POSTGRES_ALERTS: [&str; 4] =
    ["TenantryPostgresUnusable", "TenantryFeedLate", "TenantryErrors", "TenantryMethodFails"];

/// N35: Postgres is down, or closes its connections.
#[tokio::test]
async fn alerts_fire_when_postgres_is_down() {
    let setup = Setup::new().await;
    let quiet = setup.scrape_before_outage().await;
    setup.postgres.cut();
    setup.wait_for_metric("tenantry_postgres_up", |up| up < 0.5).await;
    setup.wait_for_metric("tenantry_feed_lag_seconds", |lag| lag > 1.0).await;
    setup.assert_alerts(quiet, &POSTGRES_ALERTS).await;
}

/// N35: Postgres is paused or cut off, so its connections stay open and carry nothing.
#[tokio::test]
async fn alerts_fire_when_postgres_does_not_answer() {
    let setup = Setup::new().await;
    let quiet = setup.scrape_before_outage().await;
    setup.postgres.hold();
    setup.wait_for_metric("tenantry_postgres_up", |up| up < 0.5).await;
    setup.wait_for_metric("tenantry_feed_lag_seconds", |lag| lag > 1.0).await;
    setup.assert_alerts(quiet, &POSTGRES_ALERTS).await;
}

/// N34: Redis is down.
#[tokio::test]
async fn alerts_fire_when_redis_is_down() {
    let setup = Setup::new().await;
    let quiet = setup.scrape_before_outage().await;
    setup.redis.cut();
    setup.wait_for_metric("tenantry_redis_up", |up| up < 0.5).await;
    setup.wait_for_metric("tenantry_audit_unsent_oldest_seconds", |age| age > 1.0).await;
    setup.assert_alerts(quiet, &["TenantryRedisFails", "TenantryAuditStreamBehind"]).await;
}

/// N34: Redis is paused or cut off.
#[tokio::test]
async fn alerts_fire_when_redis_does_not_answer() {
    let setup = Setup::new().await;
    let quiet = setup.scrape_before_outage().await;
    setup.redis.hold();
    setup.wait_for_metric("tenantry_redis_up", |up| up < 0.5).await;
    setup.assert_alerts(quiet, &["TenantryRedisFails"]).await;
}

/// N34: Redis has no memory left, and refuses writes.
#[tokio::test]
async fn alerts_fire_when_redis_is_full() {
    let redis = PrivateRedis::start().await;
    let setup = Setup::with(|values| values.set("REDIS_URL", redis.url())).await;
    let quiet = setup.scrape_before_outage().await;
    redis.ask("CONFIG SET maxmemory 1").await;
    make_calls(&setup.admin, PASSWORD).await;
    setup.wait_for_metric("tenantry_audit_unsent_oldest_seconds", |age| age > 1.0).await;
    setup.assert_alerts(quiet, &["TenantryAuditStreamBehind", "TenantryRedisFull"]).await;
}

/// N35: another session locks a table, so writes end with `CONFLICT`.
#[tokio::test]
async fn an_alert_fires_when_a_table_is_locked() {
    let setup = Setup::new().await;
    let quiet = setup.scrape_before_outage().await;
    let mut owner_connection = setup.app.owner_connection().await;
    let lock = "begin; lock table audit_events in exclusive mode";
    sqlx::raw_sql(lock).execute(&mut owner_connection).await.expect("the table is locked");
    let before = Scrape::take(&setup.app).await;
    let request =
        UpdateTenantRequest { name: Some("Acme".into()), ..UpdateTenantRequest::default() };
    let result = setup.admin.tenants().update_tenant(request).await;
    assert_refused(result, Code::Aborted, "CONFLICT");
    let outage = Some([before, Scrape::take(&setup.app).await]);
    Timeline { quiet, outage }.assert_alerts(&["TenantryLocks"]).await;
}

/// N42: all replicas are down.
#[tokio::test]
async fn an_alert_fires_when_no_replica_is_left() {
    let setup = Setup::new().await;
    let quiet = setup.scrape_before_outage().await;
    Timeline { quiet, outage: None }.assert_alerts(&["TenantryDown"]).await;
}

/// N33: no replica can seal the audit trail.
#[tokio::test]
async fn an_alert_fires_when_audit_events_are_not_sealed() {
    let setup = Setup::new().await;
    let quiet = setup.scrape_before_outage().await;
    let mut owner_connection = setup.app.owner_connection().await;
    let mut tx = owner_connection.begin().await.expect("a transaction");
    sqlx::raw_sql("lock table audit_chain in exclusive mode")
        .execute(&mut *tx)
        .await
        .expect("locked");
    make_calls(&setup.admin, PASSWORD).await;
    setup.wait_for_metric("tenantry_audit_unsealed_oldest_seconds", |age| age > 1.0).await;
    setup.assert_alerts(quiet, &["TenantryAuditNotSealed"]).await;
}

/// N42: nobody can sign in, although all other calls succeed.
#[tokio::test]
async fn an_alert_fires_when_no_sign_in_succeeds() {
    let setup = Setup::new().await;
    let quiet = setup.scrape_before_outage().await;
    let outage = Some(setup.scrape_calls("a wrong password").await);
    Timeline { quiet, outage }.assert_alerts(&["TenantryNoSignIn"]).await;
}

/// N42: the mail server is down.
#[tokio::test]
async fn an_alert_fires_when_mails_wait() {
    let setup = Setup::with(mail_settings("smtp://127.0.0.1:1")).await;
    let quiet = setup.scrape_before_outage().await;
    setup.app.request_reset(&setup.admin.slug, &setup.admin.email).await.expect("accepted");
    setup.wait_for_metric("tenantry_mails_oldest_seconds", |age| age > 1.0).await;
    setup.assert_alerts(quiet, &["TenantryMailsWait"]).await;
}
