//! The connection itself: which addresses a secret may travel to, TLS, and bounded replies.

use crate::{edge, fail::Failure};
use reqwest::Response;
use std::time::Duration;
use url::{Host, Url};

/// How long a connection may take to open.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// The innermost reason: it names the cause, and never repeats headers or bodies.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    proto::text::harmless(&inner.to_string())
}

/// Reads an address that a secret may travel to: https, or plain http to this machine.
pub(crate) fn web_address(text: &str, what: &str) -> Result<Url, Failure> {
    let url = Url::parse(text).map_err(|e| {
        Failure::usage(
            format!(
                "The {what} '{}' is no URL: {e}.",
                proto::text::harmless(text)
            ),
            "Give it like https://broker.example.org.",
        )
    })?;
    let safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    if !safe || url.host().is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::usage(
            format!("The {what} is not an https address."),
            "Use https; plain http works with this machine's own address only, and no URL carries a password.",
        ));
    }
    Ok(url)
}

/// Whether an address is this machine's own.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(a)) => a.is_loopback(),
        Some(Host::Ipv6(a)) => a.is_loopback(),
        None => false,
    }
}

/// The HTTP client for one address.
pub(crate) fn build(url: &Url, ca: Option<&std::path::Path>) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIME)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        // The system's certificates take longer to load than the call itself.
        builder = builder.tls_certs_only([]);
    } else if let Some(path) = ca {
        let pem = edge::read_capped(path, 1 << 20)?;
        let certs = reqwest::Certificate::from_pem_bundle(&pem)
            .ok()
            .filter(|c| !c.is_empty())
            .ok_or_else(|| {
                Failure::usage(
                    format!("{} holds no PEM certificate.", path.display()),
                    "Point COUNTERSIGN_CA at the CA's certificate in PEM form.",
                )
            })?;
        builder = builder.tls_certs_only(certs);
    }
    builder.build().map_err(|e| {
        Failure::failed(
            format!("TLS could not be set up: {}.", cause(&e)),
            "Check the system's CA certificates, or set COUNTERSIGN_CA.",
        )
    })
}

/// Writes a reply to a file as it comes; returns its bytes.
pub(crate) async fn copy(
    mut response: Response,
    to: &mut impl std::io::Write,
) -> Result<u64, Failure> {
    let announced = response.content_length();
    let mut bytes = 0;
    loop {
        let chunk = response.chunk().await.map_err(|e| {
            Failure::unreachable(
                format!("The reply broke off: {}.", cause(&e)),
                "Run the command again.",
            )
        })?;
        let Some(chunk) = chunk else { break };
        bytes += chunk.len() as u64;
        to.write_all(&chunk)
            .map_err(|e| Failure::file(std::path::Path::new("the file"), &e))?;
    }
    if announced.is_some_and(|announced| announced != bytes) {
        return Err(Failure::unreachable(
            "The reply broke off.",
            "Run the command again.",
        ));
    }
    Ok(bytes)
}

/// Reads a reply of at most `max` bytes, so that nobody can fill the memory.
pub(crate) async fn read(mut response: Response, max: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|e| {
            Failure::unreachable(
                format!("The reply broke off: {}.", cause(&e)),
                "Run the command again.",
            )
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > max {
            return Err(Failure::failed(
                format!("The reply is larger than {max} bytes."),
                "Check the broker's address.",
            ));
        }
        body.extend_from_slice(&chunk);
    }
}
