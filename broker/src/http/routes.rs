//! Every route of the API with who may call it: one table, one screen. A generated test walks it.

use super::{
    api,
    auth::{Arrived, Signatures, Signer},
    reply::Failed,
};
use crate::{desk::Desk, publish::Refusal};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, RawQuery, State},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};
use http::{HeaderMap, Method, Uri};
use proto::{problem::Code, time::UnixTime};
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody.
    Anyone,
    /// A CI job with an IdToken.
    Caller,
    /// Whoever holds the request's ticket.
    Ticket,
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
    GET    "/v1/requests/{id}/receipt"      Ticket      api::receipt;
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
const BODY_MAX: usize = 256 * 1024;

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
                          body: Bytes| {
            let (desk, signatures) = (Arc::clone(&desk), Arc::clone(&signatures));
            async move {
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
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(())
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
        // A caller's token and a ticket are judged by the verb, which knows what they must fit.
        Who::Anyone | Who::Caller | Who::Ticket => Ok(None),
        Who::Person => signatures.signer(desk, arrived, now).map(Some),
        Who::Admin | Who::AdminSealed => {
            let signer = signatures.signer(desk, arrived, now)?;
            if signer.person.admin {
                Ok(Some(signer))
            } else {
                Err(Refusal::NotAllowed("only admins do this".to_owned()).into())
            }
        }
    }
}
