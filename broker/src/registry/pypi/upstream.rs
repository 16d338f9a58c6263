//! The registry itself: the simple index, and the one request that uploads.
//!
//! The token is added here and nowhere else, as HTTP Basic beside the user name of the configuration.

use super::{
    Attestations, doors, index,
    macaroon::{self, Caveat},
    project::{self, ProjectIds},
    prove,
};
use crate::{
    registry::{
        self, Account, Address, BaseError, BoxFuture, Doors, Fetched, Keep, Life, Narrowed, Proof,
        Publish, Published, ReadError, Sent, Timeouts, Trial, Upstream,
        artifact::Downloads,
        pieces::{self, Frame},
        upstream::{failed, limited, short_reply},
    },
    secret::Secret,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::{
    digest::hex,
    ids::{PackageName, VersionText},
    request::File,
};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use std::{fmt::Write as _, time::Duration};
use url::Url;
use zeroize::Zeroizing;

/// Longest page of a project; one with 10,000 files has some 6 MB.
const MAX_PAGE: usize = 32 << 20;
/// The user name that goes with an API token of the public index.
const TOKEN_USER: &str = "__token__";

/// One Python package index.
pub struct PyPi {
    client: Client,
    /// The simple index, with a slash at its end.
    index: Url,
    upload: Url,
    user: String,
    narrow: bool,
    ids: Option<ProjectIds>,
    attestations: Attestations,
    downloads: Downloads,
    read: Duration,
}

impl PyPi {
    /// For the addresses in the configuration.
    pub fn new(address: Address, timeouts: Timeouts) -> Result<Self, BaseError> {
        let index = registry::upstream::base(address.url)?;
        let upload = address.upload.ok_or(BaseError::Address)?;
        // Checked like every other address; but whether it ends in a slash is the registry's to say.
        let base = registry::upstream::base(upload.clone())?;
        // Two addresses, one client: it is as strict as the stricter of both.
        let strict = if base.scheme() == "https" {
            &base
        } else {
            &index
        };
        let client = registry::upstream::client(strict, timeouts)?;
        let downloads = Downloads::new(&[&index, &base], &address.downloads, timeouts)?;
        Ok(Self {
            client,
            index,
            upload,
            user: address.user.unwrap_or_else(|| TOKEN_USER.to_owned()),
            narrow: address.narrow,
            ids: address.project_ids,
            attestations: address.attestations,
            downloads,
            read: timeouts.read,
        })
    }

    pub(super) async fn page(
        &self,
        package: &PackageName,
        token: Option<&Secret<String>>,
    ) -> Result<Published, ReadError> {
        let mut address = self.page_of(package)?;
        let mut unique = [0; 8];
        aws_lc_rs::rand::fill(&mut unique).map_err(|_| ReadError::Unreachable)?;
        address.set_query(Some(&format!("read-back={}", hex(&unique))));
        // The public index is read by anybody, and lies at another host than uploads: the token is not
        // shown there.
        let token = token.filter(|_| self.reads_with_token());
        let request = self
            .client
            .get(address)
            .timeout(self.read)
            .header(ACCEPT, index::ACCEPT)
            .header(CACHE_CONTROL, "no-cache");
        let reply = self
            .authorised(request, token)
            .ok_or(ReadError::NotUnderstood)?
            .send()
            .await
            .map_err(|e| failed(&e))?;
        match reply.status() {
            StatusCode::NOT_FOUND => return Ok(Published::default()),
            StatusCode::OK => {}
            status => return Err(ReadError::Status(status.as_u16())),
        }
        let kind = reply.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.to_ascii_lowercase();
        let page = limited(reply, MAX_PAGE).await?;
        index::read(&kind, &page)
    }

    /// Where the index says by whose identity a file came in (PEP 740's integrity API); anybody may ask.
    pub(super) async fn provenance(
        &self,
        package: &PackageName,
        version: &VersionText,
        name: &str,
    ) -> Result<Vec<u8>, ReadError> {
        let path = format!("/integrity/{package}/{version}/{name}/provenance");
        let address = self.index.join(&path);
        let address = address.map_err(|_| ReadError::NotUnderstood)?;
        let request = self.client.get(address).timeout(self.read);
        let request = request.header(ACCEPT, "application/vnd.pypi.integrity.v1+json");
        let reply = request.send().await.map_err(|e| failed(&e))?;
        registry::upstream::answer(reply).await
    }

    fn page_of(&self, package: &PackageName) -> Result<Url, ReadError> {
        let address = self.index.join(&format!("./{package}/"));
        address.map_err(|_| ReadError::NotUnderstood)
    }

    fn reads_with_token(&self) -> bool {
        self.index.origin() == self.upload.origin()
    }

    /// A file, from where the project's page says it lies; with the token where the page is read with
    /// it, and at that origin alone.
    async fn file(
        &self,
        package: &PackageName,
        version: &VersionText,
        file: &File,
        keep: Keep<'_>,
        token: Option<&Secret<String>>,
    ) -> Result<Fetched, ReadError> {
        let shown = self.page(package, token).await?;
        let Some(place) = shown.place(version, &file.name) else {
            return Ok(Fetched::Absent);
        };
        let place = self.page_of(package)?.join(place);
        let place = place.map_err(|_| ReadError::NotUnderstood)?;
        let ours = self.reads_with_token() && place.origin() == self.index.origin();
        let add = |request| self.authorised(request, token);
        self.downloads
            .fetch(place, file, keep, ours.then_some(&add))
            .await
    }

    async fn send(&self, publish: &mut Publish, token: &Secret<String>, within: Duration) -> Sent {
        let registry::Envelope::PyPi(envelope) = &publish.envelope else {
            return Sent::Unclear;
        };
        // Whoever reads this one request on its way gets a token for this project alone.
        let only = project::only(self.ids.as_ref(), &publish.package);
        let narrowed = match self
            .narrow
            .then(|| macaroon::narrow(token, &only))
            .transpose()
        {
            Ok(narrowed) => narrowed,
            Err(why) => {
                return Sent::Refused {
                    status: 400,
                    said: why.to_string(),
                };
            }
        };
        let token = narrowed.as_ref().unwrap_or(token);
        let mut unique = [0; 16];
        if aws_lc_rs::rand::fill(&mut unique).is_err() {
            return Sent::Unclear;
        }
        let boundary = hex(&unique);
        let name = publish.name.as_deref().unwrap_or_default();
        let frame = frame(&envelope.fields, name, publish.size, &boundary);
        let request = self.client.post(self.upload.clone()).header(
            CONTENT_TYPE,
            format!("multipart/form-data; boundary={boundary}"),
        );
        let Some(request) = self.authorised(request, Some(token)) else {
            return Sent::Unclear;
        };
        match pieces::send(request, &mut publish.file, frame, within).await {
            Some(reply) => judged(reply, token, &self.pair(token)).await,
            None => Sent::Unclear,
        }
    }

    /// User name and token as they stand in the header.
    fn pair(&self, token: &Secret<String>) -> Zeroizing<String> {
        pair(&self.user, token)
    }

    /// The user beside the token.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Whether that is the one user of all tokens, and no account.
    pub(super) fn is_token_user(&self) -> bool {
        self.user == TOKEN_USER
    }

    /// The head of an upload that carries no file.
    pub(super) fn uploading(&self) -> RequestBuilder {
        self.client.post(self.upload.clone()).timeout(self.read)
    }

    /// Adds the token, marked as sensitive so that no log line of the HTTP library shows it. `None` when
    /// it cannot stand in a header.
    fn authorised(
        &self,
        request: RequestBuilder,
        token: Option<&Secret<String>>,
    ) -> Option<RequestBuilder> {
        let Some(token) = token else {
            return Some(request);
        };
        authorised(request, &self.user, token)
    }
}

pub(super) fn pair(user: &str, token: &Secret<String>) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{user}:{}", token.expose()));
    Zeroizing::new(STANDARD.encode(pair.as_bytes()))
}

/// Adds user and token, likewise.
pub(super) fn authorised(
    request: RequestBuilder,
    user: &str,
    token: &Secret<String>,
) -> Option<RequestBuilder> {
    let value = Zeroizing::new(format!("Basic {}", pair(user, token).as_str()));
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(request.header(AUTHORIZATION, value))
}

impl Upstream for PyPi {
    fn shows<'a>(
        &'a self,
        package: &'a PackageName,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Published, ReadError>> {
        Box::pin(self.page(package, token))
    }

    fn fetch<'a>(
        &'a self,
        package: &'a PackageName,
        version: &'a VersionText,
        file: &'a File,
        keep: Keep<'a>,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Result<Fetched, ReadError>> {
        Box::pin(self.file(package, version, file, keep, token))
    }

    fn withdraw(&self) -> Result<&dyn registry::withdraw::Withdraw, &'static str> {
        Err(
            "PyPI lets only a person do that: its website, the project's Releases page, Options, Yank",
        )
    }

    fn whoami<'a>(&'a self, _: &'a Secret<String>) -> BoxFuture<'a, Result<Account, ReadError>> {
        // The upload protocol has no such question.
        Box::pin(async { Ok(Account::CannotAsk) })
    }

    fn prove<'a>(
        &'a self,
        token: &'a Secret<String>,
        trial: Trial<'a>,
    ) -> BoxFuture<'a, Result<Proof, ReadError>> {
        Box::pin(prove::ask(self, token, trial))
    }

    fn mint(
        &self,
        token: &Secret<String>,
        package: &PackageName,
        within: Life,
    ) -> Option<Result<Narrowed, String>> {
        if let Err(why) = self.mints(package) {
            return Some(Err(format!("the registry {why}")));
        }
        let mut caveats = project::only(self.ids.as_ref(), package);
        caveats.insert(0, Caveat::Life(within));
        let narrowed = macaroon::narrow(token, &caveats);
        Some(narrowed.map_err(|e| e.to_string()).map(|token| Narrowed {
            token,
            user: self.user.clone(),
            upload: self.upload.clone(),
        }))
    }

    fn mints(&self, package: &PackageName) -> Result<(), &'static str> {
        match &self.ids {
            Some(ids) if ids.of(package).is_none() => Err(
                "has a list of project ids, and this project is not in it; an admin adds it to `project_ids`",
            ),
            _ => Ok(()),
        }
    }

    fn drops_attestations(&self) -> bool {
        self.attestations == Attestations::Drop
    }

    fn doors<'a>(
        &'a self,
        package: &'a PackageName,
        token: Option<&'a Secret<String>>,
    ) -> BoxFuture<'a, Doors> {
        Box::pin(doors::ask(self, package, token))
    }

    fn pages(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "The project has no trusted publisher, pending ones included.",
                "manage/project/{name}/settings/publishing/",
            ),
            (
                "The project has no collaborator that is not needed; whole-account tokens of those who stay publish it, too.",
                "manage/project/{name}/collaboration/",
            ),
        ]
    }

    fn publish<'a>(
        &'a self,
        publish: &'a mut Publish,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Sent> {
        Box::pin(self.send(publish, token, within))
    }
}

/// The form around the file. Names of fields and of the file were parsed: none needs an escape.
pub(super) fn frame(
    fields: &[(&'static str, String)],
    name: &str,
    size: u64,
    boundary: &str,
) -> Frame {
    let mut head = String::new();
    for (field, value) in fields {
        let _ = write!(
            head,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n"
        );
    }
    let _ = write!(
        head,
        "--{boundary}\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    Frame {
        length: head.len() as u64 + size + tail.len() as u64,
        head: head.into_bytes(),
        tail: tail.into_bytes(),
        encode: <[u8]>::to_vec,
    }
}

/// What an answer means. `pair` is what the header said: a server in front of the registry that repeats a
/// request's headers in its error page must not put them into the job's output (attack 41).
async fn judged(reply: Response, token: &Secret<String>, pair: &str) -> Sent {
    let status = reply.status();
    let refused = |said: String| {
        let said = said.replace(pair.trim_end_matches('='), "[token]");
        Sent::Refused {
            status: status.as_u16(),
            said: registry::upstream::said(&said, token),
        }
    };
    match status.as_u16() {
        200 | 201 => Sent::Accepted,
        300..=399 => {
            refused("the upload address redirects; write the final one as upload_url".into())
        }
        // 409: some indexes say so where the public one says 400, "File already exists".
        400..=407 | 409..=417 | 422 | 429 => {
            let said = words(reply).await;
            refused(match status.as_u16() {
                401 | 403 => format!("{said} (does the stored token cover this project?)"),
                429 => format!("{said} (too many uploads or new projects; try again later)"),
                _ => said,
            })
        }
        _ => Sent::Unclear,
    }
}

/// The reason in an answer, without what the request's head said.
pub(super) async fn told(reply: Response, token: &Secret<String>, pair: &str) -> String {
    let said = words(reply).await;
    registry::upstream::said(&said.replace(pair.trim_end_matches('='), "[token]"), token)
}

/// The reason in an answer: the message of a JSON body, the title of an HTML page, plain text, or else the
/// status line, where the public index repeats it.
async fn words(reply: Response) -> String {
    let line = reply
        .extensions()
        .get::<hyper::ext::ReasonPhrase>()
        .map(|r| String::from_utf8_lossy(r.as_bytes()).into_owned());
    let line = line.or_else(|| reply.status().canonical_reason().map(str::to_owned));
    let body = short_reply(reply).await.unwrap_or_default();
    let said = reason(&String::from_utf8_lossy(&body));
    if said.is_empty() {
        line.unwrap_or_default()
    } else {
        said
    }
}

fn reason(body: &str) -> String {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(body) {
        let field = |name| json.get(name).and_then(serde_json::Value::as_str);
        if let Some(words) = field("message").or_else(|| field("error")) {
            return words.to_owned();
        }
    }
    let title = body
        .split_once("<title>")
        .and_then(|(_, rest)| rest.split_once("</title>"))
        // It begins with the status, which is shown anyway.
        .map(|(title, _)| title.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' '));
    let paragraph = body
        .split_once("<pre>")
        .and_then(|(_, rest)| rest.split_once("</pre>"))
        .map(|(text, _)| text);
    // Without the tags, and in one line.
    let mut out = String::new();
    for part in paragraph.or(title).unwrap_or(body).split('<') {
        let text = match part.split_once('>') {
            Some((_, text)) => text,
            None => part,
        };
        for word in text.split_whitespace() {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(word);
        }
    }
    for (from, to) in [
        ("&#x27;", "'"),
        ("&#39;", "'"),
        ("&quot;", "\""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ] {
        out = out.replace(from, to);
    }
    out
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
