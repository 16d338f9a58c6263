//! The one way out for notifications. Their addresses come from people's browsers and devices, so they are not
//! believed: a server must stand in the configuration, and the very address that is connected to must be a public
//! one. An origin that the configuration spells out, with scheme and port, is taken literally, wherever it lies.
//! No redirect is followed, no proxy variable is read, and no answer's body.
//!
//! Without this, whoever may add a channel could have the broker call servers that only its machine can reach
//! (attack 39).

use http::{HeaderMap, StatusCode};
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use url::{Host, Url};

/// For a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// For the whole of a POST and its answer.
const WHOLE: Duration = Duration::from_secs(10);

/// A host that the configuration allows: `push.example.net`, or `*.example.net` for every name below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    name: String,
    below: bool,
}

impl HostPattern {
    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // An address in place of a name would never be resolved, and so never be judged.
        let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        let plain = name.bytes().all(letters)
            && matches!(Host::parse(name), Ok(Host::Domain(host)) if host == name);
        // `*.net` would be the whole world.
        (plain && (!below || name.contains('.'))).then(|| Self {
            name: name.to_owned(),
            below,
        })
    }

    fn fits(&self, host: &str) -> bool {
        if self.below {
            host.strip_suffix(&self.name)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.name
        }
    }
}

/// One POST.
pub struct Post {
    /// Where to.
    pub url: Url,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why nothing was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotSent {
    /// The configuration does not name the server.
    #[error("its server is not one that the broker's configuration allows ([push] hosts, origins)")]
    NotAllowed,
    /// The name leads to this machine or a private network.
    #[error("its server has no public address")]
    NotPublic,
    /// No connection, or it broke.
    #[error("its server could not be reached")]
    Unreachable,
    /// It took too long.
    #[error("its server did not answer in time")]
    TimedOut,
    /// The subscription is over.
    #[error("its server says that this address is no more")]
    Gone,
    /// Something else than yes.
    #[error("its server answered with status {0}")]
    Status(u16),
}

/// The egress could not be made.
#[derive(Debug, Error)]
#[error("the HTTPS client for notifications could not be made")]
pub struct NoClient;

/// The way out.
pub struct Egress {
    hosts: Vec<HostPattern>,
    origins: Vec<url::Origin>,
    /// Connects to public addresses only.
    outside: Client,
    /// Connects to the origins that the configuration spells out.
    named: Client,
}

impl Egress {
    /// What the configuration allows; nothing at all where it is silent.
    pub fn new(hosts: Vec<HostPattern>, origins: &[Url]) -> Result<Self, NoClient> {
        let client = || {
            Client::builder()
                .no_proxy()
                .redirect(Policy::none())
                .connect_timeout(CONNECT)
                .timeout(WHOLE)
                .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        };
        let outside = client().https_only(true).dns_resolver(Arc::new(Public));
        Ok(Self {
            hosts,
            origins: origins.iter().map(Url::origin).collect(),
            outside: outside.build().map_err(|_| NoClient)?,
            named: client().build().map_err(|_| NoClient)?,
        })
    }

    /// What is allowed, for people.
    pub fn allowed(&self) -> Vec<String> {
        let hosts = self.hosts.iter();
        let hosts = hosts.map(|h| format!("https://{}{}", if h.below { "*." } else { "" }, h.name));
        let origins = self.origins.iter().map(url::Origin::ascii_serialization);
        hosts.chain(origins).collect()
    }

    /// Whether a server may be called, and by which client.
    pub fn allows(&self, url: &Url) -> Result<(), NotSent> {
        self.client(url).map(drop)
    }

    fn client(&self, url: &Url) -> Result<&Client, NotSent> {
        if self.origins.contains(&url.origin()) {
            return Ok(&self.named);
        }
        let listed = match url.host() {
            Some(Host::Domain(host)) => self.hosts.iter().any(|h| h.fits(host)),
            _ => false,
        };
        if listed && url.scheme() == "https" && url.port().is_none() {
            return Ok(&self.outside);
        }
        Err(NotSent::NotAllowed)
    }

    /// Sends. The address is judged each time: the configuration may have changed since it was added.
    pub async fn post(&self, post: Post) -> Result<(), NotSent> {
        let client = self.client(&post.url)?;
        send(client, post).await
    }
}

async fn send(client: &Client, post: Post) -> Result<(), NotSent> {
    let call = client.post(post.url).headers(post.headers).body(post.body);
    let reply = call.send().await.map_err(|e| failed(&e))?;
    match reply.status() {
        status if status.is_success() => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(NotSent::Gone),
        status => Err(NotSent::Status(status.as_u16())),
    }
}

/// The library's error names the address: only its kind is kept.
fn failed(e: &reqwest::Error) -> NotSent {
    let mut cause: Option<&dyn std::error::Error> = Some(e);
    while let Some(error) = cause {
        if error.is::<NotPublic>() {
            return NotSent::NotPublic;
        }
        cause = error.source();
    }
    if e.is_timeout() {
        NotSent::TimedOut
    } else {
        NotSent::Unreachable
    }
}

#[derive(Debug, Error)]
#[error("no public address")]
struct NotPublic;

/// Resolves names to public addresses only. What is judged here is what is connected to: a name that leads
/// elsewhere a moment later (DNS rebinding) is not asked for again in between.
struct Public;

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            let public: Vec<_> = found.filter(|a| is_public(a.ip())).collect();
            if public.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is out in the world (IANA's special-purpose registries). What is not known to be is not.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3; all else (loopback, link-local, mapped and translated IPv4) is not.
    let special = match a {
        // Protocol assignments, Teredo among them, and documentation; 6to4; documentation.
        0x2001 => b < 0x0200 || b == 0x0db8,
        0x2002 | 0x3fff => true,
        _ => false,
    };
    (0x2000..0x4000).contains(&a) && !special
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn egress(hosts: &[&str], origins: &[&str]) -> Egress {
        let hosts = hosts.iter().map(|h| HostPattern::parse(h).unwrap());
        let origins: Vec<_> = origins.iter().map(|o| Url::parse(o).unwrap()).collect();
        Egress::new(hosts.collect(), &origins).unwrap()
    }

    #[test]
    fn attack_39_only_servers_of_the_configuration_are_called() {
        let e = egress(
            &["push.example.net", "*.notify.example.com"],
            &["http://127.0.0.1:2586", "https://ntfy.intern:8443"],
        );
        let allows = |url: &str| e.allows(&Url::parse(url).unwrap()).is_ok();
        for good in [
            "https://push.example.net/a",
            "https://PUSH.example.net:443/a",
            "https://db5.notify.example.com/w?token=x",
            "http://127.0.0.1:2586/topic",
            "https://ntfy.intern:8443/topic",
        ] {
            assert!(allows(good), "{good}");
        }
        for bad in [
            "http://push.example.net/a",
            "https://push.example.net:8443/a",
            "https://push.example.net.evil.example/a",
            "https://xpush.example.net/a",
            "https://a.push.example.net/a",
            "https://push.example.net./a",
            "https://push.example.net@evil.example/a",
            "https://notify.example.com/a",
            "https://evilnotify.example.com/a",
            "https://127.0.0.1/a",
            "https://[::1]/a",
            "https://2130706433/a",
            "http://127.0.0.1:2587/topic",
            "https://127.0.0.1:2586/topic",
            "http://localhost:2586/topic",
            "https://ntfy.intern/topic",
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            "data:,x",
        ] {
            assert!(!allows(bad), "{bad}");
        }
        assert!(
            egress(&[], &[])
                .allows(&Url::parse("https://a.example/").unwrap())
                .is_err()
        );
        for bad in [
            "*",
            "*.net",
            "127.0.0.1",
            "[::1]",
            "a b",
            "",
            "https://a.example",
            "a.example:1",
            "*.*.example.net",
            "A.example",
        ] {
            assert_eq!(HostPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn attack_39_addresses_of_machines_and_private_networks_are_not_public() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "fe80::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1",
            "2a00:1450::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn attack_39_a_name_that_leads_to_this_machine_is_not_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("https://localhost:{port}/").parse().unwrap();
        let e = egress(&["localhost"], &[]);
        let post = Post {
            url,
            headers: HeaderMap::new(),
            body: Vec::new(),
        };
        // The client itself refuses, whatever the list lets through.
        assert_eq!(send(&e.outside, post).await, Err(NotSent::NotPublic));
        let nobody = futures_util::FutureExt::now_or_never(listener.accept());
        assert!(nobody.is_none(), "somebody connected");
    }

    #[tokio::test]
    async fn attack_39_a_redirect_is_an_answer_and_is_not_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .route(
                "/here",
                axum::routing::post(|| async {
                    (StatusCode::TEMPORARY_REDIRECT, [("location", "/there")])
                }),
            )
            .route("/there", axum::routing::post(|| async { StatusCode::OK }));
        let served = tokio::spawn(async move { axum::serve(listener, app).await });
        let e = egress(&[], &[&origin]);
        let post = |path: &str| Post {
            url: format!("{origin}{path}").parse().unwrap(),
            headers: HeaderMap::new(),
            body: Vec::new(),
        };
        assert_eq!(e.post(post("/there")).await, Ok(()));
        assert_eq!(e.post(post("/here")).await, Err(NotSent::Status(307)));
        assert_eq!(e.post(post("/gone")).await, Err(NotSent::Gone));
        served.abort();
    }
}
