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
    runtime,
    sync::{mpsc, oneshot, watch},
    time,
};

use super::{
    connection::{self, Entry, stopped},
    connections::{Connections, Open},
};

/// Pause after a failed accept, for example when the process has no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time without traffic before the operating system probes the peer (TCP keepalive).
const IDLE: Duration = Duration::from_mins(1);

/// The runtimes of all cores. Dropping the value stops them.
pub(super) struct Cores {
    all: Vec<Core>,
    open: Connections,
    /// Signals connections to accept no more calls. The channel is closed when all connections have
    /// ended.
    stopping: watch::Sender<bool>,
}

struct Core {
    connections: mpsc::UnboundedSender<AcceptedConnection>,
    open: Arc<AtomicUsize>,
    /// Keeps the runtime running until this value is dropped, because other threads may use the
    /// connections that the runtime opened.
    _keep_alive: oneshot::Sender<()>,
}

struct AcceptedConnection {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    counts: (Open, CoreCount),
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
        open: Connections,
        entry: &Arc<Entry>,
    ) -> anyhow::Result<Self> {
        let stopping = watch::Sender::new(false);
        let start = |number| Core::start(number, entry.clone(), stopping.subscribe());
        let all = (0..count).map(start).collect::<anyhow::Result<_>>()?;
        Ok(Self { all, open, stopping })
    }

    /// Accepts connections while the future is polled, and gives each connection to the core with
    /// the fewest connections.
    pub(super) async fn accept(&self, listener: &TcpListener) {
        loop {
            let accepted = listener.accept().await.and_then(|(stream, peer)| {
                // Responses are small, and waiting to fill a packet (Nagle) costs 40 ms.
                stream.set_nodelay(true)?;
                // HTTP/2 has pings. On HTTP/1 only TCP keepalive detects a lost peer.
                SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(IDLE))?;
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
        let Some(open) = self.open.open(peer.ip()) else { return };
        let core = self.all.iter().min_by_key(|core| core.open.load(Ordering::Relaxed));
        let Some(core) = core else { return };
        core.open.fetch_add(1, Ordering::Relaxed);
        let accepted =
            AcceptedConnection { stream, peer, counts: (open, CoreCount(core.open.clone())) };
        if core.connections.send(accepted).is_err() {
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
        entry: Arc<Entry>,
        stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("can't start a runtime")?;
        let (connections, accepted) = mpsc::unbounded_channel();
        let (keep_alive, dropped) = oneshot::channel();
        let work = async move {
            tokio::spawn(serve_connections(accepted, entry, stopping));
            dropped.await.ok();
        };
        thread::Builder::new()
            .name(format!("core-{number}"))
            .spawn(move || runtime.block_on(work))
            .context("can't start a thread")?;
        Ok(Self { connections, open: Arc::default(), _keep_alive: keep_alive })
    }
}

/// Serves each connection that is given to this core.
async fn serve_connections(
    mut accepted: mpsc::UnboundedReceiver<AcceptedConnection>,
    entry: Arc<Entry>,
    stopping: watch::Receiver<bool>,
) {
    loop {
        let next = tokio::select! {
            next = accepted.recv() => next,
            () = stopped(stopping.clone()) => return,
        };
        let Some(AcceptedConnection { stream, peer, counts }) = next else { return };
        let (entry, stopping) = (entry.clone(), stopping.clone());
        tokio::spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => connection::serve(stream, peer, entry, stopping).await,
                Err(error) => tracing::warn!(%error, "a connection can't be served"),
            }
            drop(counts);
        });
    }
}
