//! Handlers of sealing, unsealing, and what opens the vault.

use super::{
    api::{Done, Empty, encode, unsigned, whole},
    reply::Failed,
    routes::Call,
};
use crate::{
    admin::{
        custody::{self, method, shares},
        own::Own,
        signed::SignedBy,
    },
    publish::Refusal,
    secret::Secret,
    vault::Unseal,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::custody::{ChangeMethod, ConfirmMethod, ShareKey, UnsealRequest};

/// Seals the vault.
pub(super) async fn seal(call: Call) -> Done {
    encode(custody::seal(&call.desk, call.now).await.map(|()| Empty {}))
}

/// How the vault is opened, with the caller's own share.
pub(super) async fn unsealing(call: Call) -> Done {
    encode(shares::state(&call.desk, &call.signer()?.person.id).await)
}

/// Opens the vault with its passphrase, or takes the caller's share.
pub(super) async fn unseal(call: Call) -> Done {
    let mut asked: UnsealRequest = call.json()?;
    let signer = call.signer.ok_or_else(unsigned)?;
    let by = SignedBy {
        person: signer.person.id.clone(),
        device: signer.device,
    };
    let (desk, now) = (call.desk, call.now);
    let work = match (asked.passphrase.take(), asked.share.take()) {
        (Some(passphrase), None) => {
            let secret = Unseal::Passphrase(Secret::new(passphrase));
            whole(async move {
                custody::unseal(&desk, secret, std::slice::from_ref(&by), now).await?;
                shares::state(&desk, &by.person).await
            })
            .await
        }
        (None, Some(text)) => {
            let share = share(&Secret::new(text))?;
            whole(async move { shares::hand_in(&desk, by, share, now).await }).await
        }
        _ => Err(Refusal::BadRequest(
            "give a passphrase or a share".to_owned(),
        )),
    };
    encode(work)
}

/// Registers the caller's key for shares.
pub(super) async fn share_key(call: Call) -> Done {
    let given: ShareKey = call.json()?;
    let done = shares::set_key(&call.desk, call.signer()?.own(), &given, call.now).await;
    encode(done.map(|()| Empty {}))
}

/// What opens the vault, and what is about to.
pub(super) async fn method(call: Call) -> Done {
    encode(method::state(&call.desk, call.signer()?.own(), call.now).await)
}

/// Asks that something else opens the vault.
pub(super) async fn change_method(call: Call) -> Done {
    let given: ChangeMethod = call.json()?;
    let signer = call.signer.ok_or_else(unsigned)?;
    let (desk, now) = (call.desk, call.now);
    encode(whole(async move { method::ask(&desk, signer.own(), given, now).await }).await)
}

/// Confirms it.
pub(super) async fn confirm_method(call: Call) -> Done {
    let mut given: ConfirmMethod = call.json()?;
    let text = given.share.take().map(Secret::new);
    let share = text.as_ref().map(share).transpose()?;
    let signer = call.signer.ok_or_else(unsigned)?;
    let (desk, now) = (call.desk, call.now);
    let work = async move {
        let own: Own<'_> = signer.own();
        method::confirm(&desk, own, given, share, now).await
    };
    encode(whole(work).await)
}

/// Takes it back.
pub(super) async fn cancel_method(call: Call) -> Done {
    encode(method::cancel(&call.desk, call.signer()?.own(), call.now).await)
}

fn share(text: &Secret<String>) -> Result<Secret<Vec<u8>>, Failed> {
    let share = STANDARD.decode(text.expose()).map(Secret::new);
    share.map_err(|_| Refusal::BadRequest("a share is base64".to_owned()).into())
}
