//! A small HTTP/1.1 client on one keep-alive connection: the load generator shares its cores with the
//! broker, so it does no more than it must.

use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Longest reply that is read.
const REPLY_MAX: usize = 4 << 20;

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

/// One reply.
pub(crate) struct Reply {
    /// The status code.
    pub(crate) status: u16,
    /// The nonce for signed calls, if the broker gave a new one.
    pub(crate) nonce: Option<String>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The body of a success.
    pub(crate) fn ok(self) -> anyhow::Result<Vec<u8>> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        bail!(
            "status {}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        )
    }
}

impl Connection {
    /// Connects to `http://127.0.0.1:port`.
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").context("a plain URL")?;
        let address: SocketAddr = host.parse()?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            host: host.to_owned(),
            buffer: Vec::with_capacity(16 << 10),
        })
    }

    /// One call.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<Reply> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n",
            self.host,
            body.len()
        );
        for (name, value) in headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let mut sent = head.into_bytes();
        if body.len() < 64 << 10 {
            sent.extend_from_slice(body);
            self.stream.write_all(&sent).await?;
        } else {
            self.stream.write_all(&sent).await?;
            self.stream.write_all(body).await?;
        }
        self.reply().await
    }

    async fn reply(&mut self) -> anyhow::Result<Reply> {
        let (head, end) = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.buffer.get(..at).unwrap_or_default();
                break (String::from_utf8_lossy(head).into_owned(), at + 4);
            }
            self.more().await?;
        };
        let status = head
            .split(' ')
            .nth(1)
            .context("a status line")?
            .parse()
            .context("a status")?;
        let field = |name: &str| {
            head.lines().skip(1).find_map(|line| {
                let (n, value) = line.split_once(':')?;
                n.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let length: usize = field("content-length")
            .context("a reply without a length")?
            .parse()?;
        let nonce = field("dpop-nonce").map(str::to_owned);
        while self.buffer.len() < end + length {
            self.more().await?;
        }
        let body = self.buffer.get(end..end + length).unwrap_or_default();
        let body = body.to_vec();
        self.buffer.drain(..end + length);
        Ok(Reply {
            status,
            nonce,
            body,
        })
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.buffer.len() > REPLY_MAX || self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the broker closed the connection");
        }
        Ok(())
    }
}
