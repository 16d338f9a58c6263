//! From files and folders to the items of a request: packs folders, reads what was packed, and looks for
//! settings that publish past the broker.

use super::{
    bypass::{self, Setting},
    crates, distribution, idtoken,
    open::{self, Shown},
    session::Session,
    tarball::{self, Tarball},
    tool::{Plan, Tool},
};
use crate::{context::Context, fail::Failure, http::Broker};
use proto::{ids::RegistryId, request::Item};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use url::Url;

/// Most bytes of a note.
const NOTE_MAX: usize = 500;

/// What is to be published.
#[derive(clap::Args)]
pub(crate) struct What {
    /// The registry, as the broker's configuration names it
    pub(crate) registry: RegistryId,
    /// A tarball made by `npm pack`, or a package's folder; wheels and source archives, or the folder
    /// that holds them; a .crate, or the folder of a crate or a cargo workspace; several are one request
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub(crate) paths: Vec<PathBuf>,
    /// The dist-tag [default: publishConfig.tag, else latest]
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Words for the approver, shown as unverified
    #[arg(long)]
    pub(crate) note: Option<String>,
    /// Pack crates without building what was packed
    #[arg(long)]
    pub(crate) no_verify: bool,
}

/// What was read from disk.
pub(crate) struct Ready {
    /// What is to be published.
    items: Vec<Item>,
    /// Their files, in the same order.
    paths: Vec<PathBuf>,
    /// Settings that may lead past the broker.
    settings: Vec<Setting>,
    /// The folder that the command runs in, where one was given.
    pub(crate) folder: Option<PathBuf>,
    /// Holds packed tarballs.
    pub(crate) packed: TempDir,
}

impl Ready {
    /// Asks for approval. A project whose settings lead to another registry than the broker names is
    /// refused, and its request taken back.
    pub(crate) async fn open(
        &self,
        context: &Context,
        broker: &Broker,
        what: &What,
    ) -> Result<(Session, Shown), Failure> {
        let token = idtoken::obtain(&context.env, broker).await?;
        let items = self.items.clone();
        let (mut session, shown) =
            open::open(&context.env, broker, &token, items, what.note.clone()).await?;
        session.paths.clone_from(&self.paths);
        if let Err(f) = self.agrees(&session) {
            let _ = session.cancel(broker).await;
            return Err(f);
        }
        Ok((session, shown))
    }

    /// Now that the broker named its registry endpoint: settings must name exactly that one.
    fn agrees(&self, session: &Session) -> Result<(), Failure> {
        session
            .registry_url
            .values()
            .try_for_each(|url| bypass::refuse_other(&self.settings, url))
    }
}

/// Packs folders, reads tarballs, and looks for settings that publish past the broker.
pub(crate) async fn prepare(
    context: &Context,
    what: &What,
    command: &[String],
) -> Result<Ready, Failure> {
    if let Some(note) = &what.note {
        proto::text::check(note, NOTE_MAX)
            .map_err(|e| Failure::usage(format!("The note {e}."), "Shorten or clean it."))?;
    }
    let tool = Tool::of(command);
    let packed = tempfile::Builder::new()
        .prefix("countersign-pack-")
        .tempdir()
        .map_err(|e| Failure::file(&std::env::temp_dir(), &e))?;
    let mut ready = Ready {
        items: Vec::new(),
        paths: Vec::new(),
        settings: Vec::new(),
        folder: None,
        packed,
    };
    let python = what
        .paths
        .iter()
        .filter(|p| distribution::is_python(p))
        .count();
    if python > 0 {
        if python < what.paths.len() || what.tag.is_some() {
            return Err(Failure::usage(
                "Python distributions are published without a tag and by themselves.",
                "Leave out --tag, and publish other packages with another command.",
            ));
        }
        for (item, paths) in distribution::releases(&what.paths, &what.registry)? {
            ready.items.push(item);
            ready.paths.extend(paths);
        }
        if let [folder] = what.paths.as_slice()
            && folder.join("pyproject.toml").exists()
        {
            // hatch and flit publish from the project's folder.
            ready.folder = Some(folder.clone());
        }
        return Ok(ready);
    }
    let cargo = what.paths.iter().filter(|p| crates::is_crate(p)).count();
    if cargo > 0 {
        if cargo < what.paths.len() || what.tag.is_some() {
            return Err(Failure::usage(
                "Crates are published without a tag and by themselves.",
                "Leave out --tag, and publish other packages with another command.",
            ));
        }
        return with_crates(what, ready).await;
    }
    for (n, path) in what.paths.iter().enumerate() {
        let is_folder = path.is_dir();
        let file = if is_folder {
            // Reads it first: packing may take minutes.
            tarball::folder_manifest(path)?;
            pack(
                context,
                command,
                path,
                &ready.packed.path().join(n.to_string()),
            )
            .await?
        } else {
            path.clone()
        };
        let tarball = Tarball::read(&file, &what.registry, what.tag.as_deref())?;
        let place = if is_folder {
            path.clone()
        } else {
            PathBuf::from(".")
        };
        let place = std::path::absolute(&place).map_err(|e| Failure::file(&place, &e))?;
        let found = bypass::find(tool, &place, &tarball.manifest, tarball.scope());
        ready.settings.extend(found);
        if is_folder && what.paths.len() == 1 {
            ready.folder = Some(path.clone());
        }
        ready.items.push(tarball.item);
        ready.paths.push(tarball.path);
    }
    let broker = context.broker()?;
    let url =
        Url::parse(broker.base()).map_err(|e| Failure::usage(e.to_string(), "Check --broker."))?;
    bypass::refuse_elsewhere(&ready.settings, &url)?;
    Ok(ready)
}

/// Packs folders with cargo, and reads the `.crate` files.
async fn with_crates(what: &What, mut ready: Ready) -> Result<Ready, Failure> {
    for (n, path) in what.paths.iter().enumerate() {
        let files = if crates::is_file(path) {
            vec![path.clone()]
        } else {
            let into = ready.packed.path().join(n.to_string());
            crates::pack(path, &into, !what.no_verify).await?
        };
        for file in files {
            let (item, file) = crates::read(&file, &what.registry)?;
            ready.items.push(item);
            ready.paths.push(file);
        }
    }
    if let [folder] = what.paths.as_slice()
        && folder.is_dir()
    {
        ready.folder = Some(folder.clone());
    }
    Ok(ready)
}

async fn pack(
    context: &Context,
    command: &[String],
    folder: &Path,
    into: &Path,
) -> Result<PathBuf, Failure> {
    std::fs::create_dir(into).map_err(|e| Failure::file(into, &e))?;
    let status = Plan::pack(command, folder, into, &context.env)?
        .run(true)
        .await?;
    if !status.success() {
        return Err(Failure::failed(
            format!("{} could not be packed ({status}).", folder.display()),
            "Read the packing tool's output above.",
        ));
    }
    let mut files = std::fs::read_dir(into)
        .map_err(|e| Failure::file(into, &e))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "tgz"));
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file),
        _ => Err(Failure::failed(
            format!(
                "Packing {} did not make exactly one tarball.",
                folder.display()
            ),
            "Pack it yourself and give the .tgz file.",
        )),
    }
}
