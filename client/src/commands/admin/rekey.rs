//! `admin rekey`: the vault's data key.

use super::acts;
use crate::{commands::devices::Code, context::Context, fail::Failure};
use proto::{
    act::Act,
    custody::{DataKey, Rekeying},
};
use serde_json::json;

/// Give the vault a fresh data key, and write everything anew under it, while the broker serves. After a copy of the
/// key file got out with what opened it: first let something else open the vault (countersign admin unseal-method).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin rekey              # asks for a code; a second admin, if there is one, confirms
  countersign admin unseal-method      # how far it is

Old backups open as before, with what opened the vault then: destroy those that nobody needs. \
Fingerprints of tokens change with the key.")]
pub(crate) struct RekeyArgs {
    #[command(flatten)]
    code: Code,
}

/// `countersign admin rekey`
pub(super) async fn run(context: &Context, args: &RekeyArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let acted = acts::ask(&device, Act::Rekey, None, &args.code).await?;
    let value = json!({"rekeying": acted.done});
    let done = "the vault is being re-keyed; how far it is: countersign admin unseal-method";
    acts::told(context, &acted, &value, done)
}

/// The line about the data key; none while there is nothing to say.
pub(super) fn line(key: &DataKey) -> Option<String> {
    let DataKey {
        generation, old, ..
    } = key;
    let words = match (key.step, key.until) {
        (Some(Rekeying::Agreed), _) => "a fresh one is about to come".to_owned(),
        (Some(Rekeying::Writing), _) => "everything is being written anew under it".to_owned(),
        (Some(Rekeying::Retired), Some(until)) => format!(
            "everything is under it; the one before goes after {}",
            until.rfc3339()
        ),
        _ if *generation == 1 && old.is_none() => return None,
        _ => "everything is under it".to_owned(),
    };
    Some(format!("data key {generation}: {words}"))
}
