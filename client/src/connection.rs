//! A connection for load generators, with the lowest possible cost. It sends one request at a time, always the same
//! one.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Why a request on a [`Connection`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The URL is not `http://HOST:PORT`.
    #[error("{0:?} is not a URL such as http://127.0.0.1:8080")]
    NotHttp(String),
    /// The connection failed.
    #[error("the connection to the gateway failed: {0}")]
    Io(#[from] io::Error),
    /// The gateway closed the connection.
    #[error("the gateway closed the connection")]
    Closed,
    /// The answer is not HTTP/1.1 with a content-length.
    #[error("the answer cannot be read: {0}")]
    Unreadable(&'static str),
}

/// One connection to a gateway, kept alive.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects, to repeat a POST of `body` to `path` with `headers` (each line ends in `\r\n`).
    pub async fn open(url: &str, path: &str, headers: &str, body: &[u8]) -> Result<Self, ConnectionError> {
        let host = url.strip_prefix("http://").ok_or_else(|| ConnectionError::NotHttp(url.to_owned()))?;
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let length = body.len();
        let mut request =
            format!("POST {path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {length}\r\n\r\n").into_bytes();
        request.extend_from_slice(body);
        Ok(Self { stream, request, answer: Vec::with_capacity(4096) })
    }

    /// Sends the request once. Returns the status of the answer; its body is read and dropped.
    pub async fn post(&mut self) -> Result<u16, ConnectionError> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(ConnectionError::Closed);
            }
            if let Some(status) = status_of(&self.answer)? {
                return Ok(status);
            }
        }
    }
}

/// The status of an answer; `None` while the answer is not complete.
fn status_of(answer: &[u8]) -> Result<Option<u16>, ConnectionError> {
    let unreadable = ConnectionError::Unreadable;
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| unreadable("its head is not text"))?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse::<usize>().ok()).ok_or(unreadable("no content-length"))?;
    if answer.len() < end + 4 + length {
        return Ok(None);
    }
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    status.map(Some).ok_or(unreadable("no status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_once_its_body_is_complete() {
        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nhi";
        assert_eq!(status_of(answer).unwrap(), Some(202));
        for length in 0..answer.len() {
            assert_eq!(status_of(&answer[..length]).unwrap(), None, "{length} bytes");
        }
        assert!(status_of(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "there is no content-length");
    }
}
