//! Backups of a broker of the test's own, and what comes back of them.

use crate::{
    command::{Output, run},
    daemon::{Builder, Daemon},
    people::{Device, Office},
};
use age::{secrecy::ExposeSecret as _, x25519::Identity};
use anyhow::{Context as _, bail};
use reqwest::Method;
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// One command of the machine.
const COMMAND: Duration = Duration::from_mins(2);

/// Whom backups are encrypted to, and a folder for what the test keeps.
pub struct Vaulted {
    /// The recipient's identity.
    pub identity: Identity,
    folder: TempDir,
}

impl Vaulted {
    /// With a fresh identity, which also lies in a file.
    pub fn new() -> anyhow::Result<Self> {
        let identity = Identity::generate();
        let folder = TempDir::new()?;
        let made = Self { identity, folder };
        let text = made.identity.to_string();
        fs::write(made.identity_file(), text.expose_secret())?;
        Ok(made)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the identity lies.
    pub fn identity_file(&self) -> PathBuf {
        self.folder().join("backup.age")
    }

    /// A broker whose backups it opens; `more` are lines of `[backup]`.
    pub fn of(&self, builder: Builder, more: &str) -> Builder {
        let recipient = self.identity.to_public();
        builder.extra(&format!("[backup]\nrecipients = [\"{recipient}\"]\n{more}"))
    }

    /// Has a backup taken by an admin; gives its file.
    pub async fn take(&self, by: &Device, name: &str) -> anyhow::Result<PathBuf> {
        let reply = by.raw(&by.key, Method::POST, "/v1/admin/backup", None);
        let reply = reply.await?;
        let status = reply.status();
        let bytes = reply.bytes().await?;
        if !status.is_success() {
            bail!("{status} {}", String::from_utf8_lossy(&bytes));
        }
        let file = self.folder().join(name);
        fs::write(&file, bytes)?;
        Ok(file)
    }

    /// What stands inside a backup, decrypted.
    pub fn inside(&self, backup: &Path) -> anyhow::Result<Vec<u8>> {
        let sealed = fs::read(backup)?;
        let one: &dyn age::Identity = &self.identity;
        let mut plain = Vec::new();
        age::Decryptor::new_buffered(&sealed[..])?
            .decrypt(std::iter::once(one))?
            .read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// Encrypts such a content again, as whoever knows the recipients can.
    pub fn forge(&self, inside: &[u8], name: &str) -> anyhow::Result<PathBuf> {
        let file = self.folder().join(name);
        fs::write(&file, age::encrypt(&self.identity.to_public(), inside)?)?;
        Ok(file)
    }

    /// `countersignd restore`
    pub async fn restore(
        &self,
        daemon: &Daemon,
        backup: &Path,
        data: &Path,
        env: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        let identity = self.identity_file();
        let paths: [&Path; 3] = [backup, &identity, data];
        let [from, identity, data] = paths.map(|p| p.display().to_string());
        let args = [
            "restore",
            "--from",
            &from,
            "--identity",
            &identity,
            "--data",
            &data,
        ];
        run(
            &daemon.bins.countersignd,
            &args,
            env,
            self.folder(),
            COMMAND,
        )
        .await
    }

    /// `countersignd drill`, with what opens the vault of the broker.
    pub async fn drill(&self, daemon: &Daemon, backup: &Path) -> anyhow::Result<Output> {
        let unseal = daemon.dir().join("unseal.age");
        let identity = self.identity_file();
        let paths: [&Path; 4] = [backup, &identity, self.folder(), &unseal];
        let [from, identity, folder, unseal] = paths.map(|p| p.display().to_string());
        let args = [
            "drill",
            "--json",
            "--from",
            &from,
            "--identity",
            &identity,
            "--folder",
            &folder,
            "--vault-identity-file",
            &unseal,
        ];
        run(
            &daemon.bins.countersignd,
            &args,
            &[],
            self.folder(),
            COMMAND,
        )
        .await
    }

    /// Puts a backup in the place of a broker's data, which it keeps beside, and starts it again.
    pub async fn put_back(&self, office: &mut Office, backup: &Path) -> anyhow::Result<()> {
        let daemon = &mut office.daemon;
        daemon.kill9();
        let data = daemon.dir().join("data");
        let aside = (0..).map(|n| daemon.dir().join(format!("data.{n}")));
        let aside = aside.into_iter().find(|path| !path.exists());
        fs::rename(&data, aside.context("a name")?)?;
        self.restore(daemon, backup, &data, &[]).await?.ok()?;
        daemon.restart().await
    }
}
