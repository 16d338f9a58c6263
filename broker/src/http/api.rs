//! The API's handlers: decode, verb, encode.

use super::{
    auth::{self, Signer},
    openapi,
    reply::Failed,
    routes::{self, Call},
};
use crate::{
    admin::{
        client_keys as keys, clock, enroll as enrolment, freeze as freezer, log, people as persons,
    },
    desk::{Fault, people::Person},
    publish::{
        Refusal, answer as answers, close, inbox as inboxes, intent as intents, ledger,
        open as opening, prove, question as questions, release, stages as staged, state::Record,
        veto,
    },
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::header;
use proto::{
    api::{
        AnswerRequest, BrokerStatus, ChallengeRequest, ClientKeyRequest, EnrollRequest,
        FreezeRequest, OpenRequest, ThawRequest, UnsealFirst,
    },
    ids::{ClientKeyId, IntentId, RequestId},
    intent::IntentRequest,
    log::checkpoint::LogKey,
    problem::Code,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{str::FromStr, time::Duration};

/// Longest long poll.
const WAIT_MAX: u64 = 60;

pub(super) type Done = Result<Response, Failed>;

/// The routes, for programs.
pub async fn openapi(call: Call) -> Done {
    let url = &call.desk.place.public_url;
    encode(Ok(openapi::document(&routes::table(), url)))
}

/// What everybody may know.
pub async fn status(call: Call) -> Done {
    let desk = &call.desk;
    let log_key = desk
        .log_key()
        .ok()
        .and_then(|k| LogKey::new(&desk.place.origin, k.public()).ok())
        .map(|k| k.to_string());
    encode(Ok(BrokerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sealed: desk.vault.is_sealed(),
        time: call.now,
        clock_suspect: desk.world.clock_suspect(),
        // What cannot be read stops as well.
        restored: desk.restored().map_or(true, |mark| mark.is_some()),
        log_key,
        audience: desk.place.public_url.clone(),
    }))
}

/// Opens a request.
pub async fn open(call: Call) -> Done {
    let asked: OpenRequest = call.json()?;
    let caller = auth::caller(&call.desk, &call.headers, call.now).await?;
    encode(opening::open(&call.desk, &caller, asked, call.now).await)
}

/// Status, or a long poll until the revision is past `since`.
pub async fn wait(call: Call) -> Done {
    let id = call.id()?;
    // Who waits is looked up at each look: somebody who is removed meanwhile is told no more.
    let look = || -> Result<Record, Failed> {
        match &call.signer {
            Some(signer) => Ok(questions::of_person(&call.desk, id, &signer.person.id)?),
            None => Ok(close::status(
                &call.desk,
                id,
                &auth::ticket(&call.headers)?,
            )?),
        }
    };
    let seconds = call.number("wait")?.unwrap_or(0).min(WAIT_MAX);
    let since = call.number("since")?;
    // The proof first; then subscribe and read, so that no change is missed between.
    look()?;
    intents::approve(&call.desk, id, call.now).await?;
    let mut changes = call.desk.waiters.subscribe(id);
    let record = look()?;
    let known = since.unwrap_or(record.revision);
    if record.revision > known || record.name().is_final() || seconds == 0 {
        let status = intents::status_at(&call.desk, &record, call.now);
        return encode(status.map_err(Into::into));
    }
    // What is approved and held back becomes free by time alone.
    let held_back = veto::until(&call.desk, &record, call.now).map_err(Refusal::from)?;
    let held_back = held_back.map(|until| until.since(call.now));
    let seconds = held_back.map_or(seconds, |left| seconds.min(left));
    drop(record);
    let woken = changes.wait_for(|revision| *revision > known);
    let _ = tokio::time::timeout(Duration::from_secs(seconds), woken).await;
    let now = call.desk.world.now();
    encode(intents::status_at(&call.desk, &look()?, now).map_err(Into::into))
}

/// Collects the sealed credential or secret.
pub async fn collect(call: Call) -> Done {
    let ticket = auth::ticket(&call.headers)?;
    encode(release::collect(&call.desk, call.id()?, &ticket, call.now).await)
}

/// Takes a request back.
pub async fn cancel(call: Call) -> Done {
    let ticket = auth::ticket(&call.headers)?;
    encode(close::cancel(&call.desk, call.id()?, &ticket, call.now).await)
}

/// The signed bundle about a publish.
pub async fn receipt(call: Call) -> Done {
    let id = call.id()?;
    let record = if let Some(signer) = &call.signer {
        ledger::find(&call.desk, id)
            .map_err(Refusal::from)?
            .filter(|r| questions::concerns(&call.desk, r, &signer.person))
            .ok_or(Refusal::NotFound)?
    } else {
        close::status(&call.desk, id, &auth::ticket(&call.headers)?)?
    };
    let envelope = log::receipt(&call.desk, &record).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], envelope).into_response())
}

/// Enrols a device.
pub async fn enroll(call: Call) -> Done {
    let given: EnrollRequest = call.json()?;
    if enrolment::may_unseal(&call.desk, &given, call.now).map_err(Refusal::from)? {
        return Err(Failed::new(
            Code::PassphraseNeeded,
            "the broker's vault is sealed and nobody is enrolled yet",
            "Enrol with the passphrase that `countersignd init` printed: run `countersign enroll` again.",
        ));
    }
    encode(enrolment::enroll(&call.desk, given, call.now).await)
}

/// Enrols the first admin's device and unseals the vault.
pub async fn enroll_unseal(call: Call) -> Done {
    let given: UnsealFirst = call.json()?;
    let (desk, now) = (call.desk, call.now);
    encode(whole(async move { enrolment::unseal_first(&desk, given, now).await }).await)
}

/// What waits for this person.
pub async fn inbox(call: Call) -> Done {
    let limit = call.number("limit")?.unwrap_or(u64::MAX);
    encode(inboxes::inbox(
        &call.desk,
        call.person()?,
        call.query.get("after").map(String::as_str),
        usize::try_from(limit).unwrap_or(inboxes::PAGE_MAX),
        call.now,
    ))
}

/// One request, as it is judged.
pub async fn question(call: Call) -> Done {
    let id = call.id()?;
    encode(questions::question(&call.desk, id, call.person()?, call.now).await)
}

/// An answer.
pub async fn answer(call: Call) -> Done {
    let given: AnswerRequest = call.json()?;
    let signer = call.signer()?;
    // The statement names the device that signed this very call, or nothing.
    if given.statement.device != signer.device {
        return Err(Refusal::NotAllowed("another device signed the statement".to_owned()).into());
    }
    let id = call.id()?;
    let known = ledger::find(&call.desk, id).map_err(Refusal::from)?;
    if !known.is_some_and(|r| questions::concerns(&call.desk, &r, &signer.person)) {
        return Err(Refusal::NotFound.into());
    }
    encode(answers::answer(&call.desk, id, &signer.person, &given, call.now).await)
}

/// What a passkey shall sign.
pub async fn challenge(call: Call) -> Done {
    let asked: ChallengeRequest = call.json()?;
    let signer = call.signer()?;
    let (person, device) = (&signer.person, &signer.device);
    encode(prove::challenge(&call.desk, person, device, &asked, call.now).await)
}

/// Announces a release.
pub async fn intend(call: Call) -> Done {
    let given: IntentRequest = call.json()?;
    let signer = call.signer()?;
    // The statement names the device that signed this very call, or nothing.
    if given.statement.device != signer.device {
        return Err(Refusal::NotAllowed("another device signed the statement".to_owned()).into());
    }
    encode(intents::intend(&call.desk, &signer.person, &given, call.now).await)
}

/// What was announced.
pub async fn intents(call: Call) -> Done {
    encode(intents::list(&call.desk, call.person()?, call.now))
}

/// Takes an announcement back.
pub async fn withdraw_intent(call: Call) -> Done {
    let id: IntentId = call.named("id")?;
    let factor = call.json_if_any()?;
    let signer = call.signer()?;
    let by = (&*signer.person, &signer.device);
    encode(intents::withdraw(&call.desk, id, by, &factor, call.now).await)
}

/// A person's own devices.
pub async fn devices(call: Call) -> Done {
    let signer = call.signer()?;
    encode(persons::devices(&call.desk, &signer.person, &signer.device))
}

/// Everybody.
pub async fn people(call: Call) -> Done {
    encode(persons::list(&call.desk))
}

/// What registries keep aside.
pub async fn stages(call: Call) -> Done {
    encode(staged::all(&call.desk).await)
}

/// Client keys.
pub async fn client_keys(call: Call) -> Done {
    encode(keys::list(&call.desk))
}

/// Registers a client key.
pub async fn add_client_key(call: Call) -> Done {
    let key: ClientKeyRequest = call.json()?;
    encode(
        keys::add(&call.desk, key, &call.person()?.id, call.now)
            .await
            .map(|()| Empty {}),
    )
}

/// Removes a client key.
pub async fn remove_client_key(call: Call) -> Done {
    let name: ClientKeyId = call.named("name")?;
    encode(
        keys::remove(&call.desk, &name, &call.person()?.id, call.now)
            .await
            .map(|()| Empty {}),
    )
}

/// Freezes a package.
pub async fn freeze(call: Call) -> Done {
    let asked: FreezeRequest = call.json()?;
    encode(freezer::freeze(&call.desk, &asked.package, &call.person()?.id, call.now).await)
}

/// Asks for a thaw.
pub async fn thaw(call: Call) -> Done {
    let asked: ThawRequest = call.json()?;
    encode(freezer::thaw(&call.desk, call.signer()?.own(), &asked, call.now).await)
}

/// Trusts the broker's clock again.
pub async fn trust_clock(call: Call) -> Done {
    let signer = call.signer()?;
    let done = clock::accept(&call.desk, &signer.person.id, signer.at, call.now).await;
    encode(done.map(|()| Empty {}))
}

#[derive(Serialize)]
pub(super) struct Empty {}

/// Runs to its end whatever the client does: who hangs up in the middle of an unseal neither frees the
/// place for the next try, nor escapes the record and the check that follow it.
pub(super) async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|_| Err(Fault::Damaged("an unseal").into()))
}

pub(super) fn encode<T: Serialize>(result: Result<T, Refusal>) -> Done {
    Ok(Json(result?).into_response())
}

pub(super) fn unsigned() -> Failed {
    Failed::new(Code::Unauthenticated, "this call is not signed", "")
}

impl Call {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failed> {
        serde_json::from_slice(&self.body).map_err(|e| {
            // The error's text can quote the body, which can hold a secret: only its place is told.
            let place = format!("line {}, column {}", e.line(), e.column());
            Failed::new(
                Code::BadRequest,
                "the body is not what this route takes",
                place,
            )
        })
    }

    /// A body that need not be there.
    pub(super) fn json_if_any<T: DeserializeOwned + Default>(&self) -> Result<T, Failed> {
        if self.body.is_empty() {
            return Ok(T::default());
        }
        self.json()
    }

    pub(super) fn id(&self) -> Result<RequestId, Failed> {
        let text = self.path.get("id").map(String::as_str).unwrap_or_default();
        text.parse().map_err(|_| Refusal::NotFound.into())
    }

    pub(super) fn named<T: FromStr>(&self, name: &str) -> Result<T, Failed> {
        let text = self.path.get(name).map(String::as_str).unwrap_or_default();
        text.parse().map_err(|_| Refusal::NotFound.into())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Failed> {
        self.query
            .get(name)
            .map(|v| {
                v.parse().map_err(|_| {
                    Failed::new(Code::BadRequest, format!("{name} is not a number"), "")
                })
            })
            .transpose()
    }

    pub(super) fn signer(&self) -> Result<&Signer, Failed> {
        self.signer.as_ref().ok_or_else(unsigned)
    }

    pub(super) fn person(&self) -> Result<&Person, Failed> {
        Ok(&self.signer()?.person)
    }
}
