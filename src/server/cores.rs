//! Runs one single-threaded runtime per core and distributes connections among them.
//!
//! A call stays on the core of its connection, so the call needs no work stealing, wake-up or lock
//! across cores. All cores share the caches and the connections to Postgres and Redis.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, Handle},
    sync::{mpsc, oneshot, watch},
    time,
};

use super::{
    connection::{self, ConnectionContext, wait_until_stopping},
    connection_limiter::{ConnectionLimiter, OpenConnection},
};

/// Pause after a failed accept, for example when the process has no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time without traffic after which the operating system probes the peer (TCP keepalive).
const KEEPALIVE_TIME: Duration = Duration::from_mins(1);

/// The runtimes of all cores. Dropping the value stops them.
pub(super) struct Cores {
    runtimes: Vec<Core>,
    connection_limiter: ConnectionLimiter,
    /// Tells the connections to accept no more calls. The channel is closed when all connections
    /// have ended.
    stopping: watch::Sender<bool>,
}

struct Core {
    handle: Handle,
    sender: mpsc::UnboundedSender<AcceptedConnection>,
    /// The number of connections that this core serves.
    connection_count: Arc<AtomicUsize>,
    /// The runtime runs until this value is dropped, even when it serves no connection: other
    /// threads use the connections to Postgres and Redis that it opened.
    _keep_alive: oneshot::Sender<()>,
}

struct AcceptedConnection {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    /// Count the connection in total and for its core, until it has ended.
    counts: (OpenConnection, CoreCount),
}

/// Counts a connection of a core until this value is dropped.
struct CoreCount(Arc<AtomicUsize>);

impl Drop for CoreCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cores {
    /// Starts the runtimes.
    ///
    /// # Errors
    /// When the operating system cannot start a thread or a runtime.
    pub(super) fn start(
        count: usize,
        connection_limiter: ConnectionLimiter,
        context: &Arc<ConnectionContext>,
    ) -> anyhow::Result<Self> {
        let stopping = watch::Sender::new(false);
        let start = |number| Core::start(number, context.clone(), stopping.subscribe());
        let runtimes = (0..count).map(start).collect::<anyhow::Result<_>>()?;
        Ok(Self { runtimes, connection_limiter, stopping })
    }

    /// The runtimes of all cores.
    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        self.runtimes.iter().map(|core| core.handle.clone())
    }

    /// Accepts connections while the future is polled, and gives each connection to the core with
    /// the fewest connections.
    pub(super) async fn accept(&self, listener: &TcpListener) {
        loop {
            let accepted = listener.accept().await.and_then(|(stream, peer)| {
                // Responses are small, and waiting to fill a packet (Nagle) costs 40 ms.
                stream.set_nodelay(true)?;
                // HTTP/2 has pings. On HTTP/1 only TCP keepalive detects a lost peer.
                SockRef::from(&stream)
                    .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_TIME))?;
                Ok((stream.into_std()?, peer))
            });
            match accepted {
                Ok((stream, peer)) => self.assign(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn assign(&self, stream: std::net::TcpStream, peer: SocketAddr) {
        // A connection above the limit is closed without a response, because a response would cost
        // resources.
        let Some(open_connection) = self.connection_limiter.try_open(peer.ip()) else { return };
        let connection_count = |core: &&Core| core.connection_count.load(Ordering::Relaxed);
        let Some(core) = self.runtimes.iter().min_by_key(connection_count) else { return };
        core.connection_count.fetch_add(1, Ordering::Relaxed);
        let counts = (open_connection, CoreCount(core.connection_count.clone()));
        if core.sender.send(AcceptedConnection { stream, peer, counts }).is_err() {
            tracing::error!("a core accepts no more connections");
        }
    }

    /// Stops new calls on all connections. Completes when all connections have ended.
    pub(super) fn drain(&self) -> impl Future<Output = ()> {
        self.stopping.send_replace(true);
        self.stopping.closed()
    }
}

impl Core {
    fn start(
        number: usize,
        context: Arc<ConnectionContext>,
        stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("can't start a runtime")?;
        let handle = runtime.handle().clone();
        let (sender, receiver) = mpsc::unbounded_channel();
        let (keep_alive, keep_alive_dropped) = oneshot::channel();
        let run = async move {
            tokio::spawn(serve_connections(receiver, context, stopping));
            keep_alive_dropped.await.ok();
        };
        thread::Builder::new()
            .name(format!("core-{number}"))
            .spawn(move || runtime.block_on(run))
            .context("can't start a thread")?;
        Ok(Self { handle, sender, connection_count: Arc::default(), _keep_alive: keep_alive })
    }
}

/// Serves each connection that is assigned to this core.
async fn serve_connections(
    mut receiver: mpsc::UnboundedReceiver<AcceptedConnection>,
    context: Arc<ConnectionContext>,
    stopping: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = receiver.recv() => accepted,
            () = wait_until_stopping(stopping.clone()) => return,
        };
        let Some(AcceptedConnection { stream, peer, counts }) = accepted else { return };
        let (context, stopping) = (context.clone(), stopping.clone());
        tokio::spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => connection::serve(stream, peer, context, stopping).await,
                Err(error) => tracing::warn!(%error, "a connection can't be served"),
            }
            drop(counts);
        });
    }
}
