//! A network between client and server that may be away.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Passes connections on to a server, or ends each as it comes.
pub struct Relay {
    pub addr: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    ended: watch::Sender<usize>,
    _task: JoinSet<()>,
}

impl Relay {
    /// A network that leads nowhere yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (target, ended) = (watch::Sender::new(None), watch::Sender::new(0));
        let mut task = JoinSet::new();
        let (to, count) = (target.clone(), ended.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (mut to, count) = (to.subscribe(), count.clone());
                connections.spawn(async move {
                    let server = *to.borrow_and_update();
                    tokio::select! {
                        () = pass_on(client, server) => {}
                        _ = to.changed() => {}
                    }
                    count.send_modify(|count| *count += 1);
                });
            }
        });
        Self { addr, target, ended, _task: task }
    }

    /// The connections that have ended.
    pub fn ended(&self) -> usize {
        *self.ended.borrow()
    }

    /// Leads to this server from now on; connections to another end.
    pub fn leads_to(&self, server: SocketAddr) {
        self.target.send_replace(Some(server));
    }
}

async fn pass_on(mut client: TcpStream, server: Option<SocketAddr>) {
    let Some(server) = server else { return };
    if let Ok(mut server) = TcpStream::connect(server).await {
        copy_bidirectional(&mut client, &mut server).await.ok();
    }
}
