//! A client that costs as little as possible: one connection, kept alive, one request at a time.

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection to the gateway.
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects, to repeat a POST of `body` to `path` with `headers` (each line ending in `\r\n`).
    pub(crate) async fn open(url: &str, path: &str, headers: &str, body: &[u8]) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").context("not an http URL")?;
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let length = body.len();
        let mut request =
            format!("POST {path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {length}\r\n\r\n").into_bytes();
        request.extend_from_slice(body);
        Ok(Self { stream, request, answer: Vec::with_capacity(4096) })
    }

    /// Sends the request once; the status of the answer, whose body is read and dropped.
    pub(crate) async fn post(&mut self) -> anyhow::Result<u16> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the gateway closed the connection");
            }
            let Some(end) = self.answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.answer[..end])?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.context("no content-length")?.parse()?;
            if self.answer.len() >= end + 4 + length {
                return Ok(head.get(9..12).context("no status")?.parse()?);
            }
        }
    }
}
