//! A network between client and server that may be away.

use std::net::SocketAddr;

use tokio::{
    io::{copy, copy_bidirectional, sink},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Passes connections on to a server, or ends each as it comes.
pub struct Relay {
    pub addr: SocketAddr,
    target: watch::Sender<Way>,
    ended: watch::Sender<usize>,
    _task: JoinSet<()>,
}

/// Where connections go.
#[derive(Clone, Copy, Default)]
enum Way {
    #[default]
    Nowhere,
    To(SocketAddr),
    /// There, and nothing comes back.
    OneWayTo(SocketAddr),
}

impl Relay {
    /// A network that leads nowhere yet.
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

    /// The connections that have ended.
    pub fn ended(&self) -> usize {
        *self.ended.borrow()
    }

    /// Leads to this server from now on; connections to another end.
    pub fn leads_to(&self, server: SocketAddr) {
        self.target.send_replace(Way::To(server));
    }

    /// From now on what this server answers gets lost; connections that are there end.
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
