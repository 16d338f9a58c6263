//! `wait`, `collect` and `cancel`: a request that another step opened.

use crate::{
    context::Context,
    edge,
    fail::Failure,
    http::Broker,
    job::{
        release::release,
        session::{Event, Secrets, Session},
        settle,
        signals::Signals,
    },
};
use proto::{ids::RequestId, time::UnixTime};
use std::path::{Path, PathBuf};

/// Most bytes of a request's file.
const FILE_MAX: u64 = 4 << 20;

/// Which request.
#[derive(clap::Args)]
#[command(after_help = "\
The ticket comes from the file that `countersign request --out` wrote, or from COUNTERSIGN_TICKET.

Example:
  countersign cancel --ticket-file request.json")]
pub(crate) struct Args {
    /// The request's id; not needed with a file
    id: Option<RequestId>,
    /// The file that `countersign request --out` wrote
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
}

impl Args {
    /// By id, and by file where there is one.
    pub(crate) const fn new(id: RequestId, ticket_file: Option<PathBuf>) -> Self {
        Self {
            id: Some(id),
            ticket_file,
        }
    }
}

/// Wait until the request is approved. Exits 3 when it was denied, 4 when it expired.
#[derive(clap::Args)]
#[command(after_help = "\
The ticket comes from the file that `countersign request --out` wrote, or from COUNTERSIGN_TICKET.

Examples:
  countersign wait --ticket-file request.json --timeout 600
  countersign wait --published --ticket-file request.json    # what was handed over")]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    which: Args,
    /// Stop waiting after this many seconds (the request stays open)
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Wait until it is published and read back, not just approved
    #[arg(long)]
    published: bool,
}

/// Collect an approved request and publish it.
#[derive(clap::Args)]
#[command(after_help = "\
Needs the file of `countersign request --out`: it holds the key that the credential is sealed to.

Examples:
  countersign collect --ticket-file request.json
  countersign collect --ticket-file request.json -- pnpm publish --no-git-checks")]
pub(crate) struct CollectArgs {
    #[command(flatten)]
    which: Args,
    /// The registry's client [default: that of the registry, with the approved files]
    #[arg(last = true)]
    command: Vec<String>,
}

/// `countersign wait`
pub(crate) async fn wait(context: &Context, args: &WaitArgs) -> Result<(), Failure> {
    let (session, broker) = load(context, &args.which)?;
    let status = session.wait(context, &broker, args.timeout).await?;
    if args.published {
        return settle::settle(context, &broker, &session, None).await;
    }
    let event = Event {
        event: "done",
        status: &status,
    };
    context.out.result(&event, status.state.text())
}

/// `countersign collect`
pub(crate) async fn collect(context: &Context, args: &CollectArgs) -> Result<(), Failure> {
    let mut signals = Signals::new();
    let (session, broker) = load(context, &args.which)?;
    if session.paths.is_empty() {
        return Err(Failure::usage(
            "This request's files are not known here.",
            "Give --ticket-file with the file that `countersign request --out` wrote.",
        ));
    }
    release(
        context,
        &broker,
        &session,
        &args.command,
        None,
        &mut signals,
    )
    .await
}

/// `countersign cancel`
pub(crate) async fn cancel(context: &Context, args: &Args) -> Result<(), Failure> {
    let (session, broker) = load(context, args)?;
    session.cancel(&broker).await?;
    let value = serde_json::json!({"id": session.id, "state": "cancelled"});
    context
        .out
        .result(&value, &format!("cancelled {}", session.id))
}

/// Keeps a request in a file, and beside it the tarballs that were packed for it: they must outlive this command.
pub(crate) fn keep(session: &mut Session, packed: &Path, out: &Path) -> Result<(), Failure> {
    let folder = out.parent().unwrap_or(Path::new("")).to_owned();
    for path in &mut session.paths {
        if path.starts_with(packed) {
            let name = path.file_name().map_or(Path::new("package.tgz"), Path::new);
            let kept =
                std::path::absolute(folder.join(name)).map_err(|e| Failure::file(name, &e))?;
            std::fs::copy(&*path, &kept).map_err(|e| Failure::file(&kept, &e))?;
            *path = kept;
        }
    }
    store(session, out)?;
    session.kept = Some(out.to_owned());
    Ok(())
}

/// Writes a request's file.
pub(crate) fn store(session: &Session, path: &Path) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(session)
        .map(zeroize::Zeroizing::new)
        .map_err(|e| Failure::failed(format!("The request is no JSON: {e}."), "Report this."))?;
    edge::write_private(path, &text)
}

/// Reads a request's file.
pub(crate) fn read(path: &Path) -> Result<Session, Failure> {
    let text = zeroize::Zeroizing::new(edge::read_capped(path, FILE_MAX)?);
    serde_json::from_slice(&text).map_err(|e| {
        Failure::usage(
            format!(
                "{} is no request's file (line {}).",
                path.display(),
                e.line()
            ),
            "Give the file that `countersign request --out` wrote.",
        )
    })
}

/// The ticket of a request, by file or environment.
pub(crate) fn load(context: &Context, args: &Args) -> Result<(Session, Broker), Failure> {
    if let Some(path) = &args.ticket_file {
        let mut session = read(path)?;
        if args.id.is_some_and(|id| id != session.id) {
            return Err(Failure::usage(
                format!("{} belongs to request {}.", path.display(), session.id),
                "Leave out the id.",
            ));
        }
        session.kept = Some(path.clone());
        // The ticket goes to the broker that gave it, whatever --broker says.
        let broker = Broker::new(&session.broker, &context.env)?;
        return Ok((session, broker));
    }
    let (Some(id), Some(ticket)) = (args.id, context.env.get("COUNTERSIGN_TICKET")) else {
        return Err(Failure::usage(
            "No ticket is given.",
            "Give --ticket-file, or the request's id and COUNTERSIGN_TICKET.",
        ));
    };
    let broker = context.broker()?;
    let session = Session {
        broker: broker.base().to_owned(),
        id,
        secrets: Secrets {
            ticket: ticket.to_owned(),
            job_key: String::new(),
        },
        items: Vec::new(),
        paths: Vec::new(),
        plain: false,
        deposit: None,
        inspect: Vec::new(),
        registry_url: std::collections::BTreeMap::default(),
        // Unknown until the first answer; a broker that is away now is a failure now.
        expires: UnixTime(0),
        kept: None,
    };
    Ok((session, broker))
}
