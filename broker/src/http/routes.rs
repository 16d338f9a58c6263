//! Every route of the API with who may call it: one table. A generated test walks it, and
//! `/v1/openapi.json` is made from it.

use super::{
    acts, api, app,
    auth::{Arrived, Signatures, Signer},
    backups, channels, custody, incident, inspected, log, own, past,
    reply::Failed,
    tokens, watched,
};
use crate::{desk::Desk, publish::Refusal};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, RawQuery, State},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};
use http::{HeaderMap, Method, Uri, header};
use proto::{problem::Code, time::UnixTime};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody.
    Anyone,
    /// A CI job with an IdToken.
    Caller,
    /// Whoever holds the request's ticket.
    Ticket,
    /// Whoever holds the request's ticket, or an enrolled person's device.
    TicketOrPerson,
    /// An enrolled person's device.
    Person,
    /// An admin's device.
    Admin,
    /// An admin's device; works while the vault is sealed, when devices cannot be authenticated
    /// against tampering with the database. Only acts that make things stricter, and the unseal
    /// itself, which needs the passphrase.
    AdminSealed,
}

/// A call, decoded so far as every route needs it.
pub struct Call {
    /// The parts.
    pub desk: Arc<Desk>,
    /// Path parameters.
    pub path: BTreeMap<String, String>,
    /// Query parameters.
    pub query: BTreeMap<String, String>,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// The body of a route that takes a file: not read yet.
    pub file: Mutex<Option<Body>>,
    /// The signer, on routes of people and admins.
    pub signer: Option<Signer>,
    /// Read once, at the edge.
    pub now: UnixTime,
}

type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Response, Failed>> + Send>>;

/// One row.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path with parameters in braces.
    pub path: &'static str,
    /// Who.
    pub who: Who,
    /// Query parameters; no other one reaches the handler.
    pub query: &'static [&'static str],
    /// One sentence, for `/v1/openapi.json`.
    pub summary: &'static str,
    handler: Handler,
}

macro_rules! routes {
    ($($method:ident $path:literal $([$($query:literal),*])? $who:ident $handler:path:
       $summary:literal;)*) => {
        /// The table.
        pub fn table() -> Vec<Route> {
            vec![$(Route {
                method: Method::$method,
                path: $path,
                who: Who::$who,
                query: &[$($($query),*)?],
                summary: $summary,
                handler: |call| Box::pin($handler(call)),
            },)*]
        }
    };
}

routes! {
    GET    "/v1/openapi.json" Anyone api::openapi:
        "This description, made from the table of routes.";
    GET    "/v1/status" Anyone api::status:
        "Whether the broker is sealed, its clock, and the log's key.";
    POST   "/v1/requests" Caller api::open:
        "Asks to publish `items` or to see a secret; replies with ticket and match code.";
    GET    "/v1/requests/{id}" ["wait", "since"] TicketOrPerson api::wait:
        "A request's status; waits up to `wait` seconds for a revision after `since`.";
    POST   "/v1/requests/{id}/collect" Ticket api::collect:
        "The one-shot credential, sealed to the job's key; again the same.";
    PUT    "/v1/requests/{id}/files/{digest}" Ticket inspected::take:
        "Hands a file over to be looked into, as bytes; the reply comes when its card is there.";
    PUT    "/v1/requests/{id}/source" Ticket inspected::source:
        "Hands in the source that the files were made of, a .tar.gz; its files are listed.";
    POST   "/v1/requests/{id}/cancel" Ticket api::cancel:
        "Takes the request back.";
    GET    "/v1/requests/{id}/receipt" TicketOrPerson api::receipt:
        "The signed bundle about a publish, a DSSE envelope.";
    POST   "/v1/enroll" Anyone api::enroll:
        "Enrols the device that shows an `invite`, in two stages.";
    POST   "/v1/enroll/unseal" Anyone api::enroll_unseal:
        "The first admin's enrolment at a sealed broker, with the vault's `passphrase`.";
    GET    "/v1/inbox" ["after", "limit"] Person api::inbox:
        "What waits for this person, what runs out first; `after` is a page's `next`.";
    GET    "/v1/history" ["after", "limit"] Person past::history:
        "Requests that concern this person and ended, newest first; `after` is a page's `next`.";
    GET    "/v1/packages" ["after", "limit"] Person past::packages:
        "Packages that concern this person: frozen or not, open requests, the last publishes.";
    GET    "/v1/requests/{id}/question" Person api::question:
        "One request, as it is judged.";
    GET    "/v1/requests/{id}/diff" ["item", "file", "difference"] Person inspected::diff:
        "How the text of a file inside changed, by its number in a card.";
    POST   "/v1/requests/{id}/answer" Person api::answer:
        "A signed approval or denial.";
    POST   "/v1/challenges" Person api::challenge:
        "What a passkey shall sign for one `act` about one `digest`; used once.";
    POST   "/v1/intents" Person api::intend:
        "Announces a release before its job asks; signed, with the second factor.";
    GET    "/v1/intents" Person api::intents:
        "What was announced by this person, and of the packages that he approves.";
    DELETE "/v1/intents/{id}" Person api::withdraw_intent:
        "Takes an announcement back; from a browser with a second factor.";
    GET    "/v1/devices" Person api::devices:
        "This person's devices.";
    POST   "/v1/devices/invite" Person own::invite:
        "An invite for a further device of one's own, with the strongest factor.";
    POST   "/v1/devices/remove" Person own::remove_device:
        "Removes one of the own devices, with the strongest factor.";
    POST   "/v1/passkeys/options" Person own::passkey_options:
        "Options for a new passkey.";
    POST   "/v1/passkeys" Person own::add_passkey:
        "Adds a passkey, with the strongest factor.";
    POST   "/v1/passkeys/remove" Person own::remove_passkey:
        "Removes a passkey, with the strongest factor.";
    POST   "/v1/totp/offer" Person own::totp_offer:
        "A fresh secret for an authenticator app, worth nothing yet.";
    POST   "/v1/totp" Person own::add_totp:
        "Sets the app up, with its first code and the strongest factor; one from before is worth nothing then.";
    GET    "/v1/recoveries" Person own::recoveries:
        "Who is about to enrol anew, and who asked for it.";
    POST   "/v1/recoveries/ask" Person own::ask_recovery:
        "Asks that a `person` who lost all factors may enrol anew: two people, then 24 hours.";
    POST   "/v1/recoveries/cancel" Person own::cancel_recovery:
        "Calls a recovery off.";
    POST   "/v1/recoveries/invite" Person own::invite_recovered:
        "The invite at the end of a recovery.";
    GET    "/v1/notify" Person channels::settings:
        "How this person is told that something waits.";
    POST   "/v1/notify/channels" Person channels::add:
        "Adds a channel: `web-push`, `ntfy` or `webhook`, at a server that the configuration allows.";
    DELETE "/v1/notify/channels/{id}" Person channels::remove:
        "Removes a channel; from a browser with a second factor.";
    PUT    "/v1/notify/quiet" Person channels::quiet:
        "Sets quiet `hours`, or takes them away; from a browser with a second factor.";
    POST   "/v1/notify/test" Person channels::test:
        "Sends a test to each of this person's channels.";
    GET    "/v1/log/checkpoint" ["cosigned"] Person log::checkpoint:
        "The log's signed checkpoint (C2SP tlog-checkpoint), as text; with `cosigned` the newest that so many witnesses cosigned.";
    GET    "/v1/log/consistency" ["from"] Person log::consistency:
        "The checkpoint, with the proof that its log begins with the first `from` entries.";
    GET    "/v1/log/inclusion" ["index"] Person log::inclusion:
        "The checkpoint, with the proof that its log has the entry `index`.";
    GET    "/v1/log/tile/{level}/{*tile}" Person log::tile:
        "A tile of hashes (C2SP tlog-tiles), as bytes.";
    GET    "/v1/log/tile/entries/{*tile}" Admin log::entries:
        "A bundle of entries (C2SP tlog-tiles), as bytes.";
    GET    "/v1/log/export" ["from", "limit"] Admin log::export:
        "Entries of the log from an index on, as JSON lines.";
    GET    "/v1/log/find" ["package", "person", "event", "since", "until", "from", "limit"] Admin log::find:
        "Entries about a `package`, that name a `person`, of a type `event`, in a time; reads a bounded piece from `from` on.";
    GET    "/v1/acts" Person acts::list:
        "What admins asked for and waits, and policies that allow more.";
    POST   "/v1/acts/{id}/veto" Person acts::veto:
        "Objects to it, or takes it back; from a browser with a second factor.";
    GET    "/v1/admin/policy" Admin acts::policy:
        "The policy in force, with who can approve by it now.";
    POST   "/v1/admin/acts" Admin acts::ask:
        "Asks for an `act`, with a second factor: an invite, a person's rights, a `token`.";
    POST   "/v1/admin/acts/{id}/confirm" Admin acts::confirm:
        "Another admin agrees, with a second factor.";
    GET    "/v1/admin/people" Admin api::people:
        "Everybody who is enrolled.";
    GET    "/v1/admin/tokens" Admin tokens::list:
        "Stored registry tokens, without their secrets.";
    GET    "/v1/admin/tokens/left" Admin tokens::left:
        "Tokens that are no more here, and may still be good at their registries.";
    POST   "/v1/admin/tokens/check" Admin tokens::check:
        "Asks the registry about a stored token, without publishing anything.";
    POST   "/v1/admin/tokens/revoked" Admin tokens::revoked:
        "Says that the token of this `fingerprint` is revoked at its registry; with a code, where it is one that is kept.";
    POST   "/v1/admin/tokens/emptied" Admin tokens::emptied:
        "Says that the token of this `fingerprint` is nowhere else any more.";
    GET    "/v1/admin/stages" Admin api::stages:
        "What registries keep aside, unpublished; without `request`: not made by this broker.";
    GET    "/v1/admin/client-keys" Admin api::client_keys:
        "Keys of CI without OIDC.";
    POST   "/v1/admin/client-keys" Admin api::add_client_key:
        "Registers a client key for named packages.";
    DELETE "/v1/admin/client-keys/{name}" Admin api::remove_client_key:
        "Removes a client key.";
    POST   "/v1/admin/freeze" AdminSealed api::freeze:
        "Freezes a `package`: nothing of it is released.";
    POST   "/v1/admin/thaw" Admin api::thaw:
        "Asks for a thaw, with a second factor; the second admin's asking does it.";
    POST   "/v1/admin/panic" AdminSealed incident::panic:
        "Stops everything: all is frozen, what is open ends; two admins thaw `*`.";
    GET    "/v1/admin/published" ["since", "after", "limit"] Admin incident::published:
        "What left the broker `since` then, with who asked and who approved, newest first.";
    GET    "/v1/admin/registries" Admin incident::registries:
        "The configured registries.";
    GET    "/v1/admin/withdrawals" Admin incident::withdrawals:
        "What admins agreed to withdraw at registries, and what became of it.";
    POST   "/v1/admin/withdrawals/call-back" Admin incident::call_back:
        "Calls back what was agreed to withdraw, before its call to the registry; with a second factor.";
    GET    "/v1/admin/watch" Admin watched::report:
        "What registries serve, against what was published here.";
    POST   "/v1/admin/watch" Admin watched::now:
        "Looks at the registries now; all packages, or one `package`.";
    POST   "/v1/admin/doctor" Admin watched::doctor:
        "Looks for other ways to publish `packages` than through the broker.";
    POST   "/v1/admin/seal" AdminSealed custody::seal:
        "Wipes the vault's keys from memory.";
    GET    "/v1/admin/unseal" AdminSealed custody::unsealing:
        "What opens the vault, and whose shares are in; with the caller's own, encrypted to him.";
    POST   "/v1/admin/unseal" AdminSealed custody::unseal:
        "Opens the vault with its `passphrase`, or hands in the caller's `share`.";
    POST   "/v1/admin/share-key" Admin custody::share_key:
        "Registers the key that the caller's shares are encrypted to; with a second factor.";
    GET    "/v1/admin/unseal-method" Admin custody::method:
        "What opens the vault, and a change of that which is under way.";
    POST   "/v1/admin/unseal-method" Admin custody::change_method:
        "Asks that something else opens the vault; with a second factor.";
    POST   "/v1/admin/unseal-method/confirm" Admin custody::confirm_method:
        "Confirms it: holders with their opened `share`, and a second admin.";
    DELETE "/v1/admin/unseal-method" Admin custody::cancel_method:
        "Takes it back.";
    POST   "/v1/admin/backup" Admin backups::take:
        "A backup of the whole broker, encrypted to `recipients` of the configuration, as bytes.";
    GET    "/v1/admin/backups" Admin backups::state:
        "Whether backups are made, and when the last one was.";
    GET    "/v1/admin/witnesses" Admin log::witnessed:
        "Who cosigns the log, how far, and who refuses it.";
    GET    "/v1/admin/restored" Admin backups::restored:
        "Whether the database is an older copy, and which admins agreed to go on with it.";
    POST   "/v1/admin/restored/agree" Admin backups::agree:
        "Agrees to go on with it; with a second factor.";
    POST   "/v1/admin/clock" Admin api::trust_clock:
        "Trusts the broker's wall clock again after it jumped.";
}

/// Largest JSON body, in bytes.
const BODY_MAX: usize = 32 * 1024;
/// Largest body that opens a request: 200 items with their files, in bytes.
const OPEN_MAX: usize = 256 * 1024;
/// Where a route's body is a file.
const TAKES_FILE: [&str; 2] = ["/files/{digest}", "/requests/{id}/source"];
/// Time for a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(15);

/// The API's router.
pub fn router(desk: &Arc<Desk>, signatures: &Arc<Signatures>) -> Router {
    let mut router = Router::new();
    for route in table() {
        let (desk, signatures) = (Arc::clone(desk), Arc::clone(signatures));
        let Route {
            method,
            path,
            who,
            query: known,
            handler,
            ..
        } = route;
        let serve = move |State(()): State<()>,
                          Path(params): Path<BTreeMap<String, String>>,
                          RawQuery(query): RawQuery,
                          method: Method,
                          uri: Uri,
                          headers: HeaderMap,
                          body: Body| {
            let (desk, signatures) = (Arc::clone(&desk), Arc::clone(&signatures));
            async move {
                // A file is read by its verb, once it is known whose it is.
                let (file, body) = if TAKES_FILE.iter().any(|end| path.ends_with(end)) {
                    (Some(body), Body::empty())
                } else {
                    (None, body)
                };
                let body = match taken(who, &headers, body).await {
                    Ok(body) => body,
                    Err(failed) => return failed.into_response(),
                };
                let now = desk.world.now();
                let arrived = Arrived {
                    method: &method,
                    uri: &uri,
                    headers: &headers,
                    body: &body,
                };
                let signer = match admitted(&desk, &signatures, who, &arrived, now) {
                    Ok(signer) => signer,
                    Err(failed) => return failed.into_response(),
                };
                let query = query.as_deref().unwrap_or_default();
                let query = url::form_urlencoded::parse(query.as_bytes())
                    .into_owned()
                    .filter(|(name, _)| known.contains(&name.as_str()))
                    .collect();
                let call = Call {
                    desk,
                    path: params,
                    query,
                    headers,
                    body,
                    file: Mutex::new(file),
                    signer,
                    now,
                };
                handler(call)
                    .await
                    .unwrap_or_else(axum::response::IntoResponse::into_response)
            }
        };
        let filter = MethodFilter::try_from(method).unwrap_or(MethodFilter::GET);
        router = router.route(path, on(filter, serve));
    }
    router
        .merge(app::router(desk, signatures))
        .fallback(|| async {
            Failed::new(Code::NotFound, "there is no such route", "").into_response()
        })
        .with_state(())
}

/// Reads a body; without a proof of some kind in the head, none is read at all (attack 53).
async fn taken(who: Who, headers: &HeaderMap, body: Body) -> Result<Bytes, Failed> {
    let shown = match who {
        Who::Anyone => true,
        Who::Caller | Who::Ticket => headers.contains_key(header::AUTHORIZATION),
        Who::TicketOrPerson => {
            headers.contains_key(header::AUTHORIZATION) || headers.contains_key("dpop")
        }
        Who::Person | Who::Admin | Who::AdminSealed => headers.contains_key("dpop"),
    };
    if !shown {
        let how = "Jobs send Authorization: Bearer …; people sign with an enrolled device.";
        return Err(Failed::new(
            Code::Unauthenticated,
            "this call shows no proof of who is calling",
            how,
        ));
    }
    let most = if who == Who::Caller {
        OPEN_MAX
    } else {
        BODY_MAX
    };
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, most)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Failed::new(
            Code::TooLarge,
            "the body is too large or broke off",
            "",
        )),
        Err(_) => Err(Failed::new(Code::BadRequest, "the body took too long", "")),
    }
}

/// Whether this call may reach its handler.
fn admitted(
    desk: &Desk,
    signatures: &Signatures,
    who: Who,
    arrived: &Arrived<'_>,
    now: UnixTime,
) -> Result<Option<Signer>, Failed> {
    match who {
        Who::Person => signatures.signer(desk, arrived, false, now).map(Some),
        // A ticket's holder, or a device: whichever proof the call carries is judged.
        Who::TicketOrPerson if arrived.headers.contains_key("dpop") => {
            signatures.signer(desk, arrived, false, now).map(Some)
        }
        // A caller's token and a ticket are judged by the verb, which knows what they must fit.
        Who::Anyone | Who::Caller | Who::Ticket | Who::TicketOrPerson => Ok(None),
        Who::Admin | Who::AdminSealed => {
            let sealed_too = who == Who::AdminSealed;
            let signer = signatures.signer(desk, arrived, sealed_too, now)?;
            if !signer.person.admin {
                return Err(Refusal::NotAllowed("only admins do this".to_owned()).into());
            }
            // A browser signs whatever its page asks: there, admins look and do nothing (attack 32).
            if signer.in_browser() && arrived.method != Method::GET {
                let why = "a browser only shows this; do it with countersign admin in a terminal";
                return Err(Refusal::NotAllowed(why.to_owned()).into());
            }
            Ok(Some(signer))
        }
    }
}
