//! Numbers in scopes: the server returns a stored number bit for bit, or refuses the number.

use prost_types::{Struct, Value, value::Kind};
use tenantry::proto::v1::{
    AssignRoleRequest, BatchCheckItem, BatchCheckRequest, CheckRequest, ListRoleAssignmentsRequest,
    ListSubjectsRequest, RoleLevel,
};
use tonic::Code;

use super::random::Rng;
use crate::harness::{Client, TestApp, assert_refused};

#[expect(clippy::unnecessary_wraps, reason = "requests take an option")]
fn scope(number: f64) -> Option<Struct> {
    let value = Value { kind: Some(Kind::NumberValue(number)) };
    Some(Struct { fields: [("limit".to_owned(), value)].into() })
}

fn bits(scope: Option<&Struct>) -> Option<u64> {
    match scope?.fields.get("limit")?.kind {
        Some(Kind::NumberValue(number)) => Some(number.to_bits()),
        _ => None,
    }
}

fn assign_request(user: &str, role: &str, number: f64) -> AssignRoleRequest {
    AssignRoleRequest {
        user_id: user.into(),
        role_id: role.into(),
        scope: scope(number),
        ..AssignRoleRequest::default()
    }
}

/// A random number of any magnitude that a scope accepts (absolute value below 2^53), but never zero:
/// random bits can be negative zero, which a scope refuses.
fn random_number(rng: &mut Rng) -> f64 {
    loop {
        let bits = (0..4).fold(0, |bits, _| bits << 16 | rng.below(1 << 16) as u64);
        let number = f64::from_bits(bits);
        if number.abs() < 9_007_199_254_740_992.0 && number != 0.0 {
            return number;
        }
        // Most random bits give a number that is too large. `% 1e9` makes it small enough.
        let number = number % 1e9;
        if number.is_finite() && number != 0.0 {
            return number;
        }
    }
}

async fn listed_numbers(client: &Client, user: &str) -> Vec<u64> {
    let request =
        ListRoleAssignmentsRequest { user_id: user.into(), page_size: 1000, ..Default::default() };
    let reply = client.roles().list_role_assignments(request).await.expect("a page").into_inner();
    reply.role_assignments.iter().filter_map(|a| bits(a.scope.as_ref())).collect()
}

/// N01: every number that a scope accepts is stored unchanged, and matches itself in a decision.
#[tokio::test]
async fn each_stored_number_is_returned_unchanged_and_matches_itself() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("spender", RoleLevel::Member, &["bill:pay"]).await;
    let mut rng = Rng(11);
    let edge_cases = [
        0.0,
        0.1,
        -0.1,
        0.418_172_151_370_759_47,
        f64::MIN_POSITIVE,
        -f64::MIN_POSITIVE,
        5e-324,
        2.225_073_858_507_201e-308,
        f64::EPSILON,
        9_007_199_254_740_991.0,
        -9_007_199_254_740_991.0,
        4_503_599_627_370_495.5,
        1e-7,
        1e15,
    ];
    let mut numbers: Vec<f64> =
        edge_cases.into_iter().chain((0..400).map(|_| random_number(&mut rng))).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();

    // Each user gets 50 assignments, which one BatchCheck covers.
    for (index, numbers) in numbers.chunks(50).enumerate() {
        let user = acme.create_user_without_password(&format!("u{index}@acme.test")).await;
        for &number in numbers {
            let reply = acme.roles().assign_role(assign_request(&user, &role, number)).await;
            let stored =
                reply.expect("assigned").into_inner().role_assignment.expect("an assignment");
            assert_eq!(bits(stored.scope.as_ref()), Some(number.to_bits()), "{number:e}");
        }
        let mut returned = listed_numbers(&acme, &user).await;
        let mut expected: Vec<_> = numbers.iter().map(|number| number.to_bits()).collect();
        returned.sort_unstable();
        expected.sort_unstable();
        assert_eq!(returned, expected);

        let items = numbers.iter().map(|&number| BatchCheckItem {
            user_id: user.clone(),
            permission: "bill:pay".into(),
            scope: scope(number),
            ..BatchCheckItem::default()
        });
        let request = BatchCheckRequest { items: items.collect(), ..Default::default() };
        let reply = acme.permissions().batch_check(request).await.expect("decided").into_inner();
        assert_eq!(reply.results.len(), numbers.len());
        for (number, result) in numbers.iter().zip(reply.results) {
            assert!(result.allowed, "{number:e}");
        }
        let request = CheckRequest {
            user_id: user.clone(),
            permission: "bill:pay".into(),
            scope: scope(numbers[0]),
            explain: true,
            ..CheckRequest::default()
        };
        let granting_assignment =
            acme.decide(request).await.explanation.and_then(|explanation| explanation.granted_by);
        assert_eq!(
            bits(granting_assignment.expect("an assignment").scope.as_ref()),
            Some(numbers[0].to_bits())
        );
    }
}

/// N01: a number of 2^53 or more is refused, because the client's number may already have been
/// rounded to a double.
#[tokio::test]
async fn numbers_of_2_to_the_53_or_more_and_non_finite_numbers_are_refused_in_every_scope() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("spender", RoleLevel::Member, &["bill:pay"]).await;
    let user = acme.create_user_without_password("u@acme.test").await;
    for number in [
        9_007_199_254_740_992.0,
        -9_007_199_254_740_992.0,
        1e300,
        f64::MAX,
        f64::MIN,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ] {
        let assign_reply = acme.roles().assign_role(assign_request(&user, &role, number)).await;
        let status = assert_refused(assign_reply, Code::InvalidArgument, "INVALID_FIELDS");
        // For a finite number, the message advises to send ids as strings.
        assert!(!number.is_finite() || status.message().contains("ids as strings"), "{status:?}");
        let unassign_request = tenantry::proto::v1::UnassignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            scope: scope(number),
            ..Default::default()
        };
        let unassign_reply = acme.roles().unassign_role(unassign_request).await;
        assert_refused(unassign_reply, Code::InvalidArgument, "INVALID_FIELDS");
        for explain in [false, true] {
            let check_request = CheckRequest {
                user_id: user.clone(),
                permission: "bill:pay".into(),
                scope: scope(number),
                explain,
                ..CheckRequest::default()
            };
            let check_reply = acme.permissions().check(check_request).await;
            assert_refused(check_reply, Code::InvalidArgument, "INVALID_FIELDS");
        }
        let list_request = ListSubjectsRequest {
            permission: "bill:pay".into(),
            scope: scope(number),
            ..Default::default()
        };
        let list_reply = acme.permissions().list_subjects(list_request).await;
        assert_refused(list_reply, Code::InvalidArgument, "INVALID_FIELDS");
        let item = |number| BatchCheckItem {
            user_id: user.clone(),
            permission: "bill:pay".into(),
            scope: scope(number),
            ..BatchCheckItem::default()
        };
        let request =
            BatchCheckRequest { items: vec![item(number), item(1.0)], ..Default::default() };
        let reply = acme.permissions().batch_check(request).await.expect("decided").into_inner();
        let codes: Vec<_> =
            reply.results.iter().map(|result| result.error.as_ref().map(|e| e.code)).collect();
        assert_eq!(codes, [Some(Code::InvalidArgument as i32), None]);
    }
    let negative_zero_reply = acme.roles().assign_role(assign_request(&user, &role, -0.0)).await;
    assert_refused(negative_zero_reply, Code::InvalidArgument, "INVALID_FIELDS");
    acme.roles().assign_role(assign_request(&user, &role, 0.0)).await.expect("assigned");
    let zero_request = CheckRequest {
        user_id: user,
        permission: "bill:pay".into(),
        scope: scope(-0.0),
        ..CheckRequest::default()
    };
    assert!(acme.decide(zero_request).await.allowed, "negative zero matches zero");
}
