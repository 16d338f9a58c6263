//! Every route of the API with who may call it: one table, one screen. A generated test walks it.

use super::{
    api,
    auth::{Arrived, Signatures, Signer},
    reply::Failed,
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
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

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
    handler: Handler,
}

macro_rules! routes {
    ($($method:ident $path:literal $who:ident $handler:path;)*) => {
        /// The table.
        pub fn table() -> Vec<Route> {
            vec![$(Route {
                method: Method::$method,
                path: $path,
                who: Who::$who,
                handler: |call| Box::pin($handler(call)),
            },)*]
        }
    };
}

routes! {
    GET    "/v1/status"                     Anyone      api::status;
    POST   "/v1/requests"                   Caller      api::open;
    GET    "/v1/requests/{id}"              Ticket      api::wait;
    POST   "/v1/requests/{id}/collect"      Ticket      api::collect;
    POST   "/v1/requests/{id}/cancel"       Ticket      api::cancel;
    GET    "/v1/requests/{id}/receipt"      TicketOrPerson api::receipt;
    GET    "/r/{id}"                        Anyone      api::page;
    POST   "/v1/enroll"                     Anyone      api::enroll;
    GET    "/v1/inbox"                      Person      api::inbox;
    GET    "/v1/requests/{id}/question"     Person      api::question;
    POST   "/v1/requests/{id}/answer"       Person      api::answer;
    GET    "/v1/devices"                    Person      api::devices;
    GET    "/v1/log/checkpoint"             Person      api::checkpoint;
    GET    "/v1/log/export"                 Admin       api::export;
    POST   "/v1/admin/invites"              Admin       api::invite;
    GET    "/v1/admin/people"               Admin       api::people;
    DELETE "/v1/admin/people/{person}"      Admin       api::remove_person;
    GET    "/v1/admin/tokens"               Admin       api::tokens;
    POST   "/v1/admin/tokens"               Admin       api::add_token;
    POST   "/v1/admin/tokens/rotate"        Admin       api::rotate_token;
    POST   "/v1/admin/tokens/check"         Admin       api::check_token;
    POST   "/v1/admin/tokens/remove"        Admin       api::remove_token;
    GET    "/v1/admin/client-keys"          Admin       api::client_keys;
    POST   "/v1/admin/client-keys"          Admin       api::add_client_key;
    DELETE "/v1/admin/client-keys/{name}"   Admin       api::remove_client_key;
    POST   "/v1/admin/freeze"               AdminSealed api::freeze;
    POST   "/v1/admin/thaw"                 Admin       api::thaw;
    POST   "/v1/admin/seal"                 AdminSealed api::seal;
    POST   "/v1/admin/unseal"               AdminSealed api::unseal;
}

/// Largest JSON body, in bytes.
const BODY_MAX: usize = 32 * 1024;
/// Largest body that opens a request: 200 items with their files, in bytes.
const OPEN_MAX: usize = 256 * 1024;
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
            handler,
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
                    .collect();
                let call = Call {
                    desk,
                    path: params,
                    query,
                    headers,
                    body,
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
            if signer.person.admin {
                Ok(Some(signer))
            } else {
                Err(Refusal::NotAllowed("only admins do this".to_owned()).into())
            }
        }
    }
}
