//! Accepts connections.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// The maximum number of concurrent handshakes. Further connections wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 1_000;

/// The pause after `accept` failed for lack of file descriptors. No event reports a free descriptor, and a loop without
/// a pause would use a whole core.
const PAUSE_WITHOUT_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`, and yields those whose handshake succeeds `within` this time.
///
/// Each handshake runs in its own task, so a slow one does not delay others. A failed one closes only its own
/// connection.
pub(crate) fn accept<C, F>(
    listener: TcpListener,
    stop: CancellationToken,
    within: Duration,
    handshake: impl Fn(TcpStream) -> F + Send + 'static,
) -> ReceiverStream<io::Result<C>>
where
    C: Send + 'static,
    F: Future<Output = io::Result<C>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sender.closed() => return,
                Some(ended) = handshakes.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "a handshake panicked");
                },
                accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => match accepted {
                    Ok((socket, peer)) => {
                        // Answers are small, so Nagle's algorithm would delay them. A failure here only makes them
                        // late.
                        let _ = socket.set_nodelay(true);
                        let (connecting, sender) = (timeout(within, handshake(socket)), sender.clone());
                        handshakes.spawn(async move {
                            match connecting.await {
                                // Sending fails only when the scaler stops.
                                Ok(Ok(connection)) => drop(sender.send(Ok(connection)).await),
                                Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake failed"),
                                Err(_) => tracing::debug!(%peer, ?within, "a handshake took too long"),
                            }
                        });
                    }
                    Err(error) if affects_one_connection(&error) => {
                        tracing::debug!(%error, "a connection was closed before it was accepted");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection can be accepted");
                        sleep(PAUSE_WITHOUT_DESCRIPTORS).await;
                    }
                },
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// The handshake of plain HTTP/2. It waits for the first byte, because the client must send first.
pub(crate) async fn first_byte(socket: TcpStream) -> io::Result<TcpStream> {
    match socket.peek(&mut [0]).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(socket),
    }
}

fn affects_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_silent_connection_delays_no_other_and_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut accepted = accept(listener, stop.clone(), Duration::from_secs(2), first_byte);
        let silent = TcpStream::connect(address).await.unwrap();
        let mut sending = TcpStream::connect(address).await.unwrap();
        sending.write_all(b"PRI").await.unwrap();
        let connection = accepted.next().await.unwrap().unwrap();
        assert_eq!(connection.peer_addr().unwrap(), sending.local_addr().unwrap());

        // The scaler has closed the silent connection.
        assert_eq!(silent.peek(&mut [0]).await.unwrap(), 0);

        stop.cancel();
        assert!(accepted.next().await.is_none());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
