//! A TCP relay between client and server that can fail.

use std::net::SocketAddr;

use tokio::{
    io::{copy, copy_bidirectional, sink},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Relays connections to a server, or closes each connection.
pub struct Relay {
    pub addr: SocketAddr,
    destination: watch::Sender<Destination>,
    ended_count: watch::Sender<usize>,
    _task: JoinSet<()>,
}

/// Where the relay sends the bytes of a connection.
#[derive(Clone, Copy, Default)]
enum Destination {
    #[default]
    Closed,
    Server(SocketAddr),
    /// Requests arrive at the server, but the responses are lost.
    ServerWithoutResponses(SocketAddr),
}

impl Relay {
    /// Starts a relay that closes every connection, until the relay gets a destination.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (destination, ended_count) =
            (watch::Sender::new(Destination::default()), watch::Sender::new(0));
        let mut task = JoinSet::new();
        let (shared_destination, shared_count) = (destination.clone(), ended_count.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (mut changes, count) = (shared_destination.subscribe(), shared_count.clone());
                connections.spawn(async move {
                    let destination = *changes.borrow_and_update();
                    tokio::select! {
                        () = relay_connection(client, destination) => {}
                        _ = changes.changed() => {}
                    }
                    count.send_modify(|count| *count += 1);
                });
            }
        });
        Self { addr, destination, ended_count, _task: task }
    }

    /// Number of connections that have ended.
    pub fn ended_connections(&self) -> usize {
        *self.ended_count.borrow()
    }

    /// From now on, relays to this server. Existing connections end.
    pub fn relay_to(&self, server: SocketAddr) {
        self.destination.send_replace(Destination::Server(server));
    }

    /// From now on, relays to this server and loses the responses. Existing connections end.
    pub fn lose_responses_of(&self, server: SocketAddr) {
        self.destination.send_replace(Destination::ServerWithoutResponses(server));
    }
}

async fn relay_connection(mut client: TcpStream, destination: Destination) {
    let (Destination::Server(server) | Destination::ServerWithoutResponses(server)) = destination
    else {
        return;
    };
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    match destination {
        Destination::ServerWithoutResponses(_) => {
            let ((mut from_client, _to_client), (mut from_server, mut to_server)) =
                (client.split(), server.split());
            let mut discarded = sink();
            let lost_responses = copy(&mut from_server, &mut discarded);
            tokio::join!(copy(&mut from_client, &mut to_server), lost_responses).0.ok();
        }
        _ => copy_bidirectional(&mut client, &mut server).await.map(drop).unwrap_or_default(),
    }
}
