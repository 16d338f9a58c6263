//! The key file of a change: what it must be opened by, and whether it is.

use crate::{
    admin::custody::{self, shares::holder},
    desk::{Desk, Fault},
    publish::Refusal,
    secret::Secret,
    vault::{
        Unseal, UnsealError, UnsealMethod,
        key_file::{self, Plugin, WORK_FACTOR},
    },
};
use proto::custody::{ChangeMethod, Method};
use std::sync::Arc;

/// Shortest passphrase, in characters. Whoever steals the disk guesses it there.
const PASSPHRASE_MIN: usize = 20;

/// What is wanted, for the vault, and what must open it then.
pub(super) fn wanted(
    desk: &Desk,
    given: &ChangeMethod,
) -> Result<(UnsealMethod, Option<Unseal>), Refusal> {
    let bad = |why: String| Err(Refusal::BadRequest(why));
    match (&given.to, &given.passphrase) {
        (Method::Passphrase, Some(text)) => {
            if text.chars().count() < PASSPHRASE_MIN {
                return bad(format!(
                    "a passphrase has {PASSPHRASE_MIN} characters at least; let one be made"
                ));
            }
            let secret = || Secret::new(text.clone());
            let method = UnsealMethod::Passphrase {
                passphrase: secret(),
                work_factor: WORK_FACTOR,
            };
            Ok((method, Some(Unseal::Passphrase(secret()))))
        }
        (Method::Passphrase, None) => bad("name the passphrase".to_owned()),
        (_, Some(_)) => bad("a passphrase goes with the method passphrase alone".to_owned()),
        (Method::Identity | Method::Plugin, None) => {
            let Some(path) = &desk.place.identity else {
                return bad(
                    "the configuration's [unseal] names no identity_file and no credential"
                        .to_owned(),
                );
            };
            let text = std::fs::read_to_string(path).map(Secret::new);
            let text = text.map_err(|_| Fault::Damaged("the identity file"))?;
            if given.to == Method::Plugin {
                let Some(program) = &desk.place.plugin else {
                    return bad("the configuration's [unseal] names no plugin".to_owned());
                };
                let plugin = Plugin::new(program, &text);
                let plugin = plugin.map_err(|e| custody::refused(&e.into()))?;
                let opens = Unseal::Plugin(plugin.clone());
                return Ok((UnsealMethod::Plugin(plugin), Some(opens)));
            }
            let recipients = key_file::recipients_of(&text).map_err(|e| custody::refused(&e))?;
            Ok((
                UnsealMethod::Identity { recipients },
                Some(Unseal::Identity(text)),
            ))
        }
        (Method::Shares { needed, holders }, None) => {
            let mut chosen = Vec::new();
            for person in holders {
                let Some(holder) = holder(desk, person)? else {
                    return bad(format!(
                        "{person} is no admin with a share key; every holder first runs: countersign admin share-key"
                    ));
                };
                chosen.push(holder);
            }
            let method = UnsealMethod::Shares {
                needed: *needed,
                holders: chosen,
            };
            Ok((method, None))
        }
    }
}

/// Makes a key file and tries it: what it was made for opens it, every group of holders too, and it holds the
/// very keys that are in use. The file of now stays as it is.
pub(super) async fn made(
    desk: &Arc<Desk>,
    method: UnsealMethod,
    opens: Option<Unseal>,
) -> Result<Secret<Vec<u8>>, Refusal> {
    let own = Arc::clone(desk);
    let work = move || {
        let made = own.vault.rewrap(&[method]).map_err(|e| e.to_string())?;
        let tried = (own.vault).try_out(&made, opens.as_ref());
        tried.map_err(|e: UnsealError| e.to_string())?;
        Ok::<_, String>(Secret::new(made.bytes))
    };
    let made = tokio::task::spawn_blocking(work).await;
    made.map_err(|_| Fault::Damaged("the key file"))?
        .map_err(Refusal::BadRequest)
}
