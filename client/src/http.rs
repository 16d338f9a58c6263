//! Calls to the broker. Nothing of TLS or HTTP is set up before the first call.

use crate::{
    edge::{self, Env},
    fail::Failure,
    out::span,
};
use proto::{
    device::{Call, DeviceKey},
    problem::{Code, Problem},
    time::UnixTime,
};
use reqwest::{Method, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    cell::{OnceCell, RefCell},
    time::Duration,
};
use url::Url;

mod transport;
pub(crate) use transport::{build, cause, copy, is_loopback, read, web_address};

/// Most bytes of an ordinary reply.
const REPLY_MAX: usize = 4 << 20;
/// Most bytes of one page of the log, or of a receipt.
pub(crate) const LOG_MAX: usize = 64 << 20;
const JSON: &str = "application/json";
/// How long a file may take, with what the broker does with it.
const FILE_TIME: Duration = Duration::from_mins(6);
/// How long a backup may take, from asking for it to its last byte.
const DOWNLOAD_TIME: Duration = Duration::from_hours(2);
/// How long an ordinary call may take.
const CALL_TIME: Duration = Duration::from_secs(30);
/// How long a call may take for which somebody touches a key at the broker, twice.
const TOUCH_TIME: Duration = Duration::from_secs(150);
/// Pauses before an idempotent call is repeated that could not connect, in milliseconds.
const RETRY_PAUSES: [u64; 3] = [250, 1000, 3000];

/// Who is calling.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// Nobody in particular.
    Nobody,
    /// Whoever holds an IdToken or a ticket.
    Bearer(&'a str),
    /// A device, by its signature over the call.
    Device(&'a DeviceKey),
}

/// A broker, by its public URL.
pub(crate) struct Broker {
    base: String,
    url: Url,
    ca: Option<std::path::PathBuf>,
    client: OnceCell<reqwest::Client>,
    nonce: RefCell<String>,
}

/// One call, before it is sent.
struct Sending<'a> {
    method: Method,
    path: &'a str,
    /// The body's media type.
    kind: &'static str,
    body: Option<Vec<u8>>,
    proof: Proof<'a>,
    again: bool,
    time: Duration,
    max: usize,
}

impl<'a> Sending<'a> {
    /// An ordinary one, sent once.
    const fn new(method: Method, path: &'a str, body: Option<Vec<u8>>, proof: Proof<'a>) -> Self {
        Self {
            method,
            path,
            kind: JSON,
            body,
            proof,
            again: false,
            time: CALL_TIME,
            max: REPLY_MAX,
        }
    }
}

impl Broker {
    /// Names a broker; sends nothing.
    pub(crate) fn new(text: &str, env: &Env) -> Result<Self, Failure> {
        let url = web_address(text, "broker URL")?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Failure::usage(
                "The broker URL has a query or a fragment.",
                "Give it like https://broker.example.org.",
            ));
        }
        Ok(Self {
            base: url.as_str().trim_end_matches('/').to_owned(),
            url,
            ca: env.get("COUNTERSIGN_CA").map(Into::into),
            client: OnceCell::new(),
            nonce: RefCell::default(),
        })
    }

    /// Its public URL, without a slash at the end.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// `GET`; repeated when no connection could be made.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        proof: Proof<'_>,
    ) -> Result<T, Failure> {
        decode(&self.get_bytes(path, proof, CALL_TIME, REPLY_MAX).await?)
    }

    /// `GET` that the broker may hold for up to `hold` seconds.
    pub(crate) async fn long_poll<T: DeserializeOwned>(
        &self,
        path: &str,
        proof: Proof<'_>,
        hold: u64,
    ) -> Result<T, Failure> {
        let time = CALL_TIME + Duration::from_secs(hold);
        decode(&self.get_bytes(path, proof, time, REPLY_MAX).await?)
    }

    /// `GET` of bytes that are kept as they are.
    pub(crate) async fn get_raw(&self, path: &str, proof: Proof<'_>) -> Result<Vec<u8>, Failure> {
        self.get_bytes(path, proof, CALL_TIME * 4, LOG_MAX).await
    }

    async fn get_bytes(
        &self,
        path: &str,
        proof: Proof<'_>,
        time: Duration,
        max: usize,
    ) -> Result<Vec<u8>, Failure> {
        let call = Sending::new(Method::GET, path, None, proof);
        let again = true;
        self.send(Sending {
            again,
            time,
            max,
            ..call
        })
        .await
    }

    /// `POST` of a call that may be sent twice without harm (an idempotency key, a collect).
    pub(crate) async fn post_again<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        proof: Proof<'_>,
    ) -> Result<T, Failure> {
        decode(
            &self
                .write(Method::POST, path, Some(encode(body)?), proof, true)
                .await?,
        )
    }

    /// `POST`, sent once.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        proof: Proof<'_>,
    ) -> Result<T, Failure> {
        decode(
            &self
                .write(Method::POST, path, Some(encode(body)?), proof, false)
                .await?,
        )
    }

    /// `POST`, sent once, for which somebody may have to touch a key at the broker.
    pub(crate) async fn post_and_touch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        proof: Proof<'_>,
    ) -> Result<T, Failure> {
        let call = Sending::new(Method::POST, path, Some(encode(body)?), proof);
        let time = TOUCH_TIME;
        decode(&self.send(Sending { time, ..call }).await?)
    }

    /// `POST` whose reply says no more than that it was done; without a body when `body` is `None`.
    pub(crate) async fn post_only(
        &self,
        path: &str,
        body: Option<&impl Serialize>,
        proof: Proof<'_>,
    ) -> Result<(), Failure> {
        let body = body.map(encode).transpose()?;
        done(&self.write(Method::POST, path, body, proof, false).await?)
    }

    /// `PUT` whose reply says no more than that it was done.
    pub(crate) async fn put(
        &self,
        path: &str,
        body: &impl Serialize,
        proof: Proof<'_>,
    ) -> Result<(), Failure> {
        let body = Some(encode(body)?);
        done(&self.write(Method::PUT, path, body, proof, false).await?)
    }

    /// `PUT` of a file; the broker looks into it before it answers.
    pub(crate) async fn put_file(
        &self,
        path: &str,
        bytes: Vec<u8>,
        proof: Proof<'_>,
    ) -> Result<(), Failure> {
        let sending = Sending {
            kind: "application/octet-stream",
            again: true,
            time: FILE_TIME,
            ..Sending::new(Method::PUT, path, Some(bytes), proof)
        };
        done(&self.send(sending).await?)
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str, proof: Proof<'_>) -> Result<(), Failure> {
        done(&self.write(Method::DELETE, path, None, proof, false).await?)
    }

    async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        proof: Proof<'_>,
        again: bool,
    ) -> Result<Vec<u8>, Failure> {
        let call = Sending::new(method, path, body, proof);
        self.send(Sending { again, ..call }).await
    }

    async fn send(&self, call: Sending<'_>) -> Result<Vec<u8>, Failure> {
        let response = self.answered(&call).await?;
        if !is_yes(&response) {
            return Err(self.said_no(response, &call).await);
        }
        read(response, call.max).await
    }

    /// The reply, whatever it says, to a call that is signed as the broker wants it.
    async fn answered(&self, call: &Sending<'_>) -> Result<Response, Failure> {
        let mut response = self.connect(call).await?;
        // RFC 9449 §8: a new nonce is a reason to sign again, once; a broker that keeps asking is broken.
        let asked = self.keep_nonce(&response);
        if asked
            && response.status() == StatusCode::UNAUTHORIZED
            && matches!(call.proof, Proof::Device(_))
        {
            response = self.connect(call).await?;
            self.keep_nonce(&response);
        }
        Ok(response)
    }

    /// What a reply means that is no yes.
    async fn said_no(&self, response: Response, call: &Sending<'_>) -> Failure {
        let status = response.status();
        let told = date(&response);
        let body = match read(response, call.max).await {
            Ok(body) => body,
            Err(broken) => return broken,
        };
        if let Ok(problem) = serde_json::from_slice::<Problem>(&body) {
            return with_clocks(problem.into(), told, edge::now());
        }
        // Following a redirect would hand the ticket or the signature to an address that nobody chose.
        let next = if status.is_redirection() {
            "Give the address that the broker itself has; redirects are not followed."
        } else {
            "Check the broker's address, and whether something stands in front of it."
        };
        let f = if status.is_server_error() {
            Failure::unreachable
        } else {
            Failure::failed
        };
        f(
            format!("{} answered {status}, not as a broker does.", self.base),
            next,
        )
    }

    /// `POST` whose reply is a file, written to `to` as it comes; returns its bytes. Nothing of it counts before all
    /// of it came.
    pub(crate) async fn download(
        &self,
        path: &str,
        proof: Proof<'_>,
        to: &mut impl std::io::Write,
    ) -> Result<u64, Failure> {
        let call = Sending {
            time: DOWNLOAD_TIME,
            ..Sending::new(Method::POST, path, None, proof)
        };
        let response = self.answered(&call).await?;
        if !is_yes(&response) {
            return Err(self.said_no(response, &call).await);
        }
        copy(response, to).await
    }

    async fn connect(&self, call: &Sending<'_>) -> Result<Response, Failure> {
        let url = format!("{}{}", self.base, call.path);
        let mut pauses = RETRY_PAUSES.iter();
        loop {
            let request = self.request(call, &url)?;
            let error = match request.send().await {
                Ok(response) => return Ok(response),
                Err(e) => e,
            };
            match pauses.next() {
                Some(pause) if call.again && error.is_connect() => {
                    tokio::time::sleep(Duration::from_millis(*pause)).await;
                }
                _ => return Err(self.away(&error)),
            }
        }
    }

    fn request(&self, call: &Sending<'_>, url: &str) -> Result<reqwest::RequestBuilder, Failure> {
        let client = if let Some(c) = self.client.get() {
            c
        } else {
            let client = build(&self.url, self.ca.as_deref())?;
            self.client.get_or_init(|| client)
        };
        let mut request = client.request(call.method.clone(), url).timeout(call.time);
        match call.proof {
            Proof::Nobody => {}
            Proof::Bearer(secret) => request = request.bearer_auth(secret),
            Proof::Device(key) => {
                let proof = key.sign_call(&Call {
                    method: call.method.as_str(),
                    url,
                    body: call.body.as_deref().unwrap_or_default(),
                    now: edge::now(),
                    jti: &edge::random_id()?,
                    nonce: &self.nonce.borrow(),
                });
                request = request.header("DPoP", proof);
            }
        }
        if let Some(body) = &call.body {
            request = request
                .header(header::CONTENT_TYPE, call.kind)
                .body(body.clone());
        }
        Ok(request)
    }

    /// Keeps the nonce that the broker handed out; says whether it is a new one.
    fn keep_nonce(&self, response: &Response) -> bool {
        let Some(nonce) = response
            .headers()
            .get("DPoP-Nonce")
            .and_then(|v| v.to_str().ok())
        else {
            return false;
        };
        let new = *self.nonce.borrow() != nonce;
        nonce.clone_into(&mut self.nonce.borrow_mut());
        new
    }

    fn away(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() {
            "did not answer in time"
        } else {
            "cannot be reached"
        };
        Failure::unreachable(
            format!("The broker at {} {why} ({}).", self.base, cause(error)),
            "Check --broker or COUNTERSIGN_BROKER, the network, and COUNTERSIGN_CA for an own CA.",
        )
    }
}

/// A broker says yes with 200 alone: an "accepted" of something in front of it is no yes.
fn is_yes(response: &Response) -> bool {
    response.status() == StatusCode::OK
}

/// The time that the reply's head tells (RFC 9110 §6.6.1).
fn date(response: &Response) -> Option<UnixTime> {
    let text = response.headers().get(header::DATE)?.to_str().ok()?;
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    u64::try_from(at.as_second()).ok().map(UnixTime)
}

/// "The clock is wrong" is of use with both clocks beside it.
fn with_clocks(mut failure: Failure, broker: Option<UnixTime>, here: UnixTime) -> Failure {
    let Some(broker) = broker.filter(|_| failure.code == Some(Code::ClockWrong)) else {
        return failure;
    };
    let apart = match (here.since(broker), broker.since(here)) {
        (0..=5, 0..=5) => "they agree now".to_owned(),
        (ahead, 0) => format!("this one is {} ahead", span(ahead)),
        (_, behind) => format!("this one is {} behind", span(behind)),
    };
    failure.what = format!(
        "{} (this machine's: {}, the broker's: {}; {apart})",
        failure.what.trim_end_matches('.'),
        here.rfc3339(),
        broker.rfc3339()
    );
    failure
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(body)
        .map_err(|e| Failure::failed(format!("The call is no JSON: {e}."), "Report this."))
}

/// Attack 43: a sign-in page answers 200 too. What a broker has done, it confirms with an object.
fn done(body: &[u8]) -> Result<(), Failure> {
    decode::<serde_json::Map<String, serde_json::Value>>(body).map(drop)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|e| {
        // Only the place is told: serde's own words may repeat a secret of the reply.
        Failure::failed(
            format!(
                "The broker's reply is not understood (column {}).",
                e.column()
            ),
            "Check that client and broker have the same version: `countersign status`.",
        )
    })
}

#[cfg(test)]
mod tests;
