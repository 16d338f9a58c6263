//! An age plugin (c2sp.org/age-plugin): a program that wraps and unwraps with a key of its own, which lies in a security
//! key, a TPM or a module of the house.
//!
//! The program is the one that the configuration names, by its whole path. age itself looks for it on the `PATH` by a
//! name in the identity: whoever writes that text would choose what runs (RUSTSEC-2024-0433).

use crate::secret::Secret;
use age::{DecryptError, EncryptError};
use age_core::{
    format::{FileKey, Stanza, is_arbitrary_string},
    io::{DebugReader, DebugWriter},
    plugin::{Connection, IDENTITY_V1, RECIPIENT_V1, Reply, Response},
    secrecy::ExposeSecret as _,
};
use proto::text::harmless;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, geteuid, getpid, pidfd_open, pidfd_send_signal,
    waitid,
};
use std::{
    collections::HashSet,
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};
use thiserror::Error;
use zeroize::Zeroize as _;

/// Longest time for one answer: somebody may have to touch a key.
const WITHIN: Duration = Duration::from_mins(1);
/// How long a program may take to end after its last word, before it is ended.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);
/// What an identity of a plugin begins with.
const IDENTITY: &str = "AGE-PLUGIN-";
/// Longest text of a plugin that is told on, in characters.
const SAID_MAX: usize = 300;

/// Why a plugin did not do it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PluginError {
    /// The library would print what goes to and fro.
    #[error("the variable AGEDEBUG is set, and would print the vault's keys: unset it")]
    Debugged,
    /// No plugin's identity in the text.
    #[error(
        "no identity of an age plugin found: expected lines that begin with {IDENTITY}, as the plugin's own program prints them"
    )]
    NoIdentity,
    /// Somebody else could replace it.
    #[error(
        "{0}: the age plugin, and every folder on the way to it, must belong to root or to the daemon's user, and nobody else may write there"
    )]
    Unsafe(PathBuf),
    /// It did not start.
    #[error("{0}: the age plugin cannot be started: {1}")]
    NotStarted(PathBuf, String),
    /// Nothing came.
    #[error(
        "the age plugin gave no answer within {0} s: if it waits for a touch, touch the key then"
    )]
    Slow(u64),
    /// It ended, or spoke another language.
    #[error("the age plugin broke off: {0}")]
    Broke(String),
    /// It wanted to ask somebody.
    #[error(
        "the age plugin asks for a PIN, and nobody is there to type it: use a key that wants a touch, or nothing. It says: {0}"
    )]
    Asks(String),
    /// The vault was sealed meanwhile, or the daemon ends.
    #[error("the age plugin was ended: the vault was sealed meanwhile")]
    Ended,
    /// It says that it failed.
    #[error("the age plugin says: {0}")]
    Said(String),
}

/// A plugin's program, and the identities in it that are meant.
#[derive(Clone)]
pub struct Plugin(Arc<Meant>);

struct Meant {
    program: PathBuf,
    identities: Vec<Secret<String>>,
    within: Duration,
    runs: Mutex<Runs>,
}

/// What runs of a plugin.
enum Runs {
    Nothing,
    This(Arc<OwnedFd>),
    /// Nothing, and nothing will any more.
    Ended,
}

type Talk = Connection<DebugReader<ChildStdout>, DebugWriter<ChildStdin>>;

impl Plugin {
    /// The program at `program`, with the identities in `text`: lines of `AGE-PLUGIN-…`, comments with `#`.
    pub fn new(program: &Path, text: &Secret<String>) -> Result<Self, PluginError> {
        Self::within(program, text, WITHIN)
    }

    fn within(program: &Path, text: &Secret<String>, time: Duration) -> Result<Self, PluginError> {
        let lines = text.expose().lines().map(str::trim);
        let found = lines.filter(|line| line.starts_with(IDENTITY) && is_arbitrary_string(line));
        let identities: Vec<_> = found.map(|line| Secret::new(line.to_owned())).collect();
        if identities.is_empty() {
            return Err(PluginError::NoIdentity);
        }
        Ok(Self(Arc::new(Meant {
            program: program.to_owned(),
            identities,
            within: time,
            runs: Mutex::new(Runs::Nothing),
        })))
    }

    /// Where the program is, if it may be run: whoever can put another one there has the vault's keys at the next
    /// start.
    pub fn check(program: &Path) -> Result<PathBuf, PluginError> {
        let not_there = |e: io::Error| PluginError::NotStarted(program.into(), e.to_string());
        // From here on no link is followed that somebody changes meanwhile.
        let found = fs::canonicalize(program).map_err(not_there)?;
        for (at, place) in found.ancestors().enumerate() {
            let seen = fs::symlink_metadata(place).map_err(not_there)?;
            let own = [0, geteuid().as_raw()].contains(&seen.uid());
            // In a folder like /tmp others write, and replace nothing.
            let kept = seen.mode() & 0o022 == 0 || (at > 0 && seen.mode() & 0o1000 != 0);
            let fits = at > 0 || (seen.is_file() && seen.mode() & 0o111 != 0);
            if !(own && kept && fits) {
                return Err(PluginError::Unsafe(place.to_owned()));
            }
        }
        Ok(found)
    }

    /// Ends what runs, and runs nothing any more.
    pub(in crate::vault) fn end(&self) {
        if let Runs::This(process) = std::mem::replace(&mut *self.0.runs(), Runs::Ended) {
            let _ = pidfd_send_signal(&*process, Signal::KILL);
        }
    }

    /// Whether nobody else has it any more.
    pub(in crate::vault) fn is_left(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Runs the program and talks with it, for so long and no longer. Blocking.
    fn run(
        &self,
        machine: &'static str,
        talk: impl FnOnce(&Meant, &mut Talk) -> io::Result<Heard> + Send + 'static,
    ) -> Result<Heard, PluginError> {
        let meant = Arc::clone(&self.0);
        if std::env::var_os("AGEDEBUG").is_some() {
            return Err(PluginError::Debugged);
        }
        let program = Self::check(&meant.program)?;
        can_be_watched().map_err(|e| PluginError::NotStarted(program.clone(), e.to_string()))?;
        if matches!(*meant.runs(), Runs::Ended) {
            return Err(PluginError::Ended);
        }
        let (tell, told) = mpsc::channel();
        // A thread of its own: what it starts is its only child. It is left to itself where it does not come to its end.
        thread::spawn(move || {
            drop(tell.send(talked(&meant, &program, machine, talk)));
        });
        let talked = match told.recv_timeout(self.0.within) {
            Ok(talked) => talked,
            Err(RecvTimeoutError::Disconnected) => {
                Err(PluginError::Broke("it cannot be understood".to_owned()))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.end();
                return Err(PluginError::Slow(self.0.within.as_secs()));
            }
        };
        if matches!(*self.0.runs(), Runs::Ended) {
            return Err(PluginError::Ended);
        }
        talked
    }

    /// The file key of these stanzas; none where the plugin has no key for them.
    fn unwrapped(&self, stanzas: &[Stanza]) -> Result<Option<FileKey>, PluginError> {
        let own = |s: &Stanza| Stanza {
            tag: s.tag.clone(),
            args: s.args.clone(),
            body: s.body.clone(),
        };
        let stanzas: Vec<_> = stanzas.iter().map(own).collect();
        let mut heard = self.run(IDENTITY_V1, move |meant, talk| {
            talk.unidir_send(|mut phase| {
                for identity in &meant.identities {
                    phase.send("add-identity", &[identity.expose()], &[])?;
                }
                for stanza in &stanzas {
                    phase.send_stanza("recipient-stanza", &["0"], stanza)?;
                }
                Ok(())
            })?;
            Heard::listen(talk, &["file-key"])
        })?;
        match heard.file_key.take() {
            Some(key) => Ok(Some(key)),
            None => heard.failed().map_or(Ok(None), Err),
        }
    }

    fn wrapped(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), PluginError> {
        let key = Secret::new(*key.expose_secret());
        let heard = self.run(RECIPIENT_V1, move |meant, talk| {
            talk.unidir_send(|mut phase| {
                for identity in &meant.identities {
                    phase.send("add-identity", &[identity.expose()], &[])?;
                }
                phase.send("extension-labels", &[], &[])?;
                phase.send("wrap-file-key", &[], key.expose())
            })?;
            Heard::listen(talk, &["recipient-stanza", "labels"])
        })?;
        if let Some(failed) = heard.failed() {
            return Err(failed);
        }
        if heard.stanzas.is_empty() {
            return Err(PluginError::Broke("it wrapped nothing".to_owned()));
        }
        Ok((heard.stanzas, heard.labels))
    }
}

impl Meant {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the program, talks, and sees it off.
fn talked(
    meant: &Meant,
    program: &Path,
    machine: &str,
    talk: impl FnOnce(&Meant, &mut Talk) -> io::Result<Heard>,
) -> Result<Heard, PluginError> {
    let not_started = |e: io::Error| PluginError::NotStarted(program.to_owned(), e.to_string());
    let mut runs = meant.runs();
    if matches!(*runs, Runs::Ended) {
        return Err(PluginError::Ended);
    }
    let mut connection = Connection::open(program, machine).map_err(not_started)?;
    let process = Arc::new(only_child().map_err(not_started)?);
    *runs = Runs::This(Arc::clone(&process));
    drop(runs);
    let heard = talk(meant, &mut connection);
    // Its input ends, and so does a program that keeps to the rules.
    drop(connection);
    ends_within(&process, LEAVES_WITHIN);
    let mut runs = meant.runs();
    if matches!(*runs, Runs::This(_)) {
        *runs = Runs::Nothing;
    }
    drop(runs);
    heard.map_err(|e| PluginError::Broke(text(e.to_string().as_bytes())))
}

/// What a plugin may say in either conversation. Not `confirm`: where nobody can, plugins wait by themselves for a key
/// that is to be plugged in.
const HEARD: [&str; 4] = ["msg", "request-public", "request-secret", "error"];

/// What a plugin said.
#[derive(Default)]
struct Heard {
    file_key: Option<FileKey>,
    stanzas: Vec<Stanza>,
    labels: HashSet<String>,
    error: Option<String>,
    asked: Option<String>,
}

impl Heard {
    fn listen(talk: &mut Talk, wanted: &[&str]) -> io::Result<Self> {
        let mut heard = Self::default();
        let commands = [&HEARD, wanted].concat();
        talk.bidir_receive(&commands, |said, reply| heard.hear(said, reply))?;
        Ok(heard)
    }

    fn hear<R: io::Read, W: io::Write>(
        &mut self,
        mut said: Stanza,
        reply: Reply<'_, R, W>,
    ) -> Response {
        match said.tag.as_str() {
            "msg" => tracing::warn!(says = text(&said.body), "the age plugin"),
            "error" => {
                self.error.get_or_insert_with(|| text(&said.body));
            }
            "file-key" => {
                let whole = <&[u8; 16]>::try_from(said.body.as_slice());
                self.file_key = whole
                    .ok()
                    .map(|bytes| FileKey::init_with_mut(|key| *key = *bytes));
                said.body.zeroize();
            }
            "recipient-stanza" => {
                // `0`, the one file; then the stanza's own tag and arguments.
                let mut words = said.args.drain(..).skip(1);
                if let Some(tag) = words.next() {
                    let args = words.collect();
                    let body = said.body;
                    self.stanzas.push(Stanza { tag, args, body });
                }
            }
            "labels" => self.labels = said.args.into_iter().collect(),
            _ => {
                self.asked.get_or_insert_with(|| text(&said.body));
                return reply.fail();
            }
        }
        reply.ok(None)
    }

    fn failed(&self) -> Option<PluginError> {
        let error = self.error.clone();
        match &self.asked {
            Some(asked) => Some(PluginError::Asks(error.unwrap_or_else(|| asked.clone()))),
            None => error.map(PluginError::Said),
        }
    }
}

/// Text of a plugin, for a log.
fn text(said: &[u8]) -> String {
    harmless(&String::from_utf8_lossy(said))
        .chars()
        .take(SAID_MAX)
        .collect()
}

/// Whether what is started here can be ended again; asked before anything is.
fn can_be_watched() -> io::Result<()> {
    fs::read_to_string("/proc/thread-self/children")?;
    pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(())
}

/// What this thread started. The library keeps the process to itself, and who cannot end it waits for ever.
fn only_child() -> io::Result<OwnedFd> {
    let children = fs::read_to_string("/proc/thread-self/children")?;
    let pid = children.split_whitespace().next();
    let pid = pid.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("it cannot be watched: no child in /proc"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Waits for a child's end, and ends it where it does not come.
fn ends_within(process: &OwnedFd, time: Duration) {
    let until = Instant::now() + time;
    let look = |how| waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | how);
    while matches!(look(WaitIdOptions::NOHANG), Ok(None)) {
        if Instant::now() > until {
            let _ = pidfd_send_signal(process, Signal::KILL);
            let _ = look(WaitIdOptions::empty());
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

impl age::Identity for Plugin {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let failed = |e| DecryptError::Io(io::Error::other(e));
        self.unwrapped(stanzas).map_err(failed).transpose()
    }
}

impl age::Recipient for Plugin {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        self.wrapped(key)
            .map_err(|e| EncryptError::Io(io::Error::other(e)))
    }
}

/// What a plugin failed with, where age's error is from one.
pub(super) fn failure(error: &io::Error) -> Option<PluginError> {
    error.get_ref()?.downcast_ref().cloned()
}

#[cfg(test)]
mod tests;
