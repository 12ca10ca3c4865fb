//! What the workload knows: tenants, users, roles, sessions and consistency tokens.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use fastrand::Rng;

use crate::history::{Condition, Fact, History, OpId};

/// The permissions that roles may grant. No role ever gets the last one.
pub const PERMISSIONS: [&str; 4] = ["doc:read", "doc:write", "doc:share", "vault:open"];

/// Number of the permissions that roles get.
pub const GRANTED_PERMISSIONS: usize = 3;

/// Password of all users.
pub const PASSWORD: &str = "correct horse battery staple";

/// Number of the newest sessions that the workload uses.
const SESSIONS: usize = 60;

/// Maximum number of consistency tokens that the workload remembers.
const TOKENS: usize = 100;

pub struct World {
    pub history: History,
    pub replicas: Vec<SocketAddr>,
    pub platform_token: String,
    pub tenants: Vec<Tenant>,
    pub roles: Vec<Role>,
    users: Mutex<Vec<User>>,
    sessions: Mutex<Vec<Session>>,
    tokens: Mutex<VecDeque<WriteToken>>,
    next_session: AtomicUsize,
    next_email: AtomicUsize,
    cancels_calls: AtomicBool,
    ends: AtomicBool,
    is_final: AtomicBool,
}

pub struct Tenant {
    pub id: String,
    pub slug: String,
    pub admin_token: String,
    /// Numbers of the roles that the workload assigns.
    pub roles: Vec<usize>,
    /// Whether the workload's last completed operation suspended the tenant.
    pub is_suspended: AtomicBool,
}

#[derive(Clone)]
pub struct User {
    pub number: usize,
    pub tenant: usize,
    pub id: String,
    pub email: String,
}

pub struct Role {
    pub tenant: usize,
    pub id: String,
    pub name: String,
}

/// A session of a user, with its newest known tokens.
#[derive(Clone)]
pub struct Session {
    pub number: usize,
    pub id: String,
    pub user: User,
    pub access_token: String,
    pub refresh_token: String,
    /// The refresh token that the last successful refresh replaced. The server accepts it once
    /// only.
    pub spent_token: Option<String>,
    /// The request id of a refresh whose outcome is unknown.
    pub pending_request: Option<String>,
    /// Whether a refresh was refused, so the session has probably ended.
    pub was_refused: bool,
}

/// The consistency token of a write, and the user whom the write changed.
#[derive(Clone)]
pub struct WriteToken {
    pub op: OpId,
    pub tenant: usize,
    pub user: Option<usize>,
    pub token: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// An empty world, whose first operation gets this number.
    pub fn new(replicas: Vec<SocketAddr>, first_id: OpId) -> Self {
        Self {
            history: History::new(first_id),
            replicas,
            platform_token: String::new(),
            tenants: Vec::new(),
            roles: Vec::new(),
            users: Mutex::default(),
            sessions: Mutex::default(),
            tokens: Mutex::default(),
            next_session: AtomicUsize::new(0),
            next_email: AtomicUsize::new(0),
            cancels_calls: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            is_final: AtomicBool::new(false),
        }
    }

    /// The tenant that no operation suspends. The recovery after a fault is tested with it.
    pub fn probe_tenant(&self) -> usize {
        self.tenants.len() - 1
    }

    pub fn users(&self) -> Vec<User> {
        lock(&self.users).clone()
    }

    pub fn users_of(&self, tenant: usize) -> Vec<User> {
        lock(&self.users).iter().filter(|user| user.tenant == tenant).cloned().collect()
    }

    /// Adds a user. Returns its number.
    pub fn add_user(&self, tenant: usize, id: String, email: String) -> usize {
        let mut users = lock(&self.users);
        let number = users.len();
        users.push(User { number, tenant, id, email });
        number
    }

    /// A random user of the tenant. In nine of ten calls, it is one of the first five users, so
    /// that operations on the same user overlap.
    pub fn random_user(&self, rng: &mut Rng, tenant: usize) -> Option<User> {
        let users = self.users_of(tenant);
        let count = if rng.u8(..10) == 0 { users.len() } else { users.len().min(5) };
        users.get(rng.usize(..count.max(1))).cloned()
    }

    pub fn new_email(&self, slug: &str) -> String {
        format!("user-{}@{slug}.test", self.next_email.fetch_add(1, Ordering::Relaxed))
    }

    /// The number of a new session.
    pub fn next_session(&self) -> usize {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    pub fn add_session(&self, session: Session) {
        lock(&self.sessions).push(session);
    }

    /// A random session among the newest ones. A session that has probably ended is chosen rarely.
    pub fn random_session(&self, rng: &mut Rng) -> Option<Session> {
        let sessions = lock(&self.sessions);
        let newest = &sessions[sessions.len().saturating_sub(SESSIONS)..];
        let mut chosen = newest.get(rng.usize(..newest.len().max(1)))?;
        for _ in 0..4 {
            if chosen.was_refused {
                chosen = newest.get(rng.usize(..newest.len()))?;
            }
        }
        Some(chosen.clone())
    }

    pub fn sessions(&self) -> Vec<Session> {
        lock(&self.sessions).clone()
    }

    pub fn change_session(&self, number: usize, change: impl FnOnce(&mut Session)) {
        let mut sessions = lock(&self.sessions);
        if let Some(session) = sessions.iter_mut().find(|session| session.number == number) {
            change(session);
        }
    }

    pub fn add_token(&self, token: WriteToken) {
        let mut tokens = lock(&self.tokens);
        if tokens.len() >= TOKENS {
            tokens.pop_front();
        }
        tokens.push_back(token);
    }

    /// A consistency token of the tenant: most of the time the newest one.
    pub fn random_token(&self, rng: &mut Rng, tenant: usize) -> Option<WriteToken> {
        let tokens = lock(&self.tokens);
        let mut tenant_tokens = tokens.iter().rev().filter(|token| token.tenant == tenant);
        let skipped = if rng.u8(..4) == 0 { rng.usize(..TOKENS / 4) } else { 0 };
        tenant_tokens.nth(skipped).cloned()
    }

    /// Whether clients cancel some of their calls.
    pub fn cancels_calls(&self) -> bool {
        self.cancels_calls.load(Ordering::Relaxed)
    }

    pub fn set_cancels_calls(&self, cancels: bool) {
        self.cancels_calls.store(cancels, Ordering::Relaxed);
    }

    /// Whether the workers must end.
    pub fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// Whether the workload has ended, and the final state is read now.
    pub fn is_final(&self) -> bool {
        self.is_final.load(Ordering::Relaxed)
    }

    pub fn begin_final(&self) {
        self.is_final.store(true, Ordering::Relaxed);
    }

    /// The condition under which a user has a permission.
    pub fn allowed(&self, user: &User, permission: usize) -> Condition {
        let roles = self.tenants[user.tenant].roles.iter();
        let by_role = roles.map(|role| allowed_by(user, *role, permission)).collect();
        Condition::All(vec![
            Condition::Is(Fact::TenantActive(user.tenant), true),
            Condition::Is(Fact::UserEnabled(user.number), true),
            Condition::Any(by_role),
        ])
    }

    /// The conditions under which the access token of a session is valid.
    pub fn in_force(session: &Session) -> Vec<Condition> {
        vec![
            Condition::Is(Fact::TenantActive(session.user.tenant), true),
            Condition::Is(Fact::UserEnabled(session.user.number), true),
            Condition::Is(Fact::SessionLive(session.number), true),
        ]
    }
}

/// The condition under which an assigned role grants a permission to a user.
pub fn allowed_by(user: &User, role: usize, permission: usize) -> Condition {
    Condition::All(vec![
        Condition::Is(Fact::Assigned { user: user.number, role }, true),
        Condition::Is(Fact::Grants { role, permission }, true),
    ])
}
