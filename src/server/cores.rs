//! One single-threaded runtime per core, and connections dealt out among them.
//!
//! A call stays on the core that its connection was given to: nothing is stolen,
//! woken or locked across cores on its way. What is shared, memory and the stores'
//! connections, all of them reach.

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

/// How long to wait where the system has no more connections to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a peer may be quiet before the system asks whether it is there.
const QUIET: Duration = Duration::from_mins(1);

/// The cores' runtimes, at work until dropped.
pub(super) struct Cores {
    all: Vec<Core>,
    open: Connections,
    /// Tells connections to take no more calls, and is closed once all have ended.
    stopping: watch::Sender<bool>,
}

struct Core {
    connections: mpsc::UnboundedSender<Accepted>,
    open: Arc<AtomicUsize>,
    /// Keeps the runtime at work: what it opened others may use.
    _kept: oneshot::Sender<()>,
}

struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    counted: (Open, OnCore),
}

/// Counts a core's connection for as long as it is there.
struct OnCore(Arc<AtomicUsize>);

impl Drop for OnCore {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cores {
    /// Starts the runtimes.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
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

    /// Accepts connections for as long as it is polled, and gives each to the core
    /// that has the fewest.
    pub(super) async fn accept(&self, listener: &TcpListener) {
        loop {
            let accepted = listener.accept().await.and_then(|(stream, peer)| {
                // Answers are small: waiting to fill a packet costs 40 ms.
                stream.set_nodelay(true)?;
                // HTTP/2 pings; HTTP/1 has nothing that finds a peer that is gone.
                SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(QUIET))?;
                Ok((stream.into_std()?, peer))
            });
            match accepted {
                Ok((stream, peer)) => self.deal(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn deal(&self, stream: std::net::TcpStream, peer: SocketAddr) {
        // Who is too many hears nothing: a reason would cost what it is about.
        let Some(open) = self.open.open(peer.ip()) else { return };
        let core = self.all.iter().min_by_key(|core| core.open.load(Ordering::Relaxed));
        let Some(core) = core else { return };
        core.open.fetch_add(1, Ordering::Relaxed);
        let accepted = Accepted { stream, peer, counted: (open, OnCore(core.open.clone())) };
        if core.connections.send(accepted).is_err() {
            tracing::error!("a core takes no connections any more");
        }
    }

    /// Lets no connection take another call; completes once all of them have ended.
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
        let (kept, dropped) = oneshot::channel();
        let work = async move {
            tokio::spawn(take(accepted, entry, stopping));
            dropped.await.ok();
        };
        thread::Builder::new()
            .name(format!("core-{number}"))
            .spawn(move || runtime.block_on(work))
            .context("can't start a thread")?;
        Ok(Self { connections, open: Arc::default(), _kept: kept })
    }
}

/// Serves each connection that is dealt to this core.
async fn take(
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    entry: Arc<Entry>,
    stopping: watch::Receiver<bool>,
) {
    loop {
        let next = tokio::select! {
            next = accepted.recv() => next,
            () = stopped(stopping.clone()) => return,
        };
        let Some(Accepted { stream, peer, counted }) = next else { return };
        let (entry, stopping) = (entry.clone(), stopping.clone());
        tokio::spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => connection::serve(stream, peer, entry, stopping).await,
                Err(error) => tracing::warn!(%error, "a connection can't be served"),
            }
            drop(counted);
        });
    }
}
