//! The service does not start with a database role that bypasses row-level security, or that lacks a
//! right.

use sqlx::{AssertSqlSafe, raw_sql};

use crate::harness::{Cluster, TestApp};

/// E02: the role may have this right itself, through another role, or as the owner of a table.
#[tokio::test]
async fn the_service_does_not_start_with_a_role_that_sees_all_tenants() {
    let cluster = Cluster::get();
    let database = cluster.new_database().await;
    let mut owner_connection = cluster.connect_owner(&database).await;
    let error = TestApp::start_error(&database, cluster.owner_url(&database)).await;
    assert!(error.contains("can bypass row-level security"), "{error}");

    for create_role in [
        "create role it_power login superuser",
        "create role it_power login bypassrls",
        "create role it_power login; grant postgres to it_power",
        "create role it_power login noinherit; grant postgres to it_power",
        "create role it_between; grant postgres to it_between;
         create role it_power login; grant it_between to it_power",
        "create role it_power login; grant tenantry_lookup to it_power",
        "create role it_power login; alter table changes owner to it_power",
    ] {
        raw_sql(AssertSqlSafe(create_role))
            .execute(&mut owner_connection)
            .await
            .expect(create_role);
        let url = cluster.app_url(&database).replace("tenantry_app@", "it_power@");
        let error = TestApp::start_error(&database, url).await;
        assert!(error.contains("can bypass row-level security"), "{create_role}: {error}");
        let clean_up = "reassign owned by it_power to postgres; drop role it_power;
                        drop role if exists it_between";
        raw_sql(clean_up).execute(&mut owner_connection).await.expect("cleaned up");
    }
}

/// N51: a lost grant is found at the start, not at the first call that needs it.
#[tokio::test]
async fn the_service_does_not_start_without_the_right_to_call_its_functions() {
    let cluster = Cluster::get();
    let database = cluster.new_database().await;
    let mut owner_connection = cluster.connect_owner(&database).await;
    let revoke = "revoke execute on function read_changes(pg_snapshot) from tenantry_app";
    raw_sql(revoke).execute(&mut owner_connection).await.expect("revoked");
    let error = TestApp::start_error(&database, cluster.app_url(&database)).await;
    assert!(error.contains("may not execute the functions read_changes;"), "{error}");
}
