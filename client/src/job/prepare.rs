//! From files and folders to the items of a request: packs folders, reads what was packed, and looks for
//! settings that publish past the broker.

use super::{
    bypass::{self, Setting},
    crates, distribution, files, gem, idtoken, oci,
    open::{self, Shown, Wish},
    order,
    session::Session,
    tarball::{self, Tarball},
    tool::{Plan, Tool},
    workspace,
};
use crate::{context::Context, fail::Failure, http::Broker};
use proto::{ids::RegistryId, problem::Code, request::Item, text::harmless};
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
    /// that holds them; a .crate, or the folder of a crate or a cargo workspace; .gem files; with --layout a
    /// repository and a tag, like acme/app:1.4.2; several are one request
    #[arg(
        required_unless_present = "workspaces",
        value_name = "FILE|FOLDER|NAME:TAG"
    )]
    pub(crate) paths: Vec<PathBuf>,
    /// Every package of the npm, pnpm or Yarn workspace here (or in FOLDER) that is neither private nor
    /// published already
    #[arg(long)]
    pub(crate) workspaces: bool,
    /// Leave out versions that the registry has already, instead of refusing them all
    #[arg(long)]
    pub(crate) skip_published: bool,
    /// The dist-tag [default: publishConfig.tag, else latest]
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// The OCI layout (a folder) that holds the image
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["tag", "workspaces"])]
    pub(crate) layout: Option<PathBuf>,
    /// Publish the files as they are, as this version of this package
    #[arg(
        long = "as",
        value_name = "PACKAGE@VERSION",
        conflicts_with_all = ["layout", "tag", "workspaces"]
    )]
    pub(crate) named: Option<String>,
    /// Words for the approver, shown as unverified
    #[arg(long)]
    pub(crate) note: Option<String>,
    /// Pack crates without building what was packed
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// The source that all of it was made of, as `git archive -o source.tar.gz HEAD` makes it: people see what of the
    /// files is not in it
    #[arg(long, value_name = "TAR.GZ")]
    pub(crate) source: Option<PathBuf>,
}

impl What {
    /// Files that are only read, to say what they are.
    pub(crate) const fn files(
        registry: RegistryId,
        paths: Vec<PathBuf>,
        tag: Option<String>,
    ) -> Self {
        Self {
            registry,
            paths,
            workspaces: false,
            skip_published: false,
            tag,
            layout: None,
            named: None,
            note: None,
            no_verify: false,
            source: None,
        }
    }
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
    /// What was read.
    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Asks for approval. A project whose settings lead to another registry than the broker names is
    /// refused, and its request taken back. `None`: everything is published already.
    pub(crate) async fn open(
        &self,
        context: &Context,
        broker: &Broker,
        what: &What,
    ) -> Result<Option<(Session, Shown)>, Failure> {
        let token = idtoken::obtain(&context.env, broker).await?;
        let wish = Wish {
            items: self.items.clone(),
            note: what.note.clone(),
            leave_out_published: what.skip_published || what.workspaces,
        };
        let opened = open::open(&context.env, broker, &token, wish).await;
        let (mut session, shown) = match opened {
            Err(f) if f.code == Some(Code::AllPublished) => {
                self.tell_left_out(context, &[]);
                return Ok(None);
            }
            other => other?,
        };
        self.tell_left_out(context, &session.items);
        session.paths = self.paths_of(&session.items);
        session.plain = what.named.is_some();
        if let Err(f) = self.agrees(&session) {
            let _ = session.cancel(broker).await;
            return Err(f);
        }
        Ok(Some((session, shown)))
    }

    fn tell_left_out(&self, context: &Context, kept: &[Item]) {
        for item in self.items.iter().filter(|i| !kept.contains(i)) {
            let name = harmless(&item.name());
            context
                .out
                .note(&format!("  left out   {name}: it is published already"));
        }
    }

    /// The files of the items that were not left out.
    fn paths_of(&self, kept: &[Item]) -> Vec<PathBuf> {
        let mut paths = self.paths.iter();
        let mut out = Vec::new();
        for item in &self.items {
            let own = paths.by_ref().take(item.files.len());
            if kept.contains(item) {
                out.extend(own.cloned());
            } else {
                own.for_each(drop);
            }
        }
        out
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
    if let Some(source) = &what.source {
        // Before anybody is asked: a file that is not there is the job's own mistake.
        let file = std::fs::File::open(source).and_then(|f| f.metadata());
        if !file.map_err(|e| Failure::file(source, &e))?.is_file() {
            return Err(Failure::usage(
                format!("{} is no file.", source.display()),
                "Give the archive: git archive -o source.tar.gz HEAD",
            ));
        }
    }
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
    if let Some(named) = &what.named {
        let (item, paths) = files::read(named, &what.paths, &what.registry)?;
        ready.items.push(item);
        ready.paths.extend(paths);
        return Ok(ready);
    }
    if let Some(layout) = &what.layout {
        for reference in &what.paths {
            let (item, paths) = oci::read(reference, layout, &what.registry)?;
            ready.items.push(item);
            ready.paths.extend(paths);
        }
        return Ok(ready);
    }
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
    let gems = what.paths.iter().filter(|p| gem::is_gem(p)).count();
    if gems > 0 {
        if gems < what.paths.len() || what.tag.is_some() {
            return Err(Failure::usage(
                "Gems are published without a tag and by themselves.",
                "Leave out --tag, and publish other packages with another command.",
            ));
        }
        for (item, paths) in gem::releases(&what.paths, &what.registry)? {
            ready.items.push(item);
            ready.paths.extend(paths);
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
        return with_crates(context, what, ready).await;
    }
    with_npm(context, what, command, ready).await
}

/// Packs folders or a workspace with npm, pnpm or Yarn, and reads the tarballs.
async fn with_npm(
    context: &Context,
    what: &What,
    command: &[String],
    mut ready: Ready,
) -> Result<Ready, Failure> {
    let mut tarballs = Vec::new();
    let mut read = |file: &Path, place: &Path| -> Result<(), Failure> {
        let tarball = Tarball::read(file, &what.registry, what.tag.as_deref())?;
        let place = std::path::absolute(place).map_err(|e| Failure::file(place, &e))?;
        let found = bypass::find(
            Tool::of(command),
            &place,
            &tarball.manifest,
            tarball.scope(),
        );
        ready.settings.extend(found);
        tarballs.push(tarball);
        Ok(())
    };
    let packed = ready.packed.path();
    if what.workspaces {
        let root = match what.paths.as_slice() {
            [] => Path::new("."),
            [root] => root,
            _ => {
                return Err(Failure::usage(
                    "--workspaces takes the root of one workspace.",
                    "Leave --workspaces out to publish several folders or tarballs.",
                ));
            }
        };
        for file in workspace::packed(context, command, root, &packed.join("all")).await? {
            read(&file, root)?;
        }
        ready.folder = Some(root.to_owned());
    } else {
        workspace::refuse_too_many(what.paths.len())?;
        for (n, path) in what.paths.iter().enumerate() {
            if path.is_dir() {
                // Reads it first: packing may take minutes.
                tarball::folder_manifest(path)?;
                let into = packed.join(n.to_string());
                read(&pack(context, command, path, &into).await?, path)?;
            } else {
                read(path, Path::new("."))?;
            }
        }
        if let [folder] = what.paths.as_slice()
            && folder.is_dir()
        {
            ready.folder = Some(folder.clone());
        }
    }
    let broker = context.broker()?;
    let url =
        Url::parse(broker.base()).map_err(|e| Failure::usage(e.to_string(), "Check --broker."))?;
    bypass::refuse_elsewhere(&ready.settings, &url)?;
    let (ordered, circle) = order::in_order(tarballs);
    if !circle.is_empty() {
        let names: Vec<_> = circle.iter().map(|n| harmless(n)).collect();
        context.out.note(&format!(
            "  some packages need each other in a circle; these go first: {}",
            names.join(", ")
        ));
    }
    for tarball in ordered {
        ready.items.push(tarball.item);
        ready.paths.push(tarball.path);
    }
    Ok(ready)
}

/// Packs folders with cargo, and reads the `.crate` files.
async fn with_crates(context: &Context, what: &What, mut ready: Ready) -> Result<Ready, Failure> {
    for (n, path) in what.paths.iter().enumerate() {
        let files = if crates::is_file(path) {
            vec![path.clone()]
        } else {
            let into = ready.packed.path().join(n.to_string());
            crates::pack(path, &into, !what.no_verify, &context.env).await?
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

/// Packs one folder with the command's own tool, else npm.
pub(crate) async fn pack(
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
    match workspace::tarballs(into)?.as_slice() {
        [file] => Ok(file.clone()),
        _ => Err(Failure::failed(
            format!(
                "Packing {} did not make exactly one tarball.",
                folder.display()
            ),
            "Pack it yourself and give the .tgz file.",
        )),
    }
}
