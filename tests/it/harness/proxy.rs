//! A proxy between a server and Postgres or Redis that injects network faults.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};

use super::{Cluster, statements::StatementParser, within_seconds};

/// A TCP proxy to a store. It forwards all bytes until a test asks for a fault.
pub struct Proxy {
    addr: SocketAddr,
    /// The Unix socket of the store.
    target: watch::Sender<PathBuf>,
    state: watch::Sender<State>,
    statements: Statements,
    _task: JoinSet<()>,
}

/// The SQL statements that were sent to Postgres.
type Statements = Arc<Mutex<Vec<String>>>;

/// Parts of the statements that a server sends without a call: the change feed, the audit backlog,
/// the health check, the settings of each new connection, and the rollback of a transaction of a
/// background worker that found no work.
const BACKGROUND_STATEMENTS: [&str; 10] = [
    "read_changes",
    "audit_backlog",
    "schema_version()",
    "transaction_read_only')::boolean",
    "client_connection_check_interval",
    "tenants_to_purge",
    "trim_rows",
    "trim_requests",
    "estimated_rows",
    "ROLLBACK",
];

/// How the proxy handles the bytes of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Flow {
    #[default]
    Pass,
    Hold,
    Cut,
}

/// A fault. It starts when the server sends chosen bytes or a chosen statement to the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
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
    /// Bytes from the server to the store.
    request_flow: Flow,
    /// Replies of the store.
    reply_flow: Flow,
    /// The bytes that start a fault, and the fault.
    trigger: Option<(Vec<u8>, Fault)>,
    /// The number of statements until the fault starts, and the fault.
    countdown: Option<(usize, Fault)>,
    /// Client port of the only connection that `reply_flow` applies to. `None` means all
    /// connections.
    reply_flow_port: Option<u16>,
    /// Whether bytes are held.
    has_held_bytes: bool,
    /// Replies that contain these bytes are dropped.
    dropped_replies: Option<&'static [u8]>,
    /// Difference of the times in replies of Redis from the real time, in milliseconds.
    clock_offset_ms: i64,
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

    /// A proxy to the Postgres at this Unix socket.
    pub async fn to_postgres(socket: PathBuf) -> Self {
        Self::start(socket, true).await
    }

    /// Cuts all connections. Later connections lead to the store at this Unix socket.
    pub fn switch_to(&self, socket: PathBuf) {
        self.target.send_replace(socket);
    }

    /// A proxy to the Redis at this Unix socket.
    pub async fn to_redis(socket: PathBuf) -> Self {
        Self::start(socket, false).await
    }

    /// The address of the proxy itself.
    pub fn address(&self) -> SocketAddr {
        self.addr
    }

    async fn start(socket: PathBuf, is_postgres: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let state = watch::Sender::new(State::default());
        let mut task = JoinSet::new();
        let (shared, statements) = (state.clone(), Statements::default());
        let log = is_postgres.then(|| statements.clone());
        let target = watch::Sender::new(socket);
        let targets = target.subscribe();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, targets.clone(), shared.clone(), log.clone()));
            }
        });
        Self { addr, target, state, statements, _task: task }
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
    pub fn drop_published_messages(&self) {
        self.state.send_modify(|state| state.dropped_replies = Some(b"message\r\n"));
    }

    /// Shifts the times in replies of Redis by this offset, as when the clock of Redis is wrong.
    pub fn shift_clock(&self, offset_ms: i64) {
        self.state.send_modify(|state| state.clock_offset_ms = offset_ms);
    }

    /// Cuts all connections and every new one, as when the store is down.
    pub fn cut(&self) {
        self.set_flows(Flow::Cut, Flow::Cut);
    }

    /// Forwards the held bytes and all later bytes.
    pub fn pass(&self) {
        self.set_flows(Flow::Pass, Flow::Pass);
    }

    fn set_flows(&self, request_flow: Flow, reply_flow: Flow) {
        self.state.send_replace(State { request_flow, reply_flow, ..State::default() });
    }

    /// Starts a fault at the next bytes for the store that contain `bytes`.
    pub fn fault_when_sent(&self, bytes: impl AsRef<[u8]>, fault: Fault) {
        let trigger = Some((bytes.as_ref().to_vec(), fault));
        self.state.send_modify(|state| state.trigger = trigger);
    }

    /// Starts a fault at the `n`-th statement from now, background statements excluded.
    pub fn fault_at_statement(&self, n: usize, fault: Fault) {
        self.state.send_modify(|state| state.countdown = Some((n, fault)));
    }

    /// Whether the fault of [`Proxy::fault_at_statement`] has started.
    pub fn has_fault_started(&self) -> bool {
        self.state.borrow().countdown.is_none()
    }

    /// The statements that were sent since the last call of this method, background statements
    /// excluded.
    pub fn take_statements(&self) -> Vec<String> {
        let mut statements = std::mem::take(&mut *self.statements.lock().expect("no panic"));
        statements.retain(|sql| !is_background(sql));
        statements
    }

    /// Whether all connections are cut.
    pub fn is_cut(&self) -> bool {
        self.state.borrow().request_flow == Flow::Cut
    }

    /// Waits until the proxy holds bytes.
    pub async fn wait_until_held(&self) {
        let mut state = self.state.subscribe();
        within_seconds(10, state.wait_for(|state| state.has_held_bytes))
            .await
            .expect("the proxy runs");
    }
}

impl State {
    /// Starts a fault. `port` is the client port of the connection that caused it.
    fn start(&mut self, fault: Fault, port: u16) {
        match fault {
            Fault::Hold => (self.request_flow, self.reply_flow) = (Flow::Hold, Flow::Hold),
            Fault::HoldReplies => {
                (self.reply_flow, self.reply_flow_port) = (Flow::Hold, Some(port));
            }
            Fault::Cut => (self.request_flow, self.reply_flow) = (Flow::Cut, Flow::Cut),
            Fault::CutReplies => (self.reply_flow, self.reply_flow_port) = (Flow::Cut, Some(port)),
        }
    }

    fn reply_flow_of(&self, port: u16) -> Flow {
        match self.reply_flow_port {
            Some(only_port) if only_port != port => Flow::Pass,
            _ => self.reply_flow,
        }
    }

    fn drops(&self, reply: &[u8]) -> bool {
        self.dropped_replies.is_some_and(|pattern| contains(reply, pattern))
    }
}

/// Forwards one connection. The client of the proxy is the server under test.
async fn forward(
    client: TcpStream,
    mut target: watch::Receiver<PathBuf>,
    state: watch::Sender<State>,
    log: Option<Statements>,
) {
    if state.borrow().request_flow == Flow::Cut {
        return;
    }
    let socket = target.borrow_and_update().clone();
    let Ok(store) = UnixStream::connect(&socket).await else { return };
    let Ok(port) = client.peer_addr().map(|peer| peer.port()) else { return };
    let ((mut from_client, mut to_client), (mut from_store, mut to_store)) =
        (client.into_split(), store.into_split());
    let requests = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut parser = StatementParser::default();
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if let Some(log) = &log {
                let statements = parser.parse(&buffer[..read]);
                let count = statements.iter().filter(|sql| !is_background(sql)).count();
                count_down(&state, count, port);
                log.lock().expect("no panic").extend(statements);
            }
            start_triggered_fault(&state, &buffer[..read], port);
            if !may_pass(&state, |state| state.request_flow).await
                || to_store.write_all(&buffer[..read]).await.is_err()
            {
                return;
            }
        }
    };
    let replies = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_store.read(&mut buffer).await {
            if state.borrow().drops(&buffer[..read]) {
                continue;
            }
            let offset_ms = state.borrow().clock_offset_ms;
            if offset_ms != 0 {
                shift_times(&mut buffer[..read], offset_ms);
            }
            if !may_pass(&state, |state| state.reply_flow_of(port)).await
                || to_client.write_all(&buffer[..read]).await.is_err()
            {
                return;
            }
        }
    };
    let mut changes = state.subscribe();
    let cut = changes.wait_for(|state| state.request_flow == Flow::Cut);
    tokio::select! {
        // `requests` first forwards the bytes that the client wrote before it disconnected.
        () = requests => {}
        () = replies => {}
        _ = cut => {}
        _ = target.changed() => {}
    }
}

/// Shifts each integer with 13 digits in a reply of Redis. Such an integer is a time in
/// milliseconds since 1970.
fn shift_times(reply: &mut [u8], offset_ms: i64) {
    for start in 0..reply.len().saturating_sub(14) {
        if reply[start] != b':' || reply[start + 14] != b'\r' {
            continue;
        }
        let digits = &mut reply[start + 1..start + 14];
        let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<i64>().ok());
        if let Some(number) = number {
            digits.copy_from_slice((number + offset_ms).to_string().as_bytes());
        }
    }
}

fn contains(bytes: &[u8], pattern: &[u8]) -> bool {
    memmem::find(bytes, pattern).is_some()
}

/// Starts the fault of [`Proxy::fault_when_sent`] if the sent bytes contain the chosen bytes.
fn start_triggered_fault(state: &watch::Sender<State>, sent: &[u8], port: u16) {
    state.send_if_modified(|state| {
        let Some((pattern, fault)) = &state.trigger else { return false };
        let fault = *fault;
        if !contains(sent, pattern) {
            return false;
        }
        state.start(fault, port);
        state.trigger = None;
        true
    });
}

/// Counts statements, and starts the fault of [`Proxy::fault_at_statement`] at the chosen
/// statement.
fn count_down(state: &watch::Sender<State>, statement_count: usize, port: u16) {
    state.send_if_modified(|state| {
        let Some((statements_left, fault)) = state.countdown else { return false };
        if statement_count < statements_left {
            state.countdown = Some((statements_left - statement_count, fault));
            return false;
        }
        state.countdown = None;
        state.start(fault, port);
        true
    });
}

fn is_background(sql: &str) -> bool {
    BACKGROUND_STATEMENTS.iter().any(|part| sql.contains(part))
}

/// Waits while the direction is held. Returns false when the direction is cut.
async fn may_pass(state: &watch::Sender<State>, flow: impl Fn(&State) -> Flow) -> bool {
    state.send_if_modified(|state| {
        let is_first = flow(state) == Flow::Hold && !state.has_held_bytes;
        state.has_held_bytes |= is_first;
        is_first
    });
    let mut changes = state.subscribe();
    let state = changes.wait_for(|state| flow(state) != Flow::Hold).await;
    state.is_ok_and(|state| flow(&state) == Flow::Pass)
}
