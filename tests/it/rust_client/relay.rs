//! A TCP relay between client and server that can fail.

use std::net::SocketAddr;

use tokio::{
    io::{copy, copy_bidirectional, sink},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Relays connections to a server, or closes each one.
pub struct Relay {
    pub addr: SocketAddr,
    target: watch::Sender<Way>,
    ended: watch::Sender<usize>,
    _task: JoinSet<()>,
}

/// Destination of connections.
#[derive(Clone, Copy, Default)]
enum Way {
    #[default]
    Nowhere,
    To(SocketAddr),
    /// Requests arrive at the server, but its answers are lost.
    OneWayTo(SocketAddr),
}

impl Relay {
    /// A relay that closes every connection, until it gets a destination.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (target, ended) = (watch::Sender::new(Way::default()), watch::Sender::new(0));
        let mut task = JoinSet::new();
        let (to, count) = (target.clone(), ended.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (mut to, count) = (to.subscribe(), count.clone());
                connections.spawn(async move {
                    let way = *to.borrow_and_update();
                    tokio::select! {
                        () = pass_on(client, way) => {}
                        _ = to.changed() => {}
                    }
                    count.send_modify(|count| *count += 1);
                });
            }
        });
        Self { addr, target, ended, _task: task }
    }

    /// Number of connections that have ended.
    pub fn ended(&self) -> usize {
        *self.ended.borrow()
    }

    /// From now on, relays to this server. Existing connections end.
    pub fn relay_to(&self, server: SocketAddr) {
        self.target.send_replace(Way::To(server));
    }

    /// From now on, loses the answers of this server. Existing connections end.
    pub fn loses_answers_of(&self, server: SocketAddr) {
        self.target.send_replace(Way::OneWayTo(server));
    }
}

async fn pass_on(mut client: TcpStream, way: Way) {
    let (Way::To(server) | Way::OneWayTo(server)) = way else { return };
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    match way {
        Way::OneWayTo(_) => {
            let ((mut asks, _open), (mut answers, mut asked)) = (client.split(), server.split());
            let mut nowhere = sink();
            let lost = copy(&mut answers, &mut nowhere);
            tokio::join!(copy(&mut asks, &mut asked), lost).0.ok();
        }
        _ => copy_bidirectional(&mut client, &mut server).await.map(drop).unwrap_or_default(),
    }
}
