//! `cargo-credential`: cargo asks for a token before it uploads, and says for which bytes.
//!
//! The weaker way to publish a crate: what cargo gets is the stored token itself, and cargo sends it to the
//! registry. `countersign publish crates` never shows it to the job.

use crate::{
    cli::{Cli, Command},
    context::Context,
    edge::Env,
    fail::Failure,
    http::Broker,
    job::{
        cargo_protocol::{self as protocol, Answer, Cache, Given, Hello, Refused, Request},
        idtoken, open,
        session::{Session, ended},
        signals::Signals,
    },
    out::Out,
};
use clap::Parser as _;
use proto::{
    api::Mode,
    ids::{PackageName, RegistryId},
    request::{File, Item},
    text::harmless,
};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc::UnboundedReceiver;
use zeroize::Zeroizing;

/// What `read` is answered. Nobody's token: an index that asks for one is not served by this provider.
const READS_NEED_NONE: &str = "countersign-has-no-token-for-reading";
/// cargo's own name for the public registry; its settings cannot give it to another.
const PUBLIC: &str = "crates-io";

/// cargo's credential provider: asks people for approval of exactly the crate that cargo is about to upload,
/// and then gives cargo the stored token itself. The token counts as exposed from then on: rotate it. The
/// policy must say mode = "reveal" for the crate. Prefer `publish`, which never shows the token to the job.
#[derive(clap::Args)]
#[command(after_help = "\
cargo starts this by itself. In its settings (.cargo/config.toml of the job, never of the repository):
  [registry]
  credential-provider = [\"countersign\", \"cargo-credential\", \"crates\"]

or in the environment:
  CARGO_REGISTRY_CREDENTIAL_PROVIDER=\"countersign cargo-credential crates\" cargo publish

for another registry than the public one, with its index:
  CARGO_REGISTRIES_MINE_CREDENTIAL_PROVIDER=\"countersign cargo-credential mine --index sparse+https://crates.example/index/\"

With --requests, a later step of the job can ask what the registry shows:
  countersign wait --published --ticket-file requests/left-1.4.2.json")]
pub(crate) struct Args {
    /// The registry, as the broker's configuration names it
    registry: RegistryId,
    /// The index that the token is for, as cargo's settings have it [default: the public registry]
    #[arg(long, value_name = "URL")]
    index: Option<String>,
    /// Keep the requests in this folder (mode 0600): the same crate again goes on with its request, and
    /// `wait --published` takes them
    #[arg(long, value_name = "FOLDER")]
    requests: Option<PathBuf>,
    /// Words for the approver, shown as unverified
    #[arg(long)]
    note: Option<String>,
    /// Stop waiting after this many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// Typed by a person: cargo alone can talk to it.
pub(crate) fn not_by_hand() -> Failure {
    Failure::usage(
        "cargo starts this by itself.",
        "Put it into cargo's settings: `countersign cargo-credential --help`.",
    )
}

/// Speaks with cargo until cargo ends. What goes wrong with a request is the answer to it; cargo prints it
/// and fails. Exits other than 0 only when cargo cannot be talked to.
pub(crate) async fn plugin(env: &Env) -> Result<(), Failure> {
    let out = Out::new(false, env);
    out.json(&Hello::new())?;
    let mut signals = Signals::new();
    let mut lines = protocol::lines();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            stopped = signals.stopped() => return Err(stopped),
        };
        let Some(line) = line else {
            return Ok(());
        };
        let request: Request = serde_json::from_str(&line).map_err(|e| {
            Failure::failed(
                format!("cargo's request is not understood: {e}."),
                "Update countersign or cargo.",
            )
        })?;
        let answer = match answer(env, &request, &mut lines, &mut signals).await {
            Ok(answer) => answer,
            Err(failure) => Answer::Err(Refused::from(&failure)),
        };
        out.json(&answer)?;
    }
}

async fn answer(
    env: &Env,
    request: &Request,
    lines: &mut UnboundedReceiver<String>,
    signals: &mut Signals,
) -> Result<Answer, Failure> {
    if request.v != protocol::VERSION {
        return Err(Failure::failed(
            format!("cargo speaks version {} of its protocol.", request.v),
            "Update countersign.",
        ));
    }
    let (context, args) = settings(env, &request.args)?;
    if !is_for(&args, &request.registry) {
        return Ok(Answer::Err(Refused::UrlNotSupported));
    }
    match (request.kind.as_str(), request.operation.as_str()) {
        ("get", "read") => {
            let token = Zeroizing::new(READS_NEED_NONE.to_owned());
            Ok(Answer::Ok(Given::new(token, Cache::Session)))
        }
        ("get", "publish") => {
            let item = announced(&args.registry, request)?;
            let token = lend(&context, &args, item, lines, signals).await?;
            Ok(Answer::Ok(Given::new(token, Cache::Never)))
        }
        _ => Ok(Answer::Err(Refused::OperationNotSupported)),
    }
}

/// What stands behind our name in cargo's settings.
fn settings(env: &Env, args: &[String]) -> Result<(Context, Args), Failure> {
    let wrong = |why: String| {
        Failure::usage(
            format!("cargo's settings for this provider are wrong: {why}"),
            "See `countersign cargo-credential --help`.",
        )
    };
    let words = std::iter::once("countersign").chain(args.iter().map(String::as_str));
    let cli = Cli::try_parse_from(words).map_err(|e| wrong(e.kind().to_string()))?;
    let Command::CargoCredential(args) = cli.command else {
        return Err(wrong("another command is named".to_owned()));
    };
    let context = Context {
        // Standard output is cargo's.
        out: Out::new(false, env),
        env: env.clone(),
        broker: cli.broker,
    };
    Ok((context, args))
}

/// A provider may be asked for every registry there is: the token is for one.
fn is_for(args: &Args, registry: &protocol::Registry) -> bool {
    match &args.index {
        Some(index) => *index == registry.index_url,
        None => registry.name.as_deref() == Some(PUBLIC),
    }
}

/// What cargo says that it will upload. Its size is not told.
fn announced(registry: &RegistryId, request: &Request) -> Result<Item, Failure> {
    let odd = |what: &str| {
        Failure::failed(
            format!("cargo's {what} is not understood."),
            "Update countersign or cargo.",
        )
    };
    let digest = format!("sha256:{}", request.cksum);
    Ok(Item {
        registry: registry.clone(),
        package: request.name.parse().map_err(|_| odd("crate name"))?,
        version: request.vers.parse().map_err(|_| odd("version"))?,
        tag: None,
        files: vec![File {
            name: format!("{}-{}.crate", request.name, request.vers),
            size: 0,
            digest: digest.parse().map_err(|_| odd("checksum"))?,
        }],
    })
}

/// Asks, waits and collects.
async fn lend(
    context: &Context,
    args: &Args,
    item: Item,
    lines: &mut UnboundedReceiver<String>,
    signals: &mut Signals,
) -> Result<Zeroizing<String>, Failure> {
    let broker = context.broker()?;
    let kept = args
        .requests
        .as_deref()
        .map(|folder| place(folder, &item.package, item.version.as_str()))
        .transpose()?;
    let session = match going_on(&broker, kept.as_deref(), &item).await {
        Some(session) => {
            let note = format!("  going on with request {}", session.id);
            context.out.note(&note);
            session
        }
        None => opened(context, args, &broker, item, kept.as_deref()).await?,
    };
    tokio::select! {
        waited = session.wait_or_cancel(context, &broker, args.timeout, signals) => waited?,
        // cargo asks one thing at a time: another line, or their end, means that it waits no longer.
        _ = lines.recv() => {
            let _ = session.cancel(&broker).await;
            return Err(Failure::failed(
                "cargo stopped waiting; the request is cancelled.",
                "Run the job again.",
            ));
        }
    };
    let (mode, mut release) = session.collect(&broker).await?;
    let (Mode::Reveal, Some(token)) = (mode, release.secret.take()) else {
        return Err(Failure::refused(
            "The broker handed out no token.",
            "Ask an admin whether the policy reveals this crate's token.",
        ));
    };
    let token = Zeroizing::new(token);
    let out = &context.out;
    out.note("  approved: cargo gets the token itself, and publishes by itself. Until it is rotated, everything");
    out.note("  that runs in this job could publish whatever the token covers (`countersign admin token rotate`).");
    out.note(
        "  The broker reads the registry back, and raises an alarm when it shows other bytes.",
    );
    if let Some(path) = &kept {
        out.note(&format!(
            "  what it shows: countersign wait --published --ticket-file {}",
            harmless(&path.display().to_string())
        ));
    }
    Ok(token)
}

async fn opened(
    context: &Context,
    args: &Args,
    broker: &Broker,
    item: Item,
    kept: Option<&Path>,
) -> Result<Session, Failure> {
    let token = idtoken::obtain(&context.env, broker).await?;
    let wish = open::Wish {
        items: vec![item],
        note: args.note.clone(),
        leave_out_published: false,
    };
    let (session, shown) = open::open(&context.env, broker, &token, wish).await?;
    if let Some(path) = kept {
        super::ticket::store(&session, path)?;
    }
    session.show(context, &shown)?;
    context.out.note(
        "  this asks for the registry's token itself, which is weaker than `countersign publish`",
    );
    Ok(session)
}

/// Where a crate's request is kept.
fn place(folder: &Path, package: &PackageName, version: &str) -> Result<PathBuf, Failure> {
    let name = format!("{package}-{version}.json");
    if name.contains(['/', '\\']) {
        return Err(Failure::failed(
            format!("{name} is no file's name."),
            "Check the crate's name.",
        ));
    }
    std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, &e))?;
    Ok(folder.join(name))
}

/// The request that an earlier run of this job opened for the very same bytes, while it leads anywhere.
async fn going_on(broker: &Broker, kept: Option<&Path>, item: &Item) -> Option<Session> {
    let session = super::ticket::read(kept?).ok()?;
    let same = session.items == [item.clone()] && session.broker == broker.base();
    let status = session.poll(broker, None, 0).await.ok()?;
    (same && ended(status).is_ok()).then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Result<Args, Failure> {
        let words: Vec<_> = words.iter().map(|w| (*w).to_owned()).collect();
        settings(&Env::default(), &words).map(|(_, args)| args)
    }

    fn registry(index_url: &str, name: Option<&str>) -> protocol::Registry {
        protocol::Registry {
            index_url: index_url.to_owned(),
            name: name.map(str::to_owned),
        }
    }

    #[test]
    fn attack_39_a_provider_answers_for_its_own_registry_only() {
        let public = args(&["cargo-credential", "crates"]).unwrap();
        assert!(is_for(
            &public,
            &registry("https://index.example/x", Some("crates-io"))
        ));
        assert!(!is_for(
            &public,
            &registry("https://index.example/x", Some("mine"))
        ));
        assert!(!is_for(&public, &registry("https://index.example/x", None)));
        let own = "sparse+https://a.example/index/";
        let mine = args(&["cargo-credential", "mine", "--index", own]).unwrap();
        assert!(is_for(&mine, &registry(own, Some("any"))));
        for other in [
            "sparse+https://b.example/index/",
            "sparse+https://a.example/index",
            "",
        ] {
            assert!(
                !is_for(&mine, &registry(other, Some("crates-io"))),
                "{other}"
            );
        }
    }

    #[test]
    fn settings_that_name_something_else_are_refused() {
        for bad in [
            &["publish", "crates", "."][..],
            &["cargo-credential"],
            &["cargo-credential", "crates", "--nonsense"],
            &["--help"],
            &[],
        ] {
            assert_eq!(args(bad).err().unwrap().exit as u8, 2, "{bad:?}");
        }
    }

    #[test]
    fn a_requests_file_stays_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let name = |n: &str| n.parse::<PackageName>().unwrap();
        assert!(place(dir.path(), &name("acme-left"), "1.0.0").is_ok());
        assert!(place(dir.path(), &name("@acme/left"), "1.0.0").is_err());
        assert!(place(dir.path(), &name("acme-left"), "../1.0.0").is_err());
    }
}
