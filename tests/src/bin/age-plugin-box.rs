//! A plugin of age for the tests, made with the library that real ones are made with. In place of a security key it
//! has a folder: its key lies there, and a file `mode` says how it behaves.
//!
//! - none: it wraps and unwraps;
//! - `touch`: it waits until the file is gone;
//! - `hang`: it waits for ever, or until who started it is gone;
//! - `pin`: it wants a PIN;
//! - `other`: it answers with a key, and with the wrong one.

use age::{Identity as _, Recipient as _, secrecy::ExposeSecret as _};
use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use age_plugin::{
    Callbacks, PluginHandler,
    identity::{self, IdentityPluginV1},
    print_new_identity,
    recipient::{self, RecipientPluginV1},
    run_state_machine,
};
use clap::Parser;
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::process::parent_id,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

const NAME: &str = "box";
/// How often it looks whether somebody touched it.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Parser)]
struct Args {
    /// What age runs.
    #[arg(long)]
    age_plugin: Option<String>,
    /// Makes a key in this folder, and prints its identity.
    #[arg(long)]
    new: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(machine) = args.age_plugin {
        return Ok(run_state_machine(&machine, Handler)?);
    }
    let folder = args.new.unwrap_or_default();
    let key = age::x25519::Identity::generate();
    fs::write(folder.join("key"), key.to_string().expose_secret())?;
    let named = folder.display().to_string();
    print_new_identity(NAME, named.as_bytes(), named.as_bytes());
    Ok(())
}

struct Handler;

impl PluginHandler for Handler {
    type RecipientV1 = Boxes;
    type IdentityV1 = Boxes;

    fn recipient_v1(self) -> io::Result<Boxes> {
        Ok(Boxes(Vec::new()))
    }

    fn identity_v1(self) -> io::Result<Boxes> {
        Ok(Boxes(Vec::new()))
    }
}

/// The folders that identities name.
struct Boxes(Vec<PathBuf>);

impl Boxes {
    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let folder = str::from_utf8(bytes).ok().filter(|_| name == NAME);
        self.0.push(folder.ok_or("no identity of a box")?.into());
        Ok(())
    }

    /// Behaves as the first folder says; whether it goes on.
    fn behave<E>(&self, callbacks: &mut impl Callbacks<E>) -> io::Result<bool> {
        let parent = parent_id();
        let mode = || fs::read_to_string(self.0.first()?.join("mode")).ok();
        loop {
            match mode().as_deref() {
                Some("touch") => {
                    let _ = callbacks.message("touch the \u{1b}[31mbox")?;
                    while mode().is_some() {
                        wait(parent);
                    }
                }
                Some("pin") => {
                    let _ = callbacks.request_secret("the box's PIN")?;
                    return Ok(false);
                }
                Some("hang") => wait(parent),
                _ => return Ok(true),
            }
        }
    }
}

/// Waits a moment. A key that is never touched is nobody's when the daemon was killed.
fn wait(parent: u32) {
    thread::sleep(LOOK);
    if parent_id() != parent {
        std::process::exit(1);
    }
}

fn key(folder: &Path) -> Result<age::x25519::Identity, String> {
    let text = fs::read_to_string(folder.join("key"));
    let text = text.map_err(|_| "the box is not plugged in")?;
    Ok(text.parse::<age::x25519::Identity>()?)
}

impl RecipientPluginV1 for Boxes {
    fn add_recipient(
        &mut self,
        index: usize,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), recipient::Error> {
        self.add(name, bytes)
            .map_err(|message| recipient::Error::Recipient { index, message })
    }

    fn add_identity(
        &mut self,
        index: usize,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), recipient::Error> {
        self.add(name, bytes)
            .map_err(|message| recipient::Error::Identity { index, message })
    }

    fn labels(&mut self) -> HashSet<String> {
        HashSet::new()
    }

    fn wrap_file_keys(
        &mut self,
        file_keys: Vec<FileKey>,
        mut callbacks: impl Callbacks<recipient::Error>,
    ) -> io::Result<Result<Vec<Vec<Stanza>>, Vec<recipient::Error>>> {
        let failed = |message| recipient::Error::Internal { message };
        if !self.behave(&mut callbacks)? {
            return Ok(Err(vec![failed("no PIN".to_owned())]));
        }
        let wrap = |file_key: &FileKey| {
            let mut all = Vec::new();
            for folder in &self.0 {
                let to = key(folder)?.to_public();
                let (stanzas, _) = to.wrap_file_key(file_key).map_err(|e| e.to_string())?;
                all.extend(stanzas.into_iter().map(|s| Stanza {
                    tag: NAME.to_owned(),
                    ..s
                }));
            }
            Ok::<_, String>(all)
        };
        let wrapped: Result<Vec<_>, _> = file_keys.iter().map(wrap).collect();
        Ok(wrapped.map_err(|message| vec![failed(message)]))
    }
}

impl IdentityPluginV1 for Boxes {
    fn add_identity(
        &mut self,
        index: usize,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), identity::Error> {
        self.add(name, bytes)
            .map_err(|message| identity::Error::Identity { index, message })
    }

    fn unwrap_file_keys(
        &mut self,
        files: Vec<Vec<Stanza>>,
        mut callbacks: impl Callbacks<identity::Error>,
    ) -> io::Result<HashMap<usize, Result<FileKey, Vec<identity::Error>>>> {
        let mut opened = HashMap::new();
        let failed = |message| Err(vec![identity::Error::Internal { message }]);
        for (file, stanzas) in files.into_iter().enumerate() {
            if !self.behave(&mut callbacks)? {
                opened.insert(file, failed("no PIN".to_owned()));
                continue;
            }
            let own = stanzas.into_iter().filter(|s| s.tag == NAME);
            let own: Vec<_> = own
                .map(|s| Stanza {
                    tag: "X25519".to_owned(),
                    ..s
                })
                .collect();
            for folder in &self.0 {
                match key(folder).map(|key| key.unwrap_stanzas(&own)) {
                    Ok(Some(Ok(_))) if folder.join("mode").exists() => {
                        opened.insert(file, Ok(FileKey::new(Box::new([7; FILE_KEY_BYTES]))));
                    }
                    Ok(Some(Ok(file_key))) => {
                        opened.insert(file, Ok(file_key));
                    }
                    Ok(_) => {}
                    Err(message) => {
                        opened.insert(file, failed(message));
                    }
                }
            }
        }
        Ok(opened)
    }
}
