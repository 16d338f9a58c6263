//! This device: its folder, its profile and its key.
//!
//! The key lies in an age file under a passphrase. Where the passphrase is kept is the person's
//! choice: in the head, in a file, or in the system's keyring, which its own command reads.

use crate::{edge, edge::Env, fail::Failure};
use age::{
    secrecy::{ExposeSecret as _, SecretString},
    x25519::Identity,
};
use proto::{
    canonical::Canonical,
    device::DeviceKey,
    digest::hex,
    ids::{DeviceId, PersonId},
    time::UnixTime,
};
use serde::{Deserialize, Serialize};
use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use zeroize::Zeroizing;

/// scrypt's cost is 2 to this power.
const WORK_FACTOR: u8 = 16;
/// A key file that asks for more than this would stop the machine for minutes.
const WORK_FACTOR_MAX: u8 = 20;
/// Room for the longest secret in such a file.
const SECRET_MAX: usize = 256;
/// Most bytes of a profile or a key file.
const FILE_MAX: u64 = 64 * 1024;

/// What this device knows about itself and its broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// The broker's public URL.
    pub(crate) broker: String,
    /// Who.
    pub(crate) person: PersonId,
    /// This device.
    pub(crate) device: DeviceId,
    /// Its name.
    pub(crate) device_name: String,
    /// The log's verification key, pinned when it was first seen (attack 35).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log_key: Option<String>,
    /// The last checkpoint of the log that this device verified; it approves nothing that does not continue it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<UnixTime>,
}

/// The folder of this device.
pub(crate) struct Home(PathBuf);

impl Home {
    /// `COUNTERSIGN_HOME`, else `$XDG_CONFIG_HOME/countersign`, else `~/.config/countersign`.
    pub(crate) fn new(env: &Env) -> Result<Self, Failure> {
        if let Some(home) = env.get("COUNTERSIGN_HOME") {
            return Ok(Self(home.into()));
        }
        env.get("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| env.home().map(|h| h.join(".config")))
            .map(|c| Self(c.join("countersign")))
            .ok_or_else(|| {
                Failure::usage(
                    "This user has no home directory.",
                    "Set COUNTERSIGN_HOME to a folder.",
                )
            })
    }

    fn profile_path(&self) -> PathBuf {
        self.0.join("profile.toml")
    }
    /// Where the key lies.
    pub(crate) fn key_path(&self) -> PathBuf {
        self.0.join("device.key.age")
    }

    /// The profile, if this device is enrolled.
    pub(crate) fn profile(&self) -> Result<Option<Profile>, Failure> {
        let path = self.profile_path();
        if !path.exists() {
            return Ok(None);
        }
        let bytes = edge::read_capped(&path, FILE_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        toml::from_str(&text).map(Some).map_err(|e| {
            Failure::failed(
                format!("{} is damaged: {}.", path.display(), e.message()),
                "Restore it, or enrol this device again.",
            )
        })
    }

    /// Writes the profile.
    pub(crate) fn store_profile(&self, profile: &Profile) -> Result<(), Failure> {
        let text = toml::to_string(profile).map_err(|e| {
            Failure::failed(format!("The profile is no TOML: {e}."), "Report this.")
        })?;
        self.make()?;
        edge::write_private(&self.profile_path(), text.as_bytes())
    }

    /// Reads the key; asks for the passphrase.
    pub(crate) fn key(&self, env: &Env) -> Result<DeviceKey, Failure> {
        let path = self.key_path();
        if !path.exists() {
            return Err(not_enrolled());
        }
        let file = edge::read_capped(&path, FILE_MAX)?;
        let passphrase = passphrase(env, false)?;
        open_key(&file, passphrase).ok_or_else(|| {
            Failure::refused(
                format!("{} does not open with this passphrase.", path.display()),
                "Try again; a forgotten passphrase means enrolling again with a new invite.",
            )
        })
    }

    /// Writes the key under a passphrase.
    pub(crate) fn store_key(
        &self,
        key: &DeviceKey,
        passphrase: SecretString,
    ) -> Result<(), Failure> {
        let file = seal_key(key, passphrase)
            .ok_or_else(|| Failure::failed("The key could not be encrypted.", "Report this."))?;
        self.make()?;
        edge::write_private(&self.key_path(), &file)
    }

    /// This admin's key for shares of the vault; none where none was made. It lies under the device's own key,
    /// and so under its passphrase.
    pub(crate) fn share_key(&self, device: &DeviceKey) -> Result<Option<Identity>, Failure> {
        let path = self.share_key_path();
        if !path.exists() {
            return Ok(None);
        }
        let file = edge::read_capped(&path, FILE_MAX)?;
        let text = opened(&file, share_passphrase(device));
        let text = text.and_then(|t| String::from_utf8(t.to_vec()).ok().map(Zeroizing::new));
        let identity = text.and_then(|t| t.parse::<Identity>().ok());
        identity.map(Some).ok_or_else(|| {
            Failure::refused(
                format!("{} is not of this device.", path.display()),
                "Restore it from the same backup as the device's key, or move it away and run `countersign admin share-key`.",
            )
        })
    }

    /// Makes that key.
    pub(crate) fn make_share_key(&self, device: &DeviceKey) -> Result<Identity, Failure> {
        let identity = Identity::generate();
        let text = identity.to_string();
        let file = sealed(text.expose_secret().as_bytes(), share_passphrase(device), 1)
            .ok_or_else(|| Failure::failed("The key could not be encrypted.", "Report this."))?;
        edge::write_private(&self.share_key_path(), &file)?;
        Ok(identity)
    }

    /// Keeps two checkpoints that cannot both be true.
    pub(crate) fn keep_fork(&self, now: UnixTime, text: &[u8]) -> Result<PathBuf, Failure> {
        self.make()?;
        let path = self.0.join(format!("fork-{}.json", now.0));
        edge::write_private(&path, text)?;
        Ok(path)
    }

    fn share_key_path(&self) -> PathBuf {
        self.0.join("share.key.age")
    }

    fn make(&self) -> Result<(), Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|e| Failure::file(&self.0, &e))
    }
}

/// What to say where an enrolled device is needed.
pub(crate) fn not_enrolled() -> Failure {
    Failure::usage(
        "This device is not enrolled.",
        "Ask an admin for an invite, then run `countersign enroll`.",
    )
}

/// The passphrase: from `COUNTERSIGN_PASSPHRASE`, `COUNTERSIGN_PASSPHRASE_FILE`, what
/// `COUNTERSIGN_PASSPHRASE_COMMAND` prints, or the terminal.
pub(crate) fn passphrase(env: &Env, new: bool) -> Result<SecretString, Failure> {
    if let Some(text) = env.get("COUNTERSIGN_PASSPHRASE") {
        return Ok(SecretString::from(text.to_owned()));
    }
    if let Some(path) = env.get("COUNTERSIGN_PASSPHRASE_FILE") {
        let text = edge::read_secret(Path::new(path))?;
        return Ok(SecretString::from(text.as_str().to_owned()));
    }
    if let Some(command) = env.get("COUNTERSIGN_PASSPHRASE_COMMAND") {
        return passphrase_of(command);
    }
    let text = ask_secret(
        if new {
            "New passphrase for this device's key"
        } else {
            "Passphrase of this device's key"
        },
        new,
        "Set COUNTERSIGN_PASSPHRASE_COMMAND (a keyring's) or COUNTERSIGN_PASSPHRASE_FILE where nobody can type.",
    )?;
    Ok(SecretString::from(text.as_str().to_owned()))
}

/// What a command prints, up to the first line's end. It may ask on the terminal by itself.
fn passphrase_of(command: &str) -> Result<SecretString, Failure> {
    let next = "Run the command of COUNTERSIGN_PASSPHRASE_COMMAND by hand: it must print the passphrase and exit with 0.";
    let failed = |what: String| Failure::failed(what, next);
    let out = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| failed(format!("The passphrase command could not be started: {e}.")))?;
    let printed = Zeroizing::new(out.stdout);
    if !out.status.success() {
        return Err(failed(format!(
            "The passphrase command failed ({}).",
            out.status
        )));
    }
    let line = printed.split(|b| *b == b'\n').next().unwrap_or_default();
    match std::str::from_utf8(line).map(|l| l.trim_end_matches('\r')) {
        Ok(text) if !text.is_empty() => Ok(SecretString::from(text.to_owned())),
        _ => Err(failed("The passphrase command printed nothing.".to_owned())),
    }
}

/// Asks for a secret on the terminal; it is not echoed.
pub(crate) fn ask_secret(
    prompt: &str,
    twice: bool,
    next: &str,
) -> Result<Zeroizing<String>, Failure> {
    need_terminal(prompt, next)?;
    let mut question = dialoguer::Password::new().with_prompt(prompt);
    if twice {
        question = question.with_confirmation("The same again", "They differ.");
    }
    question
        .interact()
        .map(Zeroizing::new)
        .map_err(|e| no_answer(&e))
}

/// Asks for a line on the terminal.
pub(crate) fn ask_line(prompt: &str, next: &str) -> Result<String, Failure> {
    need_terminal(prompt, next)?;
    dialoguer::Input::<String>::new()
        .with_prompt(prompt)
        .interact_text()
        .map_err(|e| no_answer(&e))
}

fn need_terminal(prompt: &str, next: &str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        Ok(())
    } else {
        Err(Failure::usage(
            format!("{prompt}: nobody can type here."),
            next,
        ))
    }
}

fn no_answer(error: &dialoguer::Error) -> Failure {
    Failure::failed(
        format!("No answer was read: {error}."),
        "Run the command again.",
    )
}

/// 256 bits that nobody guesses: no work has to be added to them.
fn share_passphrase(device: &DeviceKey) -> SecretString {
    let secret = Canonical::new("countersign/share-key/v1").bytes(device.expose_seed());
    SecretString::from(hex(&secret.sha256()))
}

fn seal_key(key: &DeviceKey, passphrase: SecretString) -> Option<Vec<u8>> {
    sealed(key.expose_seed(), passphrase, WORK_FACTOR)
}

fn sealed(plain: &[u8], passphrase: SecretString, work: u8) -> Option<Vec<u8>> {
    let mut recipient = age::scrypt::Recipient::new(passphrase);
    recipient.set_work_factor(work);
    let one: &dyn age::Recipient = &recipient;
    let encryptor = age::Encryptor::with_recipients(std::iter::once(one)).ok()?;
    let mut out = Vec::new();
    let mut writer = encryptor.wrap_output(&mut out).ok()?;
    writer.write_all(plain).ok()?;
    writer.finish().ok()?;
    Some(out)
}

fn open_key(file: &[u8], passphrase: SecretString) -> Option<DeviceKey> {
    let seed = opened(file, passphrase)?;
    DeviceKey::from_seed(<[u8; 32]>::try_from(seed.as_slice()).ok()?).ok()
}

fn opened(file: &[u8], passphrase: SecretString) -> Option<Zeroizing<Vec<u8>>> {
    let mut identity = age::scrypt::Identity::new(passphrase);
    identity.set_max_work_factor(WORK_FACTOR_MAX);
    let decryptor = age::Decryptor::new_buffered(file).ok()?;
    let one: &dyn age::Identity = &identity;
    let mut plain = Zeroizing::new(Vec::with_capacity(SECRET_MAX));
    decryptor
        .decrypt(std::iter::once(one))
        .ok()?
        .take(SECRET_MAX as u64)
        .read_to_end(&mut plain)
        .ok()?;
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_lies_under_the_passphrase_and_the_profile_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let env = Env::from([
            ("COUNTERSIGN_HOME", folder.to_str().unwrap()),
            ("COUNTERSIGN_PASSPHRASE", "correct horse"),
        ]);
        let home = Home::new(&env).unwrap();
        assert_eq!(home.profile().unwrap(), None);
        assert_eq!(home.key(&env).err().unwrap().exit as u8, 2);
        let key = DeviceKey::from_seed([9; 32]).unwrap();
        home.store_key(&key, passphrase(&env, true).unwrap())
            .unwrap();
        assert_eq!(home.key(&env).unwrap().public(), key.public());
        let file = std::fs::read(home.key_path()).unwrap();
        assert!(!file.windows(8).any(|w| w == [9; 8]));
        // The key for shares lies under the device's key, and opens with no other.
        assert!(home.share_key(&key).unwrap().is_none());
        let made = home.make_share_key(&key).unwrap().to_public();
        let held = home.share_key(&key).unwrap().unwrap().to_public();
        assert_eq!(held.to_string(), made.to_string());
        let other = DeviceKey::from_seed([8; 32]).unwrap();
        assert_eq!(home.share_key(&other).err().unwrap().exit as u8, 5);
        let wrong = Env::from([
            ("COUNTERSIGN_HOME", folder.to_str().unwrap()),
            ("COUNTERSIGN_PASSPHRASE", "wrong"),
        ]);
        assert_eq!(home.key(&wrong).err().unwrap().exit as u8, 5);
        let profile = Profile {
            broker: "https://b.example".into(),
            person: "alice".parse().unwrap(),
            device: key.public().id(),
            device_name: "laptop".into(),
            log_key: Some("b.example+1+x".into()),
            checkpoint: Some("b.example\n7\nroot\n\n— b.example sig\n".into()),
            seen: Some(UnixTime(7)),
        };
        home.store_profile(&profile).unwrap();
        assert_eq!(home.profile().unwrap(), Some(profile));
    }

    #[test]
    fn the_passphrase_may_come_from_a_keyrings_command() {
        let read = |command: &str| {
            let env = Env::from([("COUNTERSIGN_PASSPHRASE_COMMAND", command)]);
            passphrase(&env, false).map(|p| p.expose_secret().to_owned())
        };
        let printed = read("printf 'correct horse\\nsecond line\\n'");
        assert_eq!(printed.ok().as_deref(), Some("correct horse"));
        for bad in ["exit 3", "true", "echo; echo late", "echo x; exit 1"] {
            assert_eq!(read(bad).err().unwrap().exit as u8, 1, "{bad}");
        }
    }

    #[test]
    fn the_folder_follows_the_environment() {
        let home = |env: Env| Home::new(&env).unwrap().0;
        let both = Env::from([("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]);
        assert_eq!(home(both), Path::new("/x/countersign"));
        let only = Env::from([("HOME", "/h")]);
        assert_eq!(home(only), Path::new("/h/.config/countersign"));
        assert!(Home::new(&Env::default()).is_err());
    }
}
