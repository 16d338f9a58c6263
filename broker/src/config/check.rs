//! What must hold between the keys of the configuration file.

use super::{Config, RegistryEntry, witness};
use crate::registry::Kind as RegistryKind;
use std::net::SocketAddr;
use toml::Spanned;
use url::Url;

/// The first thing that is wrong, with its place in the file.
pub(super) fn check(config: &Config) -> Result<(), (usize, String)> {
    let plain_ok = |a: &Spanned<SocketAddr>| {
        config.tls.is_some() || config.behind_proxy.is_some() || a.get_ref().ip().is_loopback()
    };
    let plain = "key `listen`: plain HTTP is served on loopback alone; set [tls] or behind_proxy";
    if !plain_ok(&config.listen) {
        return Err((config.listen.span().start, plain.to_owned()));
    }
    origin(&config.public_url, "public_url")?;
    config.push.patterns()?;
    config.backup.check()?;
    witness::check(&config.witnesses)?;
    for url in &config.push.origins {
        origin(url, "origins")?;
        secure(url, "origins")?;
    }
    if let Some(contact) = &config.push.contact
        && !["mailto", "https"].contains(&contact.get_ref().scheme())
    {
        let why = "key `contact`: is mailto:… or https://…";
        return Err((contact.span().start, why.to_owned()));
    }
    let u = &config.unseal;
    if [
        u.passphrase_file.is_some(),
        u.identity_file.is_some(),
        u.credential.is_some(),
    ]
    .iter()
    .filter(|b| **b)
    .count()
        > 1
    {
        return Err((
            0,
            "table [unseal]: name one of passphrase_file, identity_file, credential".to_owned(),
        ));
    }
    if u.plugin.is_some() && u.identity_file.is_none() && u.credential.is_none() {
        return Err((
            0,
            "table [unseal]: beside plugin, name identity_file or credential: the identity that the plugin's own program printed"
                .to_owned(),
        ));
    }
    for issuer in &config.issuers {
        issuer
            .get_ref()
            .check()
            .map_err(|e| (issuer.span().start, e.to_string()))?;
    }
    let mut names = std::collections::BTreeSet::new();
    for token in config
        .registries
        .iter()
        .filter_map(|r| r.approve_token.as_ref())
    {
        let generic = |r: &&RegistryEntry| r.kind == RegistryKind::Generic;
        let mut others = config.registries.iter().filter(generic);
        if !others.any(|r| r.name.get_ref() == token.get_ref()) {
            let why = "key `approve_token`: names a registry of kind generic in this file";
            return Err((token.span().start, why.to_owned()));
        }
    }
    for registry in &config.registries {
        let at = registry.name.span().start;
        if !names.insert(registry.name.get_ref().clone()) {
            return Err((
                at,
                format!("key `name`: '{}' is taken", registry.name.get_ref()),
            ));
        }
        if registry.kind.row().connect.is_some() {
            let (Some(url), Some(listen), Some(public)) =
                (&registry.url, &registry.listen, &registry.public_url)
            else {
                return Err((
                    at,
                    format!(
                        "a registry of kind {} needs `url`, `listen` and `public_url`",
                        registry.kind.name()
                    ),
                ));
            };
            secure(url, "url")?;
            origin(public, "public_url")?;
            of_kind(registry)?;
            if let Some(web) = &registry.web {
                origin(web, "web")?;
            }
            for download in &registry.downloads {
                secure(download, "downloads")?;
                origin(download, "downloads")?;
            }
            if !plain_ok(listen) {
                return Err((listen.span().start, plain.to_owned()));
            }
        }
    }
    Ok(())
}

/// The keys that some kinds have, and no other.
fn of_kind(registry: &RegistryEntry) -> Result<(), (usize, String)> {
    let user = registry.user.as_ref();
    let upload = registry.upload_url.as_ref();
    let attestations = registry.attestations.as_ref();
    let narrow = registry.narrow_token.as_ref();
    let ids = registry.project_ids.as_ref();
    let (via, origins) = (registry.via.as_ref(), registry.factor_origins.as_ref());
    let python = &[RegistryKind::PyPi][..];
    let npm = &[RegistryKind::Npm][..];
    let http = &[RegistryKind::Http][..];
    let keys = [
        (
            "upload_url",
            upload.map(Spanned::span),
            &[RegistryKind::PyPi, RegistryKind::Crates][..],
        ),
        (
            "user",
            user.map(Spanned::span),
            &[RegistryKind::PyPi, RegistryKind::Oci],
        ),
        ("method", registry.method.as_ref().map(Spanned::span), http),
        ("path", registry.path.as_ref().map(Spanned::span), http),
        (
            "read_path",
            registry.read_path.as_ref().map(Spanned::span),
            http,
        ),
        (
            "token_header",
            registry.token_header.as_ref().map(Spanned::span),
            http,
        ),
        (
            "token_url",
            registry.token_url.as_ref().map(Spanned::span),
            &[RegistryKind::Oci],
        ),
        ("narrow_token", narrow.map(Spanned::span), python),
        ("project_ids", ids.map(Spanned::span), python),
        ("attestations", attestations.map(Spanned::span), python),
        ("via", via.map(Spanned::span), npm),
        (
            "approve_token",
            registry.approve_token.as_ref().map(Spanned::span),
            npm,
        ),
        (
            "factor_origins",
            origins.map(Spanned::span),
            &[RegistryKind::Npm, RegistryKind::RubyGems][..],
        ),
    ];
    for (key, span, kinds) in keys {
        if let Some(span) = span.filter(|_| !kinds.contains(&registry.kind)) {
            let names: Vec<_> = kinds.iter().map(|k| k.name()).collect();
            let why = format!(
                "key `{key}`: is for registries of kind {}",
                names.join(", ")
            );
            return Err((span.start, why));
        }
    }
    if let Some(origins) = origins {
        for url in origins.get_ref() {
            let place = origins.span();
            origin(&Spanned::new(place.clone(), url.clone()), "factor_origins")?;
            secure(&Spanned::new(place, url.clone()), "factor_origins")?;
        }
    }
    // It stands before a colon in HTTP Basic (RFC 7617 §2).
    let plain = |u: &Spanned<String>| {
        let bytes = u.get_ref().as_bytes();
        !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_graphic() && *b != b':')
    };
    if let Some(u) = user.filter(|u| !plain(u)) {
        return Err((
            u.span().start,
            "key `user`: has no blanks and no colon".to_owned(),
        ));
    }
    let needs = |key: &str| {
        let name = registry.kind.name();
        let at = registry.name.span().start;
        Err((at, format!("a registry of kind {name} needs `{key}` too")))
    };
    match registry.kind {
        RegistryKind::PyPi | RegistryKind::Crates if upload.is_none() => needs("upload_url"),
        RegistryKind::Oci if user.is_none() => needs("user"),
        RegistryKind::Http if registry.path.is_none() => needs("path"),
        _ => {
            for (key, url) in [
                ("upload_url", upload),
                ("token_url", registry.token_url.as_ref()),
            ] {
                url.map_or(Ok(()), |url| secure(url, key))?;
            }
            registry.shape().map(drop)
        }
    }
}

/// Tokens and keys travel over TLS, or to this very machine.
pub(super) fn secure(url: &Spanned<Url>, key: &str) -> Result<(), (usize, String)> {
    let u = url.get_ref();
    let local = match u.host() {
        Some(url::Host::Domain(d)) => d == "localhost",
        Some(url::Host::Ipv4(a)) => a.is_loopback(),
        Some(url::Host::Ipv6(a)) => a.is_loopback(),
        None => false,
    };
    if u.scheme() == "https" || (u.scheme() == "http" && local) {
        Ok(())
    } else {
        Err((
            url.span().start,
            format!("key `{key}`: must be https (http only to loopback)"),
        ))
    }
}

fn origin(url: &Spanned<Url>, key: &str) -> Result<(), (usize, String)> {
    let u = url.get_ref();
    if !matches!(u.scheme(), "http" | "https") || u.path() != "/" || u.query().is_some() {
        return Err((
            url.span().start,
            format!(
                "key `{key}`: give scheme, host and port alone, like https://broker.example.org"
            ),
        ));
    }
    Ok(())
}
