//! `admin restored`: an older database was put back, and the admins agree to go on with it.

use crate::{
    commands::devices::Code,
    context::{Context, Device},
    fail::Failure,
};
use proto::restored::{Agree, RestoredState};

const PATH: &str = "/v1/admin/restored";

/// An older database was put back. It knows nothing of what was decided after it was taken: a removed device is
/// enrolled in it, a freeze not made, a rotated token the old one. So nothing is approved or released until its
/// admins have looked, and agreed: two of those who were admins then, or the one there was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign admin restored                        # what it is, and who agreed
  countersign admin restored agree                  # with a second factor
  countersign admin restored agree --despite-loss   # although this device saw more than it holds")]
pub(crate) struct RestoredArgs {
    #[command(subcommand)]
    command: Option<RestoredCommand>,
}

#[derive(clap::Subcommand)]
enum RestoredCommand {
    /// Agree to go on with it
    Agree {
        /// Agree although this device saw entries of the log that are lost
        #[arg(long)]
        despite_loss: bool,
        #[command(flatten)]
        code: Code,
    },
}

/// `countersign admin restored`
pub(crate) async fn run(context: &Context, args: RestoredArgs) -> Result<(), Failure> {
    let device = context.device()?;
    let state = match args.command {
        None => now(&device).await?,
        Some(RestoredCommand::Agree { despite_loss, code }) => {
            let profile = context.home()?.profile()?;
            let asked = Agree {
                checkpoint: profile.and_then(|profile| profile.checkpoint),
                despite_loss,
                factor: code.factor()?,
            };
            let path = format!("{PATH}/agree");
            let call = device.broker.post(&path, &asked, device.proof());
            call.await?
        }
    };
    context.out.result(&state, &told(&state))
}

async fn now(device: &Device) -> Result<RestoredState, Failure> {
    device.broker.get(PATH, device.proof()).await
}

fn told(state: &RestoredState) -> String {
    if !state.restored {
        return "this is no older copy: approvals count".to_owned();
    }
    let (Some(taken), Some(since)) = (state.taken, state.since) else {
        return "THE DATABASE IS AN OLDER COPY, and its mark cannot be read: nothing is approved or released\n\
                restore it again from the backup"
            .to_owned();
    };
    let names = |people: Vec<String>| {
        if people.is_empty() {
            "nobody".to_owned()
        } else {
            people.join(", ")
        }
    };
    let may = names(state.may.iter().map(ToString::to_string).collect());
    let agreed = state.agreed.iter().map(|a| match a.lost {
        0 => a.person.to_string(),
        lost => format!(
            "{} (whose device saw {lost} entries that are lost)",
            a.person
        ),
    });
    let how = if state.rolled_back {
        "\n  NOBODY RESTORED IT: its log is shorter than it was. Find out who put it there before you agree"
    } else {
        ""
    };
    let mut text = format!(
        "THE DATABASE IS AN OLDER COPY: nothing is approved or released{how}\n\
         \x20 taken     {}\n\
         \x20 put back  {}\n\
         \x20 log       {} entries came with it\n\
         \x20 agreed    {} of {}: {}\n\
         \x20 may       {may}",
        taken.rfc3339(),
        since.rfc3339(),
        state.entries,
        state.agreed.len(),
        state.needed,
        names(agreed.collect()),
    );
    text.push_str(
        "\n\nDo again what was done since it was taken: freeze what was frozen, before you agree; then remove people,\n\
         devices and client keys that were removed, and rotate tokens that were rotated or shown to a job. The registries,\n\
         the watch (countersign admin watch) and an export of the log tell more.",
    );
    text
}
