//! The configuration file. Unknown keys are errors; every error names file, line and key.

mod backup;
mod check;
mod witness;

use crate::{
    caller::IssuerConfig,
    notify::egress::HostPattern,
    registry::{
        Kind as RegistryKind,
        http::Shape,
        npm::Via,
        pypi::{Attestations, ProjectIds},
    },
    telemetry::LogFormat,
};
pub use backup::Backup;
use proto::ids::RegistryId;
use serde::Deserialize;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use toml::Spanned;
use url::Url;
pub use witness::WitnessEntry;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where this very file lies.
    #[serde(skip)]
    pub path: PathBuf,
    /// Folder of the store, the vault's key file and uploads on their way.
    pub data: PathBuf,
    /// Where the log's last checkpoint is kept outside the database; `anchor` in `data` when absent.
    #[serde(default)]
    pub anchor: Option<PathBuf>,
    /// What people, devices and jobs call the broker: scheme, host and port.
    pub public_url: Spanned<Url>,
    /// Where people and API are served.
    pub listen: Spanned<SocketAddr>,
    /// The policy file.
    pub policy: PathBuf,
    /// The one proxy in front of a plain HTTP listener; connections from elsewhere are dropped.
    #[serde(default)]
    pub behind_proxy: Option<IpAddr>,
    /// TLS.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Where health and metrics are served.
    pub operations: Operations,
    /// Logs.
    #[serde(default)]
    pub log: Log,
    /// How the vault is unsealed at start; absent: by an admin.
    #[serde(default)]
    pub unseal: Unsealing,
    /// The watch over what registries serve.
    #[serde(default)]
    pub watch: Watch,
    /// Which servers notifications may go to.
    #[serde(default)]
    pub push: Push,
    /// Backups.
    #[serde(default)]
    pub backup: Backup,
    /// Who issues IdTokens.
    #[serde(default, rename = "issuer")]
    pub issuers: Vec<Spanned<IssuerConfig>>,
    /// Where packages go.
    #[serde(default, rename = "registry")]
    pub registries: Vec<RegistryEntry>,
    /// Who cosigns the log.
    #[serde(default, rename = "witness")]
    pub witnesses: Vec<WitnessEntry>,
    /// Seconds that a policy which allows more waits, after two admins agreed, for objections: a day or longer.
    #[serde(default = "a_day", deserialize_with = "days")]
    pub weakening_wait: u64,
    /// Days that a registry token may live.
    #[serde(default = "ninety")]
    pub token_max_age_days: u64,
}

/// Certificate and key, PEM. Read again on SIGHUP.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// The operations listener.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operations {
    /// Its address.
    pub listen: SocketAddr,
}

/// Logs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Form.
    #[serde(default = "json")]
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
        }
    }
}

/// How the vault is unsealed at start: at most one of the first three.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsealing {
    /// A file with the passphrase.
    #[serde(default)]
    pub passphrase_file: Option<PathBuf>,
    /// A file with an age identity.
    #[serde(default)]
    pub identity_file: Option<PathBuf>,
    /// The name of a systemd credential that holds an age identity.
    #[serde(default)]
    pub credential: Option<String>,
    /// The program of an age plugin, whose identity that is. None is ever looked for by a name.
    #[serde(default)]
    pub plugin: Option<PathBuf>,
}

/// The watch over what registries serve.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Seconds between two rounds; none when it is off. Absence is on.
    #[serde(default = "ten_minutes", deserialize_with = "interval")]
    pub every: Option<u64>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            every: ten_minutes(),
        }
    }
}

/// Which servers notifications may go to: none, where it says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Names of servers with a public address, reached over https: `push.example.net`, `*.example.net`.
    #[serde(default)]
    pub hosts: Vec<Spanned<String>>,
    /// Origins that are taken as they are written, wherever they lie: `https://ntfy.intern.example:8443`.
    #[serde(default)]
    pub origins: Vec<Spanned<Url>>,
    /// Whom a push service's operator writes to (`mailto:…` or an address of the web); `public_url` when absent.
    #[serde(default)]
    pub contact: Option<Spanned<Url>>,
}

impl Push {
    /// The hosts, read.
    pub fn patterns(&self) -> Result<Vec<HostPattern>, (usize, String)> {
        let read = |host: &Spanned<String>| {
            HostPattern::parse(host.get_ref()).ok_or_else(|| {
                let why = "key `hosts`: a name like \"push.example.net\", or \"*.example.net\" for all below; an address or a port goes into `origins`";
                (host.span().start, why.to_owned())
            })
        };
        self.hosts.iter().map(read).collect()
    }
}

/// A registry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryEntry {
    /// Its name in requests.
    pub name: Spanned<RegistryId>,
    /// Its protocol.
    #[serde(deserialize_with = "kind")]
    pub kind: RegistryKind,
    /// The real registry.
    #[serde(default)]
    pub url: Option<Spanned<Url>>,
    /// Where uploads go, for a kind that has an address of its own for them (`pypi`, `crates`).
    #[serde(default)]
    pub upload_url: Option<Spanned<Url>>,
    /// The user name beside the token (`pypi`, where it is `__token__` when absent; `oci`).
    #[serde(default)]
    pub user: Option<Spanned<String>>,
    /// Whether the token (a macaroon) is narrowed to the one project before it is sent (`pypi`).
    #[serde(default)]
    pub narrow_token: Option<Spanned<bool>>,
    /// The index's own ids of projects (`pypi`): narrowed and minted tokens are for the id too.
    #[serde(default)]
    pub project_ids: Option<Spanned<ProjectIds>>,
    /// What becomes of attestations beside an upload (`pypi`): `refuse` (when absent) or `drop`.
    #[serde(default)]
    pub attestations: Option<Spanned<Attestations>>,
    /// Other origins from which published files may be fetched to hash them, where the registry keeps
    /// them at another host.
    #[serde(default)]
    pub downloads: Vec<Spanned<Url>>,
    /// How a publish gets there (`npm`): `publish` (when absent) or `stage`, the registry's own second factor
    /// handed over to people.
    #[serde(default)]
    pub via: Option<Spanned<Via>>,
    /// A registry of kind `generic` under whose name another token is stored, which approves stages (`npm` with
    /// `via = "stage"`); absent: the one that makes them.
    #[serde(default)]
    pub approve_token: Option<Spanned<RegistryId>>,
    /// Origins beside the registry's own where people may be sent to give its second factor (`npm`,
    /// `rubygems`).
    #[serde(default)]
    pub factor_origins: Option<Spanned<Vec<Url>>>,
    /// Its web pages, for links in what people are shown. The broker never asks there.
    #[serde(default)]
    pub web: Option<Spanned<Url>>,
    /// How files are uploaded (`http`): `PUT` (when absent) or `POST`.
    #[serde(default)]
    pub method: Option<Spanned<String>>,
    /// Where a file goes (`http`), with `{package}`, `{version}` and `{file}` as segments.
    #[serde(default)]
    pub path: Option<Spanned<String>>,
    /// Where a file is read back (`http`); `path` when absent.
    #[serde(default)]
    pub read_path: Option<Spanned<String>>,
    /// The header that carries the token (`http`); `Authorization: Bearer {token}` when absent.
    #[serde(default)]
    pub token_header: Option<Spanned<String>>,
    /// Where the registry's short tokens come from (`oci`): the `realm` of its challenge.
    #[serde(default)]
    pub token_url: Option<Spanned<Url>>,
    /// Where the broker's endpoint for it listens: an origin of its own.
    #[serde(default)]
    pub listen: Option<Spanned<SocketAddr>>,
    /// What jobs call that endpoint.
    #[serde(default)]
    pub public_url: Option<Spanned<Url>>,
}

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional value")]
fn ten_minutes() -> Option<u64> {
    Some(600)
}

/// `10m`, `2h` or `off`.
fn interval<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(d)?;
    if text == "off" {
        return Ok(None);
    }
    let number = |digits: &str, unit: u64| {
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        let number = digits.parse::<u64>().ok().filter(|_| plain)?;
        number.checked_mul(unit)
    };
    text.strip_suffix('m')
        .and_then(|n| number(n, 60))
        .or_else(|| text.strip_suffix('h').and_then(|n| number(n, 3600)))
        .filter(|s| (60..=86_400).contains(s))
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("is \"1m\" to \"24h\", like \"10m\", or \"off\""))
}

/// `24h` or `3d`; never less than a day.
fn days<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let text = String::deserialize(d)?;
    let number = |unit: char, seconds: u64| {
        let digits = text.strip_suffix(unit)?;
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        digits
            .parse::<u64>()
            .ok()
            .filter(|_| plain)?
            .checked_mul(seconds)
    };
    number('h', 3600)
        .or_else(|| number('d', 86_400))
        .filter(|s| (a_day()..=30 * a_day()).contains(s))
        .ok_or_else(|| serde::de::Error::custom("is \"24h\" to \"30d\", like \"48h\""))
}

const fn a_day() -> u64 {
    86_400
}

fn ninety() -> u64 {
    90
}
fn json() -> LogFormat {
    LogFormat::Json
}
fn kind<'de, D: serde::Deserializer<'de>>(d: D) -> Result<RegistryKind, D::Error> {
    let name = String::deserialize(d)?;
    RegistryKind::parse(&name).ok_or_else(|| {
        serde::de::Error::custom(
            "is `npm`, `pypi`, `crates`, `rubygems`, `oci`, `http` or `generic`",
        )
    })
}

impl RegistryEntry {
    /// The upload call of a server of kind `http`.
    pub fn shape(&self) -> Result<Option<Shape>, (usize, String)> {
        fn text(of: Option<&Spanned<String>>) -> Option<&str> {
            of.map(|s| s.get_ref().as_str())
        }
        let Some(path) = &self.path else {
            return Ok(None);
        };
        let (read, header) = (self.read_path.as_ref(), self.token_header.as_ref());
        let shape = Shape::parse(
            text(self.method.as_ref()),
            path.get_ref(),
            text(read),
            text(header),
        );
        let shape = shape.map_err(|why| {
            let of = match why.key {
                "method" => self.method.as_ref(),
                "read_path" => read,
                "token_header" => header,
                _ => Some(path),
            };
            (of.unwrap_or(path).span().start, why.to_string())
        });
        shape.map(Some)
    }
}

/// Reads and checks the file; relative paths in it are meant from its own folder.
pub fn load(path: &Path) -> Result<Config, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        format!("{shown}: {e}\n  write one after deploy/examples/countersign.toml, or name it with --config")
    })?;
    let mut config: Config = toml::from_str(&text).map_err(|e| {
        let place = e.span().map_or(String::new(), |s| place(&text, s.start));
        format!("{shown}{place}: {}", e.message())
    })?;
    check::check(&config).map_err(|(at, why)| format!("{shown}{}: {why}", place(&text, at)))?;
    path.clone_into(&mut config.path);
    let folder = path.parent().unwrap_or(Path::new("."));
    let resolve = |p: &mut PathBuf| {
        if p.is_relative() {
            *p = folder.join(&*p);
        }
    };
    resolve(&mut config.data);
    resolve(&mut config.policy);
    config.anchor.iter_mut().for_each(resolve);
    config.backup.folder.iter_mut().for_each(resolve);
    if let Some(tls) = &mut config.tls {
        resolve(&mut tls.certificate);
        resolve(&mut tls.key);
    }
    for p in [
        &mut config.unseal.passphrase_file,
        &mut config.unseal.identity_file,
        &mut config.unseal.plugin,
    ]
    .into_iter()
    .flatten()
    {
        resolve(p);
    }
    Ok(config)
}

/// `:line:column` of a byte.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    format!(":{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Wait {
        #[serde(deserialize_with = "days")]
        of: u64,
    }

    #[test]
    fn attack_49_a_weaker_policy_waits_a_day_or_longer_whatever_is_configured() {
        let wait = |text: &str| toml::from_str::<Wait>(&format!("of = \"{text}\"")).map(|w| w.of);
        for (text, hours) in [("24h", 24), ("48h", 48), ("1d", 24), ("30d", 720)] {
            assert_eq!(wait(text).unwrap(), hours * 3600, "{text}");
        }
        for text in [
            "23h",
            "0h",
            "0d",
            "31d",
            "721h",
            "1w",
            "1",
            "-24h",
            "+24h",
            "off",
            "",
            "5124095576030432h",
        ] {
            assert!(wait(text).is_err(), "{text}");
        }
        assert_eq!(a_day(), 24 * 3600, "where nothing is said");
    }
}
