//! Takes connections in.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// So many connections may be in their handshake; the next ones wait in the kernel's queue.
const MOST_HANDSHAKES: usize = 1_000;

/// Nothing signals that a file descriptor is free again, and without a pause asking for one would take a whole core.
const PAUSE_WITHOUT_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`, and yields those whose handshake succeeds `within` this time.
///
/// Each handshake is a task of its own: it holds up no other, and when it fails it closes its own connection only.
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
                accepted = listener.accept(), if handshakes.len() < MOST_HANDSHAKES => match accepted {
                    Ok((socket, peer)) => {
                        // Answers are small and awaited; that it could not be said makes them late, not wrong.
                        let _ = socket.set_nodelay(true);
                        let (made, sender) = (timeout(within, handshake(socket)), sender.clone());
                        handshakes.spawn(async move {
                            match made.await {
                                // Nobody takes it: the scaler stops.
                                Ok(Ok(connection)) => drop(sender.send(Ok(connection)).await),
                                Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake failed"),
                                Err(_) => tracing::debug!(%peer, ?within, "a handshake took too long"),
                            }
                        });
                    }
                    Err(error) if is_of_one_connection(&error) => tracing::debug!(%error, "a connection is lost"),
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

/// The handshake of plain HTTP/2: the client speaks first, so one that is silent has no business here.
pub(crate) async fn first_word(socket: TcpStream) -> io::Result<TcpStream> {
    match socket.peek(&mut [0]).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(socket),
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_silent_connection_holds_up_no_other_and_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut accepted = accept(listener, stop.clone(), Duration::from_secs(2), first_word);
        let silent = TcpStream::connect(address).await.unwrap();
        let mut speaking = TcpStream::connect(address).await.unwrap();
        speaking.write_all(b"PRI").await.unwrap();
        let connection = accepted.next().await.unwrap().unwrap();
        assert_eq!(connection.peer_addr().unwrap(), speaking.local_addr().unwrap());

        // Closed by the other side.
        assert_eq!(silent.peek(&mut [0]).await.unwrap(), 0);

        stop.cancel();
        assert!(accepted.next().await.is_none());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
