//! A proxy between a server and Postgres or Redis that injects network faults.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};

use super::{Cluster, statements::Reader, within};

/// A TCP proxy to a store. It forwards all bytes until a test asks for a fault.
pub struct Proxy {
    addr: SocketAddr,
    state: watch::Sender<State>,
    statements: Statements,
    _task: JoinSet<()>,
}

/// The SQL statements that were sent to Postgres.
type Statements = Arc<Mutex<Vec<String>>>;

/// Parts of the statements that a server sends without a call: the change feed, the audit
/// backlog, the health check, and the settings of each new connection.
const BACKGROUND_STATEMENTS: [&str; 4] = [
    "read_changes",
    "audit_backlog",
    r#"select true as "up!""#,
    "client_connection_check_interval",
];

/// How the proxy handles the bytes of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Flow {
    #[default]
    Pass,
    Hold,
    Cut,
}

/// A fault that starts at chosen bytes or at a chosen statement for the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Hold these bytes and all later bytes, in both directions.
    Hold,
    /// Forward these bytes, and hold the replies on their connection.
    HoldReplies,
    /// Cut all connections before the store receives these bytes.
    Cut,
    /// Forward these bytes, and cut their connection before the reply.
    CutReplies,
}

#[derive(Default)]
struct State {
    up: Flow,
    down: Flow,
    trigger: Option<(Vec<u8>, Then)>,
    /// The number of statements until the fault starts, and the fault.
    countdown: Option<(usize, Then)>,
    /// Client port of the only connection that `down` applies to. `None` means all connections.
    replies_of: Option<u16>,
    held: bool,
    /// Drop replies that contain these bytes.
    swallowed: Option<&'static [u8]>,
}

impl Proxy {
    /// A proxy to the shared Postgres.
    pub async fn postgres() -> Self {
        Self::start(Cluster::get().postgres_socket(), true).await
    }

    /// A proxy to the shared Redis.
    pub async fn redis() -> Self {
        Self::start(Cluster::get().redis_socket(), false).await
    }

    async fn start(target: PathBuf, is_postgres: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let state = watch::Sender::new(State::default());
        let mut task = JoinSet::new();
        let (shared, statements) = (state.clone(), Statements::default());
        let log = is_postgres.then(|| statements.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass_on(client, target.clone(), shared.clone(), log.clone()));
            }
        });
        Self { addr, state, statements, _task: task }
    }

    pub fn postgres_url(&self, database: &str) -> String {
        format!("postgres://tenantry_app@{}/{database}", self.addr)
    }

    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Holds all bytes, as when the store hangs.
    pub fn hold(&self) {
        self.set_flows(Flow::Hold, Flow::Hold);
    }

    /// Drops the messages that Redis publishes, and forwards all other replies.
    pub fn swallow_messages(&self) {
        self.state.send_modify(|state| state.swallowed = Some(b"message\r\n"));
    }

    /// Cuts all connections and every new one, as when the store is down.
    pub fn cut(&self) {
        self.set_flows(Flow::Cut, Flow::Cut);
    }

    /// Forwards the held bytes and all later bytes.
    pub fn pass(&self) {
        self.set_flows(Flow::Pass, Flow::Pass);
    }

    fn set_flows(&self, up: Flow, down: Flow) {
        self.state.send_replace(State { up, down, ..State::default() });
    }

    /// Starts a fault at the next bytes for the store that contain `bytes`.
    pub fn when_sent(&self, bytes: impl AsRef<[u8]>, then: Then) {
        let trigger = Some((bytes.as_ref().to_vec(), then));
        self.state.send_modify(|state| state.trigger = trigger);
    }

    /// Starts a fault at the `n`-th statement from now, background statements excluded.
    pub fn at_statement(&self, n: usize, then: Then) {
        self.state.send_modify(|state| state.countdown = Some((n, then)));
    }

    /// Whether the fault of [`Proxy::at_statement`] has started.
    pub fn has_fired(&self) -> bool {
        self.state.borrow().countdown.is_none()
    }

    /// The statements that were sent since the last call of this method, background statements
    /// excluded.
    pub fn asked(&self) -> Vec<String> {
        let mut statements = std::mem::take(&mut *self.statements.lock().expect("no panic"));
        statements.retain(|sql| !is_background(sql));
        statements
    }

    /// Whether a trigger has cut the connections.
    pub fn is_cut(&self) -> bool {
        self.state.borrow().up == Flow::Cut
    }

    /// Waits until the proxy holds bytes.
    pub async fn until_held(&self) {
        let mut state = self.state.subscribe();
        within(10, state.wait_for(|state| state.held)).await.expect("the proxy runs");
    }
}

impl State {
    fn set_flows(&mut self, then: Then, port: u16) {
        match then {
            Then::Hold => (self.up, self.down) = (Flow::Hold, Flow::Hold),
            Then::HoldReplies => (self.down, self.replies_of) = (Flow::Hold, Some(port)),
            Then::Cut => (self.up, self.down) = (Flow::Cut, Flow::Cut),
            Then::CutReplies => (self.down, self.replies_of) = (Flow::Cut, Some(port)),
        }
    }

    fn replies(&self, port: u16) -> Flow {
        match self.replies_of {
            Some(held) if held != port => Flow::Pass,
            _ => self.down,
        }
    }

    fn swallows(&self, reply: &[u8]) -> bool {
        self.swallowed.is_some_and(|swallowed| contains(reply, swallowed))
    }
}

async fn pass_on(
    client: TcpStream,
    target: PathBuf,
    state: watch::Sender<State>,
    log: Option<Statements>,
) {
    if state.borrow().up == Flow::Cut {
        return;
    }
    let Ok(store) = UnixStream::connect(&target).await else { return };
    let Ok(port) = client.peer_addr().map(|peer| peer.port()) else { return };
    let ((mut from_client, mut to_client), (mut from_store, mut to_store)) =
        (client.into_split(), store.into_split());
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut reader = Reader::default();
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if let Some(log) = &log {
                let statements = reader.read(&buffer[..read]);
                let count = statements.iter().filter(|sql| !is_background(sql)).count();
                count_down(&state, count, port);
                log.lock().expect("no panic").extend(statements);
            }
            fire(&state, &buffer[..read], port);
            if !may_pass(&state, |state| state.up).await
                || to_store.write_all(&buffer[..read]).await.is_err()
            {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_store.read(&mut buffer).await {
            if state.borrow().swallows(&buffer[..read]) {
                continue;
            }
            if !may_pass(&state, |state| state.replies(port)).await
                || to_client.write_all(&buffer[..read]).await.is_err()
            {
                return;
            }
        }
    };
    let mut watched = state.subscribe();
    let cut = watched.wait_for(|state| state.up == Flow::Cut);
    tokio::select! {
        // Bytes that the client wrote before it disconnected still reach the store.
        () = up => {}
        () = down => {}
        _ = cut => {}
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn fire(state: &watch::Sender<State>, sent: &[u8], port: u16) {
    state.send_if_modified(|state| {
        let Some((wanted, then)) = &state.trigger else { return false };
        let then = *then;
        if !contains(sent, wanted) {
            return false;
        }
        state.set_flows(then, port);
        state.trigger = None;
        true
    });
}

fn count_down(state: &watch::Sender<State>, statements: usize, port: u16) {
    state.send_if_modified(|state| {
        let Some((left, then)) = state.countdown else { return false };
        if statements < left {
            state.countdown = Some((left - statements, then));
            return false;
        }
        state.countdown = None;
        state.set_flows(then, port);
        true
    });
}

fn is_background(sql: &str) -> bool {
    BACKGROUND_STATEMENTS.iter().any(|part| sql.contains(part))
}

/// Waits while the direction is held. Returns false when the direction is cut.
async fn may_pass(state: &watch::Sender<State>, flow: impl Fn(&State) -> Flow) -> bool {
    state.send_if_modified(|state| {
        let newly = flow(state) == Flow::Hold && !state.held;
        state.held |= newly;
        newly
    });
    let mut watched = state.subscribe();
    let free = watched.wait_for(|state| flow(state) != Flow::Hold).await;
    free.is_ok_and(|state| flow(&state) == Flow::Pass)
}
