//! The registry origin: what an unmodified client finds there, one file per kind of registry.
//!
//! Only the publish route reaches the vault, by way of `publish::forward`. Everything else is
//! answered here or refused (attack 20); nothing is ever passed on with the token.

mod crates;
mod files;
mod npm;
mod oci;
mod pushes;
mod pypi;
mod rubygems;

use super::{
    reply::Failed,
    spool::{self, NotTaken},
};
use crate::{
    desk::{Desk, uploads},
    publish::{
        Refusal, deposit,
        forward::{self, Admission},
        problem,
    },
    registry::{Head, Kind, Publish},
};
use axum::{Router, extract::Request};
use http::header;
use proto::{bearer::Bearer, ids::RegistryId, problem::Code};
use std::{sync::Arc, time::Duration};
use tempfile::SpooledTempFile;

/// Largest upload: npm's base64 makes a publish document 4/3 of the tarball.
const UPLOAD_MAX: u64 = 320 * 1024 * 1024;
/// Time for one upload to arrive.
const UPLOAD_TIME: Duration = Duration::from_mins(10);

/// The origin of one registry: one handler, since names are paths here. `None` for a kind that has
/// no endpoint.
pub fn router(desk: &Arc<Desk>, registry: RegistryId) -> Option<Router> {
    let desk = Arc::clone(desk);
    match desk.registries.get(&registry)?.kind() {
        Kind::Npm => Some(Router::new().fallback(move |request: Request| {
            let (desk, registry) = (Arc::clone(&desk), registry.clone());
            async move {
                Box::pin(npm::serve(desk, registry, request))
                    .await
                    .unwrap_or_else(|failed| npm::error(&failed))
            }
        })),
        Kind::PyPi => Some(Router::new().fallback(move |request: Request| {
            let (desk, registry) = (Arc::clone(&desk), registry.clone());
            async move {
                Box::pin(pypi::serve(desk, registry, request))
                    .await
                    .unwrap_or_else(|failed| pypi::error(&failed))
            }
        })),
        Kind::Crates => Some(Router::new().fallback(move |request: Request| {
            let (desk, registry) = (Arc::clone(&desk), registry.clone());
            async move {
                crates::serve(desk, registry, request)
                    .await
                    .unwrap_or_else(|failed| crates::error(&failed))
            }
        })),
        Kind::RubyGems => Some(Router::new().fallback(move |request: Request| {
            let (desk, registry) = (Arc::clone(&desk), registry.clone());
            async move {
                rubygems::serve(desk, registry, request)
                    .await
                    .unwrap_or_else(|failed| rubygems::error(&failed))
            }
        })),
        Kind::Oci => Some(Router::new().fallback(move |request: Request| {
            let (desk, registry) = (Arc::clone(&desk), registry.clone());
            async move {
                oci::serve(desk, registry, request)
                    .await
                    .unwrap_or_else(|failed| oci::error(&failed))
            }
        })),
        Kind::Http => Some(Router::new().fallback(move |request: Request| {
            let (desk, registry) = (Arc::clone(&desk), registry.clone());
            async move { files::serve(desk, registry, request).await }
        })),
        Kind::Generic => None,
    }
}

/// Takes one upload for a credential, and publishes it or (deposit) keeps it. The package in the head
/// is what the address names, if it names one.
async fn take(
    desk: Arc<Desk>,
    registry: RegistryId,
    credential: &Bearer,
    head: Head,
    request: Request,
) -> Result<(), Failed> {
    // The credential is judged before a byte of the body is taken (attack 53).
    let admission = forward::admit(&desk, &registry, credential.hash(), head.package.as_ref())?;
    let arrived = receive(&desk, admission.slot.clone(), admission.bytes_max, request).await?;
    pass_on(desk, registry, admission, head, arrived).await
}

/// Reads what arrived, and publishes it or (deposit) keeps it.
async fn pass_on(
    desk: Arc<Desk>,
    registry: RegistryId,
    admission: Admission,
    head: Head,
    arrived: Received,
) -> Result<(), Failed> {
    let id = admission.id;
    let (upload, Received { body, place }) = read(&desk, &registry, head.clone(), arrived).await?;
    carried_out(async move {
        let _place = place;
        if admission.deposit {
            deposit::hand_over(desk, id, registry, upload, body, head).await
        } else {
            drop(body);
            forward::forward(desk, id, registry, upload).await
        }
    })
    .await
}

/// A body with its place in the count of uploads: whoever works with the body holds the place, also
/// when the client has hung up.
struct Received {
    body: SpooledTempFile,
    place: uploads::Place,
}

/// Receives an upload of at most so many bytes; `slot` limits how many arrive at once.
async fn receive(
    desk: &Desk,
    slot: uploads::Slot,
    most: u64,
    request: Request,
) -> Result<Received, Failed> {
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let most = most.min(UPLOAD_MAX);
    if declared.is_some_and(|n| n > most) {
        return Err(too_large(most));
    }
    let place = desk
        .uploads
        .enter(slot)
        .ok_or_else(|| Failed::from(Refusal::Busy))?;
    let taking = spool::take(request.into_body(), desk.place.spool.clone(), most);
    let body = match tokio::time::timeout(UPLOAD_TIME, taking).await {
        Ok(Ok(body)) => body,
        Ok(Err(why)) => return Err(not_taken(&why, most)),
        Err(_) => {
            return Err(Failed::new(
                Code::BadRequest,
                "the upload took too long",
                "Run the same command again.",
            ));
        }
    };
    Ok(Received { body, place })
}

/// Reads an upload by the registry's adapter, on a thread where it may block.
async fn read(
    desk: &Desk,
    registry: &RegistryId,
    head: Head,
    mut received: Received,
) -> Result<(Publish, Received), Failed> {
    let known = desk.registries.get(registry);
    let reader = known.and_then(|r| r.kind().row().read);
    let reader = reader.ok_or(Refusal::NotFound)?;
    let folder = desk.place.spool.clone();
    // Few at once: reading an archive takes a processor and some memory.
    let turn = Arc::clone(&desk.reading).acquire_owned().await;
    let turn = turn.map_err(|_| Refusal::Busy)?;
    let task = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        reader(&mut received.body, &head, &folder).map(|upload| (upload, received))
    });
    match task.await {
        Ok(read) => read.map_err(|why| Refusal::Upload(why).into()),
        Err(_) => Err(Refusal::Upload("the upload cannot be read".to_owned()).into()),
    }
}

/// Runs a verb in a task of its own: a client that hangs up changes nothing about what was begun.
async fn carried_out<F>(verb: F) -> Result<(), Failed>
where
    F: Future<Output = Result<(), Refusal>> + Send + 'static,
{
    match tokio::spawn(verb).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refusal)) => {
            let problem = problem(&refusal);
            // Its code alone: the text may hold a match code.
            tracing::info!(code = problem.code.text(), "an upload was not published");
            Err(Failed(problem, None))
        }
        Err(_) => Err(Refusal::Unsettled.into()),
    }
}

fn not_taken(why: &NotTaken, most: u64) -> Failed {
    match why {
        NotTaken::TooLarge => too_large(most),
        NotTaken::BrokeOff => Failed::new(
            Code::BadRequest,
            "the upload broke off",
            "Run the same command again.",
        ),
        NotTaken::Disk => Failed::new(
            Code::Internal,
            "the upload could not be stored",
            "Is the broker's disk full?",
        ),
    }
}

fn too_large(most: u64) -> Failed {
    Failed::new(
        Code::TooLarge,
        "the package is too large",
        format!("At most {} MB.", most / 1024 / 1024),
    )
}

/// What stands in the one `Authorization` header behind `scheme`.
fn authorization<'r>(request: &'r Request, scheme: &str) -> Option<&'r str> {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    value.to_str().ok()?.strip_prefix(scheme)
}
