//! A TCP proxy between a replica and a store, or between two servers of a store, that injects
//! network faults.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use crate::stores::StoreAddress;

/// What the proxy does with the bytes of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Forwards the bytes.
    Pass,
    /// Closes all connections, and every new connection.
    Cut,
    /// Keeps the bytes until the flow changes. A new connection is accepted and gets no answer.
    Hold,
    /// Forwards each piece of data after this delay.
    Slow(Duration),
}

/// A running proxy. It ends when it is dropped.
pub struct Proxy {
    addr: SocketAddr,
    flow: watch::Sender<Flow>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy to a store on a free port of the loopback interface.
    ///
    /// # Errors
    /// Returns an error when no port is free.
    pub async fn start(target: StoreAddress) -> anyhow::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), target).await
    }

    /// Starts a proxy to a store at an address.
    ///
    /// # Errors
    /// Returns an error when the port is in use.
    pub async fn start_at(listen: SocketAddr, target: StoreAddress) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let flow = watch::Sender::new(Flow::Pass);
        let receiver = flow.subscribe();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, target.clone(), receiver.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { addr, flow, _task: task })
    }

    /// The address and port at which the proxy listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn set_flow(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

/// Forwards one connection until the client or the store closes it, or the proxy cuts it.
async fn forward(client: TcpStream, target: StoreAddress, mut flow: watch::Receiver<Flow>) {
    if flow.wait_for(|flow| *flow != Flow::Hold).await.is_ok_and(|flow| *flow == Flow::Cut) {
        return;
    }
    client.set_nodelay(true).ok();
    let mut cut = flow.clone();
    let forwarded = async {
        match target {
            StoreAddress::Unix(path) => {
                let Ok(store) = UnixStream::connect(path).await else { return };
                let (from_client, to_client) = client.into_split();
                let (from_store, to_store) = store.into_split();
                join(copy(from_client, to_store, &flow), copy(from_store, to_client, &flow)).await;
            }
            StoreAddress::Tcp(address) => forward_tcp(client, &address, &flow).await,
            StoreAddress::Leader(leader) => {
                let address = leader.borrow().clone();
                forward_tcp(client, &address, &flow).await;
            }
        }
    };
    tokio::select! {
        () = forwarded => {}
        _ = cut.wait_for(|flow| *flow == Flow::Cut) => {}
    }
}

async fn forward_tcp(client: TcpStream, address: &str, flow: &watch::Receiver<Flow>) {
    let Ok(store) = TcpStream::connect(address).await else { return };
    store.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_store, to_store) = store.into_split();
    join(copy(from_client, to_store, flow), copy(from_store, to_client, flow)).await;
}

/// Waits until one direction ends. Then the caller closes the whole connection.
async fn join(requests: impl Future<Output = ()>, replies: impl Future<Output = ()>) {
    tokio::select! {
        () = requests => {}
        () = replies => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    flow: &watch::Receiver<Flow>,
) {
    let mut flow = flow.clone();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(now) = flow.wait_for(|flow| *flow != Flow::Hold).await.map(|flow| *flow) else {
            return;
        };
        if let Flow::Slow(delay) = now {
            sleep(delay).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
