//! The service does not start with a database role that bypasses row-level security.

use sqlx::{AssertSqlSafe, raw_sql};
use tenantry::{
    app::App,
    config::Config,
    server::{self, Listeners},
};

use crate::harness::{Cluster, TestApp, within};

/// The error with which a server with this DATABASE_URL refuses to start.
async fn refusal(database: &str, url: String) -> String {
    let mut values = TestApp::values(database);
    values.set("DATABASE_URL", url);
    let config = Config::check(&values).expect("settings");
    let listeners = Listeners::bind(&config.server).await.expect("ports");
    let app = App::build(config).expect("the app builds");
    let served = within(10, Box::pin(server::serve(app, listeners, std::future::pending()))).await;
    served.expect_err("it should not start").to_string()
}

/// E02: no role of the service bypasses row-level security.
#[tokio::test]
async fn the_service_does_not_start_with_a_role_that_sees_all_tenants() {
    let cluster = Cluster::get();
    let database = cluster.new_database().await;
    let mut owner = cluster.connect_owner(&database).await;
    let as_owner = refusal(&database, cluster.owner_url(&database)).await;
    assert!(as_owner.contains("row-level security does not bind"), "{as_owner}");

    for power in [
        "create role it_power login superuser",
        "create role it_power login bypassrls",
        "create role it_power login; grant postgres to it_power",
        "create role it_power login noinherit; grant postgres to it_power",
        "create role it_between; grant postgres to it_between;
         create role it_power login; grant it_between to it_power",
        "create role it_power login; grant tenantry_lookup to it_power",
        "create role it_power login; alter table changes owner to it_power",
    ] {
        raw_sql(AssertSqlSafe(power)).execute(&mut owner).await.expect(power);
        let url = cluster.app_url(&database).replace("tenantry_app@", "it_power@");
        let message = refusal(&database, url).await;
        assert!(message.contains("row-level security does not bind"), "{power}: {message}");
        let clean_up = "reassign owned by it_power to postgres; drop role it_power;
                        drop role if exists it_between";
        raw_sql(clean_up).execute(&mut owner).await.expect("cleaned up");
    }
}
