//! Opens a request, and checks that the broker recorded what was asked.

use super::session::{Secrets, Session};
use crate::{
    edge::Env,
    fail::Failure,
    http::{self, Broker, Proof},
};
use age::secrecy::ExposeSecret as _;
use proto::{
    api::{OpenRequest, Opened},
    bearer::{Bearer, Kind},
    digest::hex,
    ids::RequestId,
    request::{Item, RequestDigest},
    text::harmless,
    time::UnixTime,
};
use serde::Serialize;

/// What the job's log shows of an open request.
#[derive(Serialize)]
pub(crate) struct Shown {
    /// `opened`.
    pub(crate) event: &'static str,
    /// The request.
    pub(crate) id: RequestId,
    /// What is published.
    pub(crate) items: Vec<String>,
    /// What people approve.
    pub(crate) request_digest: RequestDigest,
    /// For the person who started the job.
    pub(crate) match_code: String,
    /// Where a person opens it.
    pub(crate) page: String,
    /// Answers are taken until.
    pub(crate) expires: UnixTime,
}

/// What is asked for.
pub(crate) struct Wish {
    /// What to publish.
    pub(crate) items: Vec<Item>,
    /// Words for the approver.
    pub(crate) note: Option<String>,
    /// Whether what is published already is left out.
    pub(crate) leave_out_published: bool,
}

/// Opens a request and checks that the broker recorded what was asked.
pub(crate) async fn open(
    env: &Env,
    broker: &Broker,
    id_token: &str,
    wish: Wish,
) -> Result<(Session, Shown), Failure> {
    let identity = age::x25519::Identity::generate();
    let mut asked = OpenRequest {
        items: wish.items,
        job_key: identity.to_public().to_string(),
        idempotency_key: String::new(),
        note: wish.note,
        leave_out_published: wish.leave_out_published,
    };
    asked.idempotency_key = idempotency_key(env, &asked)?;
    let opened: Opened = broker
        .post_again("/v1/requests", &asked, Proof::Bearer(id_token))
        .await?;
    check(&asked, &opened)?;
    let shown = Shown {
        event: "opened",
        id: opened.id,
        items: opened.facts.items.iter().map(Item::name).collect(),
        request_digest: opened.request_digest,
        match_code: opened.match_code,
        page: harmless(&opened.page),
        expires: opened.facts.expires,
    };
    let session = Session {
        broker: broker.base().to_owned(),
        id: opened.id,
        secrets: Secrets {
            ticket: opened.ticket,
            job_key: identity.to_string().expose_secret().to_owned(),
        },
        items: opened.facts.items,
        paths: Vec::new(),
        plain: false,
        deposit: opened.deposit,
        inspect: opened.inspect,
        registry_url: opened.registry_url,
        expires: opened.facts.expires,
        kept: None,
    };
    Ok((session, shown))
}

/// The same run and body give the same key, so that an open whose reply was lost is not opened twice;
/// outside a known CI the random job key alone makes it unique.
fn idempotency_key(env: &Env, asked: &OpenRequest) -> Result<String, Failure> {
    let mut text = serde_json::to_vec(asked)
        .map_err(|e| Failure::failed(format!("The request is no JSON: {e}."), "Report this."))?;
    for name in [
        "GITHUB_RUN_ID",
        "GITHUB_RUN_ATTEMPT",
        "GITHUB_JOB",
        "CI_JOB_ID",
    ] {
        text.push(0);
        text.extend_from_slice(env.get(name).unwrap_or_default().as_bytes());
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    Ok(hex(hash.as_ref()))
}

/// Attack 35: a broker that is not ours, or lies. What it recorded must be what was asked, under the
/// digest that people will see, and nothing may point at an address that secrets must not travel to.
fn check(asked: &OpenRequest, opened: &Opened) -> Result<(), Failure> {
    let facts = &opened.facts;
    let lies = [
        (
            facts.digest() != opened.request_digest,
            "its digest is not that of its facts",
        ),
        (facts.id != opened.id, "its facts name another request"),
        (!holds(asked, &facts.items), "its facts name other items"),
        (
            facts.job_key != asked.job_key,
            "its facts name another job key",
        ),
        (
            !is_match_code(&opened.match_code),
            "its match code is not 6 digits",
        ),
        (
            Bearer::parse(Kind::Ticket, &opened.ticket).is_err(),
            "its ticket is damaged",
        ),
        (
            opened
                .deposit
                .as_deref()
                .is_some_and(|c| Bearer::parse(Kind::Credential, c).is_err()),
            "its credential is damaged",
        ),
        (
            http::web_address(&opened.page, "page").is_err(),
            "its page is no https address",
        ),
        (
            asked.items.iter().any(|i| {
                let url = opened.registry_url.get(&i.registry);
                let bad = url.is_none_or(|u| http::web_address(u, "registry").is_err());
                !i.files.is_empty() && bad
            }),
            "it names no https address for the registry",
        ),
    ];
    match lies.iter().find(|(lie, _)| *lie) {
        None => Ok(()),
        Some((_, what)) => Err(Failure::refused(
            format!("The broker's reply does not hold: {what}."),
            "Do not approve this request. Check the broker's address, and tell its admin.",
        )),
    }
}

/// Whether what was recorded is what was asked; where published versions may be left out, some of it, in the
/// same order.
fn holds(asked: &OpenRequest, recorded: &[Item]) -> bool {
    if !asked.leave_out_published {
        return recorded == asked.items;
    }
    let mut left = asked.items.iter();
    !recorded.is_empty() && recorded.iter().all(|item| left.any(|other| other == item))
}

/// Whether a text is a match code.
pub(crate) fn is_match_code(text: &str) -> bool {
    text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
