//! N01 to N27: every RPC, called with valid and nearly valid messages from its
//! descriptors, against one server that lives through all of it.
//!
//! Nothing answers INTERNAL, UNKNOWN or not at all; what was stored comes back equal;
//! the tenant's lists and another tenant's decisions work all the while.
//! `FUZZ_CALLS=200000 make test ARGS='--test it fuzz::calls'` tries more, and
//! `FUZZ_SEED` repeats what an earlier run printed.

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

/// The calls of a run, but for `FUZZ_CALLS`.
const CALLS: u64 = 1500;

/// Calls at the same time.
const WORKERS: u64 = 4;

/// The calls between two looks at whether everything works still.
const BETWEEN_LOOKS: u64 = 100;

/// The longest that a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What any client accepts, less some room.
const LARGEST_REPLY: usize = 3 * 1024 * 1024;

/// The RPCs that are called three times as often as the others.
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

/// The RPCs that are called a sixth as often as the others.
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

/// The RPCs that the platform's staff alone may call.
const PLATFORMS: &[&str] =
    &["CreateTenant", "DeleteTenant", "ListTenants", "ReactivateTenant", "SuspendTenant"];

/// Where the platform's administrator is among the other callers.
const ROOT: usize = 2;

/// Streams stay open: what they do at first is looked at for so long.
const LISTENING: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_takes_whatever_comes() {
    let seed = env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let calls = env::var("FUZZ_CALLS").ok().and_then(|calls| calls.parse().ok());
    let calls: u64 = calls.unwrap_or(CALLS);
    println!("FUZZ_SEED={seed} FUZZ_CALLS={calls}");

    // Longer than any run: the bystander never signs in again.
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

/// What the calls are made with.
struct World {
    left: AtomicU64,
    known: Mutex<Known>,
    methods: Vec<Method>,
    /// Whose things are changed: its administrator, who is signed in anew when a call
    /// has ended the session.
    admin: tokio::sync::Mutex<Client>,
    /// Callers of other kinds: the platform's, another tenant's, one with few rights,
    /// nobody.
    others: Vec<Client>,
    /// A tenant that nothing of this concerns.
    bystander: Client,
    /// The answers of each RPC by their reason; `OK` for one that is no error.
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
        // The platform's staff, who see all tenants, would suspend it.
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

    /// Most of what makes things was answered with something else than refusals: a fuzzer
    /// that is always refused finds nothing.
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

    /// One of the RPCs. Those that store something are called more often; those that end
    /// what others need, hash a password, or stay open less often.
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

    /// The administrator.
    async fn admin(&self) -> Client {
        self.admin.lock().await.clone()
    }

    /// The administrator, with a session that is in force.
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
        // The tenant was deleted, suspended, or its administrator renamed.
        let slug = format!("fuzzed-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        *admin = anonymous.sign_up_tenant(&slug).await;
        self.known().learn("slug", &slug);
        self.known().learn("email", &admin.email);
        admin.clone()
    }

    /// Everything works: every list of the tenant page by page, its administrator's view
    /// of itself, and the bystander's decisions.
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
                    // Another worker may have ended the session or the tenant just now.
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
    // A stream that says nothing yet is fine.
    let quiet = || Ok(tonic::Response::new(Vec::new()));
    tokio::time::timeout(LISTENING, call).await.unwrap_or_else(|_| quiet())
}

/// The reason of an error that is the client's; `OK` for an answer of a size that any
/// client takes.
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

/// What a request stored is in the resource that it is answered with: fields of the same
/// name have the same value.
fn came_back(what: &str, request: &DynamicMessage, answer: &DynamicMessage) {
    let stores = request.descriptor().name().starts_with("Create")
        || request.descriptor().name().starts_with("Assign");
    // A repeated request is answered with the first one's result.
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

/// The resource of an answer reads the same when it is asked for.
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
    let mut read = read.fields().find_map(|(_, value)| value.as_message().cloned()).expect("it");
    // A sign-in of another worker leaves the etag as it is.
    for user in [&mut made, &mut read] {
        user.clear_field_by_name("last_sign_in_time");
    }
    // Another worker may have changed it since.
    if read.get_field_by_name("etag") == made.get_field_by_name("etag") {
        assert_eq!(text_of(&made), text_of(&read), "{what}");
    }
}

/// An assignment reads the same in the list of its user's.
async fn assignment_again(client: &Client, answer: &DynamicMessage) {
    let answer: AssignRoleResponse = answer.transcode_to().expect("the type");
    let made = answer.role_assignment.expect("the assignment");
    let request = ListRoleAssignmentsRequest {
        user_id: made.user_id.clone(),
        role_id: made.role_id.clone(),
        page_size: 1000,
        ..ListRoleAssignmentsRequest::default()
    };
    // Refused where another worker has ended the session or the tenant.
    let Ok(listed) = client.roles().list_role_assignments(request).await else { return };
    let listed = listed.into_inner().role_assignments;
    // Not there where another worker took the role already, or it has ended.
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

/// A value as text that is the same for what counts as the same: maps and lists of a
/// Struct in any order and without doubles, and a number by its value.
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

/// The item of a Value that is a list of one: in a scope both are the same.
fn only_item(message: &DynamicMessage) -> Option<Value> {
    let list = message.get_field_by_name("list_value")?;
    let list = list.as_message().filter(|_| message.has_field_by_name("list_value"))?;
    let items = list.get_field_by_name("values")?;
    let items = items.as_list()?;
    let first = items.first()?;
    items.iter().all(|item| canonical(item) == canonical(first)).then(|| first.clone())
}
