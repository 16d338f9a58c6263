//! Hands files over to the broker to be looked into, so that people see what is in them before they approve.

use super::session::Session;
use crate::{
    context::Context,
    edge,
    fail::Failure,
    http::{Broker, Proof},
};
use proto::{
    card::{FILE_MAX, SOURCE_MAX},
    request::Item,
    text::harmless,
};
use std::path::Path;

/// Hands over what the broker asked for. A file that cannot be handed over is told and no failure: people then see
/// that nobody has looked into it, and where the policy needs that, they cannot approve it.
pub(crate) async fn hand_in(context: &Context, broker: &Broker, session: &Session) {
    let files = session.items.iter().flat_map(|item: &Item| &item.files);
    for (file, path) in files.zip(&session.paths) {
        if !session.inspect.contains(&file.digest) || file.size > FILE_MAX {
            continue;
        }
        let address = format!("/v1/requests/{}/files/{}", session.id, file.digest);
        if let Err(why) = one(broker, session, &address, path).await {
            context.out.note(&format!(
                "  the broker could not look into {}: {}",
                harmless(&file.name),
                why.what
            ));
        }
    }
}

/// Hands over the source, before any file: cards are made with it. That it is not taken is told and no failure, as with
/// a file.
pub(crate) async fn hand_in_source(
    context: &Context,
    broker: &Broker,
    session: &Session,
    source: Option<&Path>,
) {
    let Some(source) = source else {
        return;
    };
    let address = format!("/v1/requests/{}/source", session.id);
    let handed = async {
        let bytes = edge::read_capped(source, SOURCE_MAX)?;
        let proof = Proof::Bearer(&session.secrets.ticket);
        broker.put_file(&address, bytes, proof).await
    };
    if let Err(why) = handed.await {
        context.out.note(&format!(
            "  the broker did not take the source: {}. Nothing is compared with it, and where the policy wants it \
             nobody can approve this request: cancel it then, and run the job again.",
            why.what.trim_end_matches('.')
        ));
    }
}

async fn one(
    broker: &Broker,
    session: &Session,
    address: &str,
    path: &Path,
) -> Result<(), Failure> {
    let bytes = edge::read_capped(path, FILE_MAX)?;
    let proof = Proof::Bearer(&session.secrets.ticket);
    broker.put_file(address, bytes, proof).await
}
