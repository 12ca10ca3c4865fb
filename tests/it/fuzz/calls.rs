//! N01 to N27: calls every RPC with valid and nearly valid messages, generated from the
//! descriptors, on one server.
//!
//! Every call gets an answer that is not INTERNAL or UNKNOWN, and the server returns stored values
//! unchanged. Meanwhile the tenant's lists and another tenant's decisions work.
//! `FUZZ_CALLS=200000 make test ARGS='--test it fuzz::calls'` makes more calls. `FUZZ_SEED`
//! repeats the messages of an earlier run, which printed its seed.

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng},
};
use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use tenantry::proto::v1::{
    AssignRoleResponse, ListRoleAssignmentsRequest, RoleAssignment, WhoAmIRequest,
};

use super::{
    known::Known,
    messages::{Maker, PASSWORDS},
};
use crate::harness::{Client, Method, RawReply, TestApp, methods, precise};

/// Number of calls in a run, unless `FUZZ_CALLS` sets another number.
const CALLS: u64 = 1500;

/// Number of concurrent callers.
const WORKERS: u64 = 4;

/// Number of calls between two checks of the lists and of the bystander's decisions.
const BETWEEN_LOOKS: u64 = 100;

/// Timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a reply, in bytes. Below the default limit of clients.
const LARGEST_REPLY: usize = 3 * 1024 * 1024;

/// RPCs that are called three times as often as others.
const OFTEN: &[&str] = &[
    "AssignRole",
    "BatchCheck",
    "Check",
    "CreateRole",
    "CreateUser",
    "UpdateRole",
    "UpdateTenant",
    "UpdateUser",
];

/// RPCs that are called a sixth as often as others.
const SELDOM: &[&str] = &[
    "DeleteTenant",
    "SuspendTenant",
    "DeleteUser",
    "DisableUser",
    "RevokeAllSessions",
    "RevokeSession",
    "Logout",
    "DeleteRole",
    "DeleteServiceAccount",
    "UnassignRole",
    "Login",
    "Register",
    "ChangePassword",
    "ResetPassword",
    "WatchEvents",
    "WatchPermissions",
];

/// RPCs that only platform staff may call.
const PLATFORMS: &[&str] =
    &["CreateTenant", "DeleteTenant", "ListTenants", "ReactivateTenant", "SuspendTenant"];

/// Index of the platform's administrator in [`World::others`].
const ROOT: usize = 2;

/// Streams stay open, so only this first part of a stream is observed.
const LISTENING: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_calls_of_every_rpc_get_precise_answers() {
    let seed = env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let calls = env::var("FUZZ_CALLS").ok().and_then(|calls| calls.parse().ok());
    let calls: u64 = calls.unwrap_or(CALLS);
    println!("FUZZ_SEED={seed} FUZZ_CALLS={calls}");

    // Longer than any run, so the bystander never has to sign in again.
    let app = TestApp::with(|values| values.set("JWT_ACCESS_EXPIRES_IN", "1d")).await;
    let world = Arc::new(World::make(&app, calls).await);
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(work(world.clone(), seed ^ (worker << 32))))
        .collect();
    for worker in workers {
        worker.await.expect("no finding");
    }
    world.look().await;
    world.check_reached();
}

/// State that the callers share.
struct World {
    left: AtomicU64,
    known: Mutex<Known>,
    methods: Vec<Method>,
    /// Administrator of the tenant whose objects are changed. When a call has ended the
    /// session, the administrator signs in again.
    admin: tokio::sync::Mutex<Client>,
    /// Other callers: a member with few permissions, another tenant's administrator, platform
    /// staff, and a client without a token.
    others: Vec<Client>,
    /// A tenant that must not be affected.
    bystander: Client,
    /// Number of answers by RPC and reason. `OK` means no error.
    answers: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
}

impl World {
    async fn make(app: &TestApp, calls: u64) -> Self {
        let root = app.platform_admin().await;
        let admin = app.tenant("fuzzed").await;
        let member = admin.member("clerk", &["invoice:read", "user:update"]).await;
        let other = app.tenant("other").await;
        let bystander = app.tenant("bystander").await;
        let mut known = Known::default();
        // Platform staff see all tenants, so they could suspend the bystander.
        known.never(&bystander.tenant_id);
        known.never(&bystander.slug);
        for client in [&admin, &member, &other, &root] {
            known.learn("User", &client.user_id);
            known.learn("Session", &client.tokens.session_id);
            known.learn("id", &client.tenant_id);
            known.learn("slug", &client.slug);
            known.learn("email", &client.email);
            known.learn("token", &client.tokens.access_token);
            known.learn("refresh_token", &client.tokens.refresh_token);
        }
        for number in 0..50 {
            known.learn("email", &format!("user{number}@fuzzed.test"));
        }
        Self {
            left: AtomicU64::new(calls),
            known: Mutex::new(known),
            methods: methods(),
            admin: tokio::sync::Mutex::new(admin),
            others: vec![
                member,
                other,
                root.clone(),
                root.with("x-tenant-id", "fuzzed"),
                app.anonymous(),
            ],
            bystander,
            answers: Mutex::default(),
        }
    }

    /// Asserts that most RPCs that store something succeeded at least once. If all calls were
    /// refused, the fuzzer would find nothing.
    fn check_reached(&self) {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut makes, mut made) = (0, 0);
        for (method, reasons) in &*answers {
            println!("{method} {reasons:?}");
            if ["Create", "Assign", "Update"].iter().any(|verb| method.starts_with(verb)) {
                makes += 1;
                made += usize::from(reasons.contains_key("OK"));
            }
        }
        assert!(made * 2 > makes, "{made} of {makes} ever succeeded");
    }

    /// A random RPC. RPCs that store something are chosen more often. RPCs that delete objects
    /// or end sessions, hash a password or stay open are chosen less often.
    fn method(&self, rng: &mut TestRng) -> Method {
        loop {
            let method = &self.methods[rng.random_range(0..self.methods.len())];
            let name = method.0.name();
            let share = match name {
                _ if SELDOM.contains(&name) => 0.05,
                _ if OFTEN.contains(&name) => 1.0,
                _ => 0.3,
            };
            if rng.random_bool(share) {
                return method.clone();
            }
        }
    }

    fn count(&self, method: &Method, reason: String) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = answers.entry(method.0.name().to_owned()).or_default();
        *reasons.entry(reason).or_default() += 1;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A clone of the administrator's client.
    async fn admin(&self) -> Client {
        self.admin.lock().await.clone()
    }

    /// The administrator, with an active session.
    async fn live_admin(&self) -> Client {
        let mut admin = self.admin.lock().await;
        if admin.auth().who_am_i(WhoAmIRequest {}).await.is_ok() {
            return admin.clone();
        }
        let anonymous = admin.with_token("");
        for password in PASSWORDS {
            let again = anonymous.try_login(&admin.slug, &admin.email, password).await;
            if let Ok(again) = again {
                *admin = again;
                return admin.clone();
            }
        }
        // The tenant was deleted or suspended, or its administrator got another email.
        let slug = format!("fuzzed-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        *admin = anonymous.sign_up_tenant(&slug).await;
        self.known().learn("slug", &slug);
        self.known().learn("email", &admin.email);
        admin.clone()
    }

    /// Asserts that each list of the tenant, page by page, and the bystander's decisions work.
    async fn look(&self) {
        assert!(self.bystander.may("", "anything:at-all").await, "the bystander's Check");
        let admin = self.live_admin().await;
        let root = &self.others[ROOT];
        for method in self.methods.iter().filter(|method| method.0.name().starts_with("List")) {
            if method.0.name() == "ListSubjects" {
                continue;
            }
            let client = if method.0.name() == "ListTenants" { root } else { &admin };
            let mut token = String::new();
            for _ in 0..100 {
                let mut request = method.request();
                if request.descriptor().get_field_by_name("page_token").is_some() {
                    request.set_field_by_name("page_token", Value::String(token));
                }
                let reply = method.call(client, &request).await;
                let what = format!("{} when everything should work", method.path());
                let Ok(reply) = reply else {
                    // Another worker may have ended the session or the tenant.
                    precise(&what, &reply);
                    break;
                };
                let reply = decode(method, reply.get_ref());
                token = match reply.get_field_by_name("next_page_token") {
                    Some(next) => next.as_str().unwrap_or_default().to_owned(),
                    None => String::new(),
                };
                if token.is_empty() {
                    break;
                }
            }
        }
    }
}

async fn work(world: Arc<World>, seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    loop {
        let left = world.left.fetch_sub(1, Ordering::Relaxed);
        if left == 0 || left > u64::MAX / 2 {
            world.left.store(0, Ordering::Relaxed);
            return;
        }
        if left.is_multiple_of(BETWEEN_LOOKS) {
            world.look().await;
        }
        let method = world.method(&mut rng);
        let client = if PLATFORMS.contains(&method.0.name()) && rng.random_bool(0.7) {
            world.others[ROOT].clone()
        } else if rng.random_bool(0.75) {
            world.admin().await
        } else {
            world.others[rng.random_range(0..world.others.len())].clone()
        };
        let message = {
            let known = world.known();
            Maker { known: &known, rng: &mut rng }.message(&method.0.input(), 0)
        };
        let what = format!("{} {message}", method.path());
        let reply = call(&method, &client, &message, &what).await;
        let reason = judge(&what, &reply);
        if ["TOKEN_INVALID", "TENANT_SUSPENDED"].contains(&reason.as_str()) {
            world.live_admin().await;
        }
        world.count(&method, reason);
        if let Ok(reply) = reply {
            let answer = decode(&method, reply.get_ref());
            came_back(&what, &message, &answer);
            read_again(&world, &method, &client, &answer).await;
            world.known().learn_from(&answer);
        }
    }
}

async fn call(method: &Method, client: &Client, message: &DynamicMessage, what: &str) -> RawReply {
    let call = method.call(client, message);
    if !method.0.is_server_streaming() {
        let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
        return answer.unwrap_or_else(|_| panic!("{what}: no answer"));
    }
    // A stream without a message is also an answer.
    let quiet = || Ok(tonic::Response::new(Vec::new()));
    tokio::time::timeout(LISTENING, call).await.unwrap_or_else(|_| quiet())
}

/// Reason of a client error, or `OK` for an answer that is not too large.
fn judge(what: &str, reply: &RawReply) -> String {
    match reply {
        Ok(reply) => {
            assert!(reply.get_ref().len() <= LARGEST_REPLY, "{what}: too large");
            "OK".to_owned()
        }
        Err(_) => precise(what, reply),
    }
}

fn decode(method: &Method, bytes: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(method.0.output(), bytes).expect("a response of the method's type")
}

/// Asserts that the stored values of a request are in the resource that answers it: fields with
/// the same name have the same value.
fn came_back(what: &str, request: &DynamicMessage, answer: &DynamicMessage) {
    let stores = request.descriptor().name().starts_with("Create")
        || request.descriptor().name().starts_with("Assign");
    // A request with a known request id gets the result of the first one.
    let repeated = request.get_field_by_name("request_id").is_some_and(|id| !is_empty(&id));
    if !stores || repeated {
        return;
    }
    let resource = answer.fields().find_map(|(_, value)| value.as_message().cloned());
    let Some(resource) = resource else { return };
    for (field, sent) in request.fields() {
        let Some(kept) = resource.get_field_by_name(field.name()) else { continue };
        if is_empty(sent) || ["slug", "permissions", "expire_time"].contains(&field.name()) {
            continue;
        }
        assert_eq!(canonical(sent), canonical(&kept), "{what}: {} changed", field.name());
    }
}

/// Asserts that the resource in an answer reads the same with the Get RPC.
async fn read_again(world: &World, method: &Method, client: &Client, answer: &DynamicMessage) {
    let name = method.0.name();
    if name == "AssignRole" {
        return assignment_again(client, answer).await;
    }
    let Some(kind) = name.strip_prefix("Create").or_else(|| name.strip_prefix("Update")) else {
        return;
    };
    let get = format!("Get{kind}");
    let Some(get) = world.methods.iter().find(|method| method.0.name() == get) else { return };
    let Some(mut made) = answer.fields().find_map(|(_, value)| value.as_message().cloned()) else {
        return;
    };
    let Some(id) = made.get_field_by_name("id").and_then(|id| id.as_str().map(str::to_owned))
    else {
        return;
    };
    let mut request = get.request();
    let Some(field) = get.0.input().fields().next() else { return };
    request.set_field(&field, Value::String(id));
    let what = format!("{} after {name}", get.path());
    let reply = get.call(client, &request).await;
    precise(&what, &reply);
    let Ok(reply) = reply else { return };
    let read = decode(get, reply.get_ref());
    let mut read =
        read.fields().find_map(|(_, value)| value.as_message().cloned()).expect("a resource");
    // A sign-in by another worker changes this time but not the etag.
    for user in [&mut made, &mut read] {
        user.clear_field_by_name("last_sign_in_time");
    }
    // Another worker may have changed the resource.
    if read.get_field_by_name("etag") == made.get_field_by_name("etag") {
        assert_eq!(text_of(&made), text_of(&read), "{what}");
    }
}

/// Asserts that an assignment reads the same in the list of its user's assignments.
async fn assignment_again(client: &Client, answer: &DynamicMessage) {
    let answer: AssignRoleResponse = answer.transcode_to().expect("the type");
    let made = answer.role_assignment.expect("the assignment");
    let request = ListRoleAssignmentsRequest {
        user_id: made.user_id.clone(),
        role_id: made.role_id.clone(),
        page_size: 1000,
        ..ListRoleAssignmentsRequest::default()
    };
    // The call is refused when another worker has ended the session or the tenant.
    let Ok(listed) = client.roles().list_role_assignments(request).await else { return };
    let listed = listed.into_inner().role_assignments;
    // The assignment is missing when another worker unassigned the role or the assignment
    // expired.
    if let Some(read) = listed.into_iter().find(|one| one.id == made.id) {
        // Another worker may have renamed the role.
        let made = RoleAssignment { role_name: read.role_name.clone(), ..made };
        assert_eq!(read, made, "an assignment changed");
    }
}

fn text_of(message: &DynamicMessage) -> String {
    canonical(&Value::Message(message.clone()))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Message(message) => message.encoded_len() == 0,
        _ => false,
    }
}

/// A value as text. Equal values give the same text: maps and lists of a Struct are sorted and
/// have no duplicates, and a list of one value becomes that value.
fn canonical(value: &Value) -> String {
    match value {
        Value::List(items) => {
            let mut items: Vec<_> = items.iter().map(canonical).collect();
            items.sort_unstable();
            items.dedup();
            format!("[{}]", items.join(","))
        }
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{key:?}:{}", canonical(value)))
                .collect();
            entries.sort_unstable();
            format!("{{{}}}", entries.join(","))
        }
        Value::Message(message) => {
            if let Some(one) = only_item(message) {
                return canonical(&one);
            }
            let fields: Vec<_> = message
                .fields()
                .map(|(field, value)| format!("{}={}", field.name(), canonical(value)))
                .collect();
            format!("({})", fields.join(" "))
        }
        Value::F64(number) if *number == 0.0 => "F64(0.0)".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The item of a Value whose list has only one distinct item. In a scope, both forms are equal.
fn only_item(message: &DynamicMessage) -> Option<Value> {
    let list = message.get_field_by_name("list_value")?;
    let list = list.as_message().filter(|_| message.has_field_by_name("list_value"))?;
    let items = list.get_field_by_name("values")?;
    let items = items.as_list()?;
    let first = items.first()?;
    items.iter().all(|item| canonical(item) == canonical(first)).then(|| first.clone())
}
