//! Backups, as the configuration tells them.

use crate::desk::backups::{Plan, Rounds, is_recipient};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Seconds between two backups where nothing is said: a day.
const EVERY: u64 = 24 * 3600;
/// Backups that are kept where nothing is said.
const KEEP: usize = 14;
/// Most recipients.
const RECIPIENTS_MAX: usize = 16;

/// Whom backups are encrypted to, and where the broker keeps some by itself.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// age public keys (`age1…`); each opens every backup, and none opens the vault inside. None: no backups.
    #[serde(default)]
    pub recipients: Vec<Spanned<String>>,
    /// A folder where the broker keeps backups that it makes by itself.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// Seconds between two of them: `1h` to `168h`; `24h` when absent.
    #[serde(default, deserialize_with = "hours")]
    pub every: Option<u64>,
    /// How many of them are kept; 14 when absent.
    #[serde(default)]
    pub keep: Option<Spanned<usize>>,
}

impl Backup {
    pub(super) fn check(&self) -> Result<(), (usize, String)> {
        if self.recipients.len() > RECIPIENTS_MAX {
            let why = format!("key `recipients`: at most {RECIPIENTS_MAX}");
            return Err((0, why));
        }
        for recipient in &self.recipients {
            if !is_recipient(recipient.get_ref()) {
                // A plugin's name would be a program that somebody else chooses.
                let why = "key `recipients`: age public keys (age1…, as age-keygen prints them), no plugins";
                return Err((recipient.span().start, why.to_owned()));
            }
        }
        if let Some(keep) = self.keep.as_ref().filter(|k| *k.get_ref() == 0) {
            let why = "key `keep`: is 1 or more";
            return Err((keep.span().start, why.to_owned()));
        }
        let rounds = self.folder.is_some() || self.every.is_some() || self.keep.is_some();
        if self.recipients.is_empty() && rounds {
            let why = "table [backup]: name `recipients`: a backup is always encrypted";
            return Err((0, why.to_owned()));
        }
        if self.folder.is_none() && (self.every.is_some() || self.keep.is_some()) {
            let why = "table [backup]: `every` and `keep` are for backups in `folder`";
            return Err((0, why.to_owned()));
        }
        Ok(())
    }

    /// The plan; `config` and `policy` are put in as they are.
    pub fn plan(&self, config: &Path, policy: &Path) -> Option<Plan> {
        if self.recipients.is_empty() {
            return None;
        }
        let rounds = self.folder.as_ref().map(|folder| Rounds {
            folder: folder.clone(),
            every: self.every.unwrap_or(EVERY),
            keep: self.keep.as_ref().map_or(KEEP, |keep| *keep.get_ref()),
        });
        let recipients = self.recipients.iter().map(|r| r.get_ref().clone());
        let [first, second] = crate::backup::TEXTS;
        Some(Plan {
            recipients: recipients.collect(),
            rounds,
            texts: vec![(first, config.to_owned()), (second, policy.to_owned())],
        })
    }
}

/// `1h` to `168h`.
fn hours<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(d)?;
    let digits = text.strip_suffix('h').unwrap_or_default();
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let hours = digits
        .parse::<u64>()
        .ok()
        .filter(|h| plain && (1..=168).contains(h));
    hours
        .map(|h| Some(h * 3600))
        .ok_or_else(|| serde::de::Error::custom("is \"1h\" to \"168h\", like \"24h\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Backup, String> {
        let backup: Backup = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        backup.check().map_err(|(_, why)| why)?;
        Ok(backup)
    }

    #[test]
    fn a_backup_has_recipients_of_ages_own_kind() {
        let key = age::x25519::Identity::generate().to_public().to_string();
        let one = format!("recipients = [\"{key}\"]\n");
        assert!(
            checked("")
                .unwrap()
                .plan(Path::new("c"), Path::new("p"))
                .is_none()
        );
        let plan = checked(&one).unwrap().plan(Path::new("c"), Path::new("p"));
        assert!(plan.unwrap().rounds.is_none());
        let text = format!("{one}folder = \"b\"\nevery = \"2h\"\nkeep = 3\n");
        let plan = checked(&text).unwrap().plan(Path::new("c"), Path::new("p"));
        let rounds = plan.unwrap().rounds.unwrap();
        assert_eq!((rounds.every, rounds.keep), (7200, 3));
        for bad in [
            "recipients = [\"age1yubikey1qwerty\"]".to_owned(),
            "recipients = [\"ssh-ed25519 AAAA\"]".to_owned(),
            "folder = \"b\"".to_owned(),
            format!("{one}keep = 3"),
            format!("{one}folder = \"b\"\nkeep = 0"),
            format!("{one}folder = \"b\"\nevery = \"0h\""),
            format!("{one}folder = \"b\"\nevery = \"90m\""),
            format!("{one}to = \"b\""),
        ] {
            assert!(checked(&bad).is_err(), "{bad}");
        }
    }
}
