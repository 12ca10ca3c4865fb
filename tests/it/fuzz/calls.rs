//! Calls every RPC with valid and nearly valid messages, generated from the descriptors, on one
//! server.
//!
//! G16: no response is INTERNAL or UNKNOWN.
//! N01: the server returns stored values unchanged, and the tenant's lists work during the calls.
//! N08: no reply is larger than 3 MiB.
//! N21: another tenant's decisions work during the calls.
//!
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
use tenantry::proto::v1::{AssignRoleResponse, ListRoleAssignmentsRequest, RoleAssignment};

use super::{callers::Callers, known_values::KnownValues, messages::MessageGenerator};
use crate::harness::{
    Client, MailServer, Method, RawReply, TestApp, assert_success_or_documented_error, methods,
};

/// Number of calls in a run, unless `FUZZ_CALLS` sets another number.
const CALLS: u64 = 1500;

/// Number of concurrent callers.
const WORKERS: u64 = 4;

/// Number of calls between two checks of the lists and of the decisions in the bystander's tenant,
/// which the calls must not affect.
const CALLS_BETWEEN_CHECKS: u64 = 100;

/// Timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a reply, in bytes. Below the default limit of clients.
const LARGEST_REPLY: usize = 3 * 1024 * 1024;

/// RPCs that are called about three times as often as other RPCs.
const FREQUENT_RPCS: &[&str] = &[
    "AssignRole",
    "BatchCheck",
    "Check",
    "CreateRole",
    "CreateUser",
    "UpdateRole",
    "UpdateTenant",
    "UpdateUser",
];

/// RPCs that are called a sixth as often as other RPCs.
const RARE_RPCS: &[&str] = &[
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

/// RPCs that only the platform's administrators may call.
const PLATFORM_RPCS: &[&str] =
    &["CreateTenant", "DeleteTenant", "ListTenants", "ReactivateTenant", "SuspendTenant"];

/// Maximum time to wait for the first message of a stream. Streams stay open.
const STREAM_TIMEOUT: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_calls_of_every_rpc_get_documented_responses() {
    let seed = env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let calls = env::var("FUZZ_CALLS").ok().and_then(|calls| calls.parse().ok());
    let calls: u64 = calls.unwrap_or(CALLS);
    println!("FUZZ_SEED={seed} FUZZ_CALLS={calls}");

    // The tokens are valid longer than any run, so the bystander never has to sign in again.
    let mail_server = MailServer::start().await;
    let app = TestApp::with_settings(|values| {
        values.set("JWT_ACCESS_EXPIRES_IN", "1d");
        values.set("MAIL_URL", mail_server.url.clone());
    })
    .await;
    let state = Arc::new(SharedState::create(&app, mail_server, calls).await);
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(run_worker(state.clone(), seed ^ (worker << 32))))
        .collect();
    for worker in workers {
        worker.await.expect("the worker finds no defect");
    }
    state.assert_usable().await;
    state.assert_most_writes_succeeded();
}

/// State that the callers share.
struct SharedState {
    calls_left: AtomicU64,
    known_values: Mutex<KnownValues>,
    methods: Vec<Method>,
    callers: tokio::sync::RwLock<Callers>,
    /// The server that receives the mails with tokens.
    mail_server: MailServer,
    /// Administrator of a tenant that the calls must not affect.
    bystander: Client,
    /// Number of replies by RPC and reason. The reason `OK` means no error.
    reply_counts: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
}

impl SharedState {
    async fn create(app: &TestApp, mail_server: MailServer, calls: u64) -> Self {
        let mut known_values = KnownValues::default();
        // The platform's administrator could suspend the bystander's tenant.
        let bystander = app.create_tenant("bystander").await;
        known_values.exclude(&bystander.tenant_id);
        known_values.exclude(&bystander.slug);
        for number in 0..50 {
            known_values.store("email", &format!("user{number}@fuzzed.test"));
        }
        let callers = Callers::create(app, &mut known_values).await;
        Self {
            calls_left: AtomicU64::new(calls),
            known_values: Mutex::new(known_values),
            methods: methods(),
            callers: tokio::sync::RwLock::new(callers),
            mail_server,
            bystander,
            reply_counts: Mutex::default(),
        }
    }

    /// Asserts that most RPCs that store something succeeded at least once. If all calls were
    /// refused, the fuzzer would find no defects.
    fn assert_most_writes_succeeded(&self) {
        let reply_counts = self.reply_counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rpcs, mut succeeded) = (0, 0);
        for (method, reasons) in &*reply_counts {
            println!("{method} {reasons:?}");
            if ["Create", "Assign", "Update"].iter().any(|verb| method.starts_with(verb)) {
                rpcs += 1;
                succeeded += usize::from(reasons.contains_key("OK"));
            }
        }
        assert!(succeeded * 2 > rpcs, "only {succeeded} of {rpcs} RPCs succeeded");
    }

    /// A random RPC. RPCs that store something are chosen more often. RPCs that delete objects, end
    /// sessions, hash a password or stay open are chosen less often.
    fn pick_method(&self, rng: &mut TestRng) -> Method {
        loop {
            let method = &self.methods[rng.random_range(0..self.methods.len())];
            let name = method.0.name();
            let probability = match name {
                _ if RARE_RPCS.contains(&name) => 0.05,
                _ if FREQUENT_RPCS.contains(&name) => 1.0,
                _ => 0.3,
            };
            if rng.random_bool(probability) {
                return method.clone();
            }
        }
    }

    fn count_reply(&self, method: &Method, reason: String) {
        let mut reply_counts = self.reply_counts.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = reply_counts.entry(method.0.name().to_owned()).or_default();
        *reasons.entry(reason).or_default() += 1;
    }

    fn lock_known_values(&self) -> std::sync::MutexGuard<'_, KnownValues> {
        self.known_values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the clients that lost their rights.
    async fn replace_powerless_callers(&self) {
        self.callers.write().await.replace_powerless(&self.known_values).await;
    }

    /// Stores the tokens of new mails, so that calls redeem them.
    fn store_mailed_tokens(&self) {
        let mut known_values = self.lock_known_values();
        for mail in self.mail_server.take_mails() {
            known_values.store("token", &mail.link());
        }
    }

    /// Asserts that the bystander's decisions and all pages of the tenant's lists work.
    async fn assert_usable(&self) {
        assert!(self.bystander.may("anything:at-all").await, "the bystander's Check");
        self.replace_powerless_callers().await;
        self.store_mailed_tokens();
        let (admin, platform_admin) = {
            let callers = self.callers.read().await;
            (callers.admin().clone(), callers.platform_admin().clone())
        };
        for method in self.methods.iter().filter(|method| method.0.name().starts_with("List")) {
            // An empty request of this method is invalid.
            if method.0.name() == "ListSubjects" {
                continue;
            }
            let client = if method.0.name() == "ListTenants" { &platform_admin } else { &admin };
            let mut token = String::new();
            for _ in 0..100 {
                let mut request = method.request();
                if request.descriptor().get_field_by_name("page_token").is_some() {
                    request.set_field_by_name("page_token", Value::String(token));
                }
                let reply = method.call(client, &request).await;
                let description = format!("{} with an active session", method.path());
                let Ok(reply) = reply else {
                    // Another worker may have ended the session or the tenant.
                    assert_success_or_documented_error(&description, &reply);
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

async fn run_worker(state: Arc<SharedState>, seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    loop {
        let left = state.calls_left.fetch_sub(1, Ordering::Relaxed);
        // A number close to `u64::MAX` means that another worker took the last call, and this
        // subtraction went below zero.
        if left == 0 || left > u64::MAX / 2 {
            state.calls_left.store(0, Ordering::Relaxed);
            return;
        }
        if left.is_multiple_of(CALLS_BETWEEN_CHECKS) {
            state.assert_usable().await;
        }
        let method = state.pick_method(&mut rng);
        let is_platform_rpc = PLATFORM_RPCS.contains(&method.0.name());
        let client = state.callers.read().await.pick(is_platform_rpc, &mut rng);
        let message = {
            let known_values = state.lock_known_values();
            MessageGenerator { known_values: &known_values, rng: &mut rng }
                .message(&method.0.input(), 0)
        };
        let description = format!("{} {message}", method.path());
        let reply = call(&method, &client, &message, &description).await;
        let reason = check_reply(&description, &reply);
        if ["TOKEN_INVALID", "TENANT_SUSPENDED"].contains(&reason.as_str()) {
            state.replace_powerless_callers().await;
        }
        state.count_reply(&method, reason);
        if let Ok(reply) = reply {
            let response = decode(&method, reply.get_ref());
            assert_stored_values(&description, &message, &response);
            assert_readable(&state, &method, &client, &response).await;
            state.lock_known_values().store_from(&response);
        }
    }
}

async fn call(
    method: &Method,
    client: &Client,
    message: &DynamicMessage,
    description: &str,
) -> RawReply {
    let call = method.call(client, message);
    if !method.0.is_server_streaming() {
        let reply = tokio::time::timeout(CALL_TIMEOUT, call).await;
        return reply.unwrap_or_else(|_| panic!("{description}: no reply"));
    }
    // A stream without a message counts as a success.
    let empty_reply = || Ok(tonic::Response::new(Vec::new()));
    tokio::time::timeout(STREAM_TIMEOUT, call).await.unwrap_or_else(|_| empty_reply())
}

/// Asserts that a success is not too large, and that an error has a documented reason. Returns the
/// reason, or `OK` for a success.
fn check_reply(description: &str, reply: &RawReply) -> String {
    match reply {
        Ok(reply) => {
            assert!(
                reply.get_ref().len() <= LARGEST_REPLY,
                "{description}: the response is too large"
            );
            "OK".to_owned()
        }
        Err(_) => assert_success_or_documented_error(description, reply),
    }
}

fn decode(method: &Method, bytes: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(method.0.output(), bytes).expect("a response of the method's type")
}

/// Asserts that the resource in the response to a Create or Assign request has the values of the
/// request: fields with the same name have the same value.
fn assert_stored_values(description: &str, request: &DynamicMessage, response: &DynamicMessage) {
    let is_stored = request.descriptor().name().starts_with("Create")
        || request.descriptor().name().starts_with("Assign");
    // A request with a known request id may get the response to an earlier request.
    let may_be_repeated = request.get_field_by_name("request_id").is_some_and(|id| !is_empty(&id));
    if !is_stored || may_be_repeated {
        return;
    }
    let resource = response.fields().find_map(|(_, value)| value.as_message().cloned());
    let Some(resource) = resource else { return };
    for (field, sent) in request.fields() {
        let Some(stored) = resource.get_field_by_name(field.name()) else { continue };
        // The server may store these fields in another form.
        if is_empty(sent) || ["slug", "permissions", "expire_time"].contains(&field.name()) {
            continue;
        }
        let (mut sent, mut stored) = (canonical_text(sent), canonical_text(&stored));
        if field.name() == "certificate_name" {
            // A DNS name is stored in lower case.
            sent.make_ascii_lowercase();
            stored.make_ascii_lowercase();
        }
        assert_eq!(sent, stored, "{description}: {} changed", field.name());
    }
}

/// Asserts that the Get RPC returns the same resource as a Create or Update response.
async fn assert_readable(
    state: &SharedState,
    method: &Method,
    client: &Client,
    response: &DynamicMessage,
) {
    let name = method.0.name();
    if name == "AssignRole" {
        return assert_assignment_listed(client, response).await;
    }
    let Some(kind) = name.strip_prefix("Create").or_else(|| name.strip_prefix("Update")) else {
        return;
    };
    let get_method = format!("Get{kind}");
    let Some(get_method) = state.methods.iter().find(|method| method.0.name() == get_method) else {
        return;
    };
    let Some(mut resource) = response.fields().find_map(|(_, value)| value.as_message().cloned())
    else {
        return;
    };
    let Some(id) = resource.get_field_by_name("id").and_then(|id| id.as_str().map(str::to_owned))
    else {
        return;
    };
    let mut request = get_method.request();
    let Some(field) = get_method.0.input().fields().next() else { return };
    request.set_field(&field, Value::String(id));
    let description = format!("{} after {name}", get_method.path());
    let reply = get_method.call(client, &request).await;
    assert_success_or_documented_error(&description, &reply);
    let Ok(reply) = reply else { return };
    let stored = decode(get_method, reply.get_ref());
    let mut stored =
        stored.fields().find_map(|(_, value)| value.as_message().cloned()).expect("a resource");
    // A sign-in by another worker changes this time but not the etag.
    for message in [&mut resource, &mut stored] {
        message.clear_field_by_name("last_sign_in_time");
    }
    // Another worker may have changed the resource.
    if stored.get_field_by_name("etag") == resource.get_field_by_name("etag") {
        assert_eq!(text_of(&resource), text_of(&stored), "{description}");
    }
}

/// Asserts that the list of a user's assignments has the assignment of an `AssignRole` response.
async fn assert_assignment_listed(client: &Client, response: &DynamicMessage) {
    let response: AssignRoleResponse = response.transcode_to().expect("an AssignRoleResponse");
    let assignment = response.role_assignment.expect("the assignment");
    let request = ListRoleAssignmentsRequest {
        user_id: assignment.user_id.clone(),
        role_id: assignment.role_id.clone(),
        page_size: 1000,
        ..ListRoleAssignmentsRequest::default()
    };
    // The call is refused when another worker has ended the session or the tenant.
    let Ok(listed) = client.roles().list_role_assignments(request).await else { return };
    let listed = listed.into_inner().role_assignments;
    // The assignment is missing when another worker unassigned the role or the assignment
    // expired.
    if let Some(listed_assignment) = listed.into_iter().find(|listed| listed.id == assignment.id) {
        // Another worker may have renamed the role.
        let assignment =
            RoleAssignment { role_name: listed_assignment.role_name.clone(), ..assignment };
        assert_eq!(listed_assignment, assignment, "an assignment changed");
    }
}

fn text_of(message: &DynamicMessage) -> String {
    canonical_text(&Value::Message(message.clone()))
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
/// have no duplicates, and a list with one distinct value gives the text of this value.
fn canonical_text(value: &Value) -> String {
    match value {
        Value::List(items) => {
            let mut items: Vec<_> = items.iter().map(canonical_text).collect();
            items.sort_unstable();
            items.dedup();
            format!("[{}]", items.join(","))
        }
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{key:?}:{}", canonical_text(value)))
                .collect();
            entries.sort_unstable();
            format!("{{{}}}", entries.join(","))
        }
        Value::Message(message) => {
            if let Some(item) = single_item(message) {
                return canonical_text(&item);
            }
            let fields: Vec<_> = message
                .fields()
                .map(|(field, value)| format!("{}={}", field.name(), canonical_text(value)))
                .collect();
            format!("({})", fields.join(" "))
        }
        Value::F64(number) if *number == 0.0 => "F64(0.0)".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The item of a Value whose list has only one distinct item. In a scope, such a list and its item
/// are equal.
fn single_item(message: &DynamicMessage) -> Option<Value> {
    let list = message.get_field_by_name("list_value")?;
    let list = list.as_message().filter(|_| message.has_field_by_name("list_value"))?;
    let items = list.get_field_by_name("values")?;
    let items = items.as_list()?;
    let first = items.first()?;
    items.iter().all(|item| canonical_text(item) == canonical_text(first)).then(|| first.clone())
}
