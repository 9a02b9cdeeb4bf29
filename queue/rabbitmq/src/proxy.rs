//! A TCP proxy whose connections a test can cut, as when a process is killed with `kill -9`.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

/// Carries bytes between a port of its own and a server's.
pub(crate) struct Proxy {
    port: u16,
    accepting: tokio::task::JoinHandle<()>,
    connections: Arc<Mutex<JoinSet<()>>>,
    accepts: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(host: &str, port: u16) -> Self {
        let server = (host.to_owned(), port);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let accepts = watch::Sender::new(true);
        let accepting = tokio::spawn({
            let (connections, accepts) = (Arc::clone(&connections), accepts.subscribe());
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    let mut connections = connections.lock().await;
                    if *accepts.borrow() {
                        connections.spawn(carry(client, server.clone()));
                    }
                }
            }
        });
        Self { port, accepting, connections, accepts }
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection.
    pub(crate) async fn sever(&self) {
        self.connections.lock().await.shutdown().await;
    }

    /// Cuts every connection, and accepts no further one.
    pub(crate) async fn close(&self) {
        self.accepts.send_replace(false);
        self.sever().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, server: (String, u16)) {
    // When the server cannot be reached or closes its connection, the connection of the client is closed too.
    if let Ok(mut server) = TcpStream::connect(server).await {
        // Otherwise small messages would wait for each other.
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}
