//! The two kinds of pattern: over package names and over claims. Both match whole texts only, with
//! `*` as the one special character, so that no pattern is half-anchored (attack 7).

use globset::{GlobBuilder, GlobMatcher};
use proto::ids::{PackageName, RegistryId};

/// Longest pattern, in bytes.
const PATTERN_MAX: usize = 300;

/// `registry:name` or `registry:glob`. The registry is exact; in the name `*` stands for any
/// characters but `/`, so that `@acme/*` is neither `@acme/a/b` nor `@acme-evil/x`.
#[derive(Clone, Debug)]
pub struct PackagePattern {
    text: String,
    registry: RegistryId,
    name: Text,
}

/// How closely a pattern names a package: exact beats a glob, a longer literal beginning beats a
/// shorter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Closeness {
    exact: bool,
    literal_prefix: usize,
}

impl PackagePattern {
    /// Reads `registry:pattern`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (registry, name) = text
            .split_once(':')
            .ok_or("must be like \"npm:@acme/left\" or \"npm:@acme/*\"")?;
        let registry = registry.parse::<RegistryId>().map_err(|e| e.to_string())?;
        let spelled = name
            .bytes()
            .all(|b| b == b'*' || b.is_ascii_alphanumeric() || b"-_.~@/:".contains(&b));
        if !spelled {
            return Err("may hold the characters of a package name and `*`; there are no regular expressions".to_owned());
        }
        if !name.contains('*') {
            name.parse::<PackageName>().map_err(|e| e.to_string())?;
        }
        Ok(Self {
            text: text.to_owned(),
            registry,
            name: Text::parse(name, true)?,
        })
    }

    /// The registry that it is about.
    pub const fn registry(&self) -> &RegistryId {
        &self.registry
    }

    /// How closely it names this package, if it does.
    pub fn matches(&self, registry: &RegistryId, package: &PackageName) -> Option<Closeness> {
        (self.registry == *registry && self.name.matches(package.as_str())).then(|| Closeness {
            exact: matches!(self.name, Text::Exact(_)),
            literal_prefix: self.name.literal_prefix(),
        })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The one package that it names; none where it is a glob.
    pub fn exact(&self) -> Option<PackageName> {
        match &self.name {
            Text::Exact(name) => name.parse().ok(),
            Text::Glob { .. } => None,
        }
    }

    /// Whether it names all that the other one names.
    pub fn covers(&self, other: &Self) -> bool {
        self.registry == other.registry && self.name.covers(&other.name)
    }

    /// Whether some package could be named by both. A yes may be wrong, a no never is.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.registry == other.registry
            && match (&self.name, &other.name) {
                (Text::Exact(a), b) | (b, Text::Exact(a)) => b.matches(a),
                (Text::Glob { source: a, .. }, Text::Glob { source: b, .. }) => {
                    let short = self.name.literal_prefix().min(other.name.literal_prefix());
                    a.as_bytes().get(..short) == b.as_bytes().get(..short)
                }
            }
    }

    /// Whether it and the other one name a package equally closely.
    pub fn as_close_as(&self, other: &Self) -> bool {
        self.name.literal_prefix() == other.name.literal_prefix()
    }
}

/// What a claim must be: exactly a text or, where [`ClaimPattern::with_star`] made it, a pattern in
/// which `*` stands for any characters, `/` included (`refs/heads/*` is also `refs/heads/a/b`).
#[derive(Clone, Debug)]
pub struct ClaimPattern(Text);

impl ClaimPattern {
    /// The text itself. A `*` in it is refused: it would look like a pattern and match nothing.
    pub fn exact(text: &str) -> Result<Self, String> {
        if text.contains('*') {
            return Err("takes no `*`; only `ref` and `environment` take patterns".to_owned());
        }
        Text::parse(text, false).map(Self)
    }

    /// A text or a pattern.
    pub fn with_star(text: &str) -> Result<Self, String> {
        Text::parse(text, false).map(Self)
    }

    /// The claim's absence, written as `""`.
    pub fn absent() -> Self {
        Self(Text::Exact(String::new()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Exact(text) => text,
            Text::Glob { source, .. } => source,
        }
    }

    /// Whether every claim that the other one matches is matched by this one.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.covers(&other.0)
    }

    /// Whether it matches. A claim that is missing matches nothing but [`ClaimPattern::absent`].
    pub fn matches(&self, claim: Option<&str>) -> bool {
        match claim {
            Some(value) if !value.is_empty() => self.0.matches(value),
            _ => matches!(&self.0, Text::Exact(text) if text.is_empty()),
        }
    }
}

#[derive(Clone, Debug)]
enum Text {
    Exact(String),
    Glob {
        source: String,
        matcher: GlobMatcher,
    },
}

impl Text {
    fn parse(text: &str, star_stops_at_slash: bool) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        proto::text::check(text, PATTERN_MAX).map_err(|e| e.to_string())?;
        if !text.contains('*') {
            return Ok(Self::Exact(text.to_owned()));
        }
        if text.contains("**") {
            return Err("takes single `*` only".to_owned());
        }
        // Everything but `*` is escaped: brackets, braces and question marks in a ref are themselves.
        let glob = text
            .split('*')
            .map(globset::escape)
            .collect::<Vec<_>>()
            .join("*");
        let matcher = GlobBuilder::new(&glob)
            .literal_separator(star_stops_at_slash)
            .build()
            .map_err(|e| e.kind().to_string())?
            .compile_matcher();
        Ok(Self::Glob {
            source: text.to_owned(),
            matcher,
        })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Glob { matcher, .. } => matcher.is_match(text),
        }
    }

    /// Whether it matches all that the other one matches. A `*` of the other one can only be taken by one of this
    /// one's, since no text that is not a pattern holds one: whatever stands in its place is taken as well.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(own), Self::Exact(other)) => own == other,
            (Self::Exact(_), Self::Glob { .. }) => false,
            // The absent claim is nothing that a glob matches.
            (Self::Glob { .. }, Self::Exact(other)) => !other.is_empty() && self.matches(other),
            (Self::Glob { .. }, Self::Glob { source, .. }) => self.matches(source),
        }
    }

    fn literal_prefix(&self) -> usize {
        match self {
            Self::Exact(text) => text.len(),
            Self::Glob { source, .. } => source.find('*').unwrap_or(source.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(pattern: &str, registry: &str, package: &str) -> bool {
        PackagePattern::parse(pattern)
            .unwrap()
            .matches(&registry.parse().unwrap(), &package.parse().unwrap())
            .is_some()
    }

    #[test]
    fn a_package_pattern_matches_whole_names_within_one_scope() {
        assert!(hits("npm:@acme/*", "npm", "@acme/left"));
        for other in [
            "@acme/a/b",
            "@acme-evil/x",
            "@acme",
            "x@acme/left",
            "@ACME/left",
            "x/@acme/left",
        ] {
            assert!(!hits("npm:@acme/*", "npm", other), "{other}");
        }
        assert!(!hits("npm:@acme/*", "npm-mirror", "@acme/left"));
        assert!(!hits("npm:left", "npm", "left-pad") && !hits("npm:left", "npm", "a-left"));
        assert!(!hits("npm:left", "npm", "Left"));
        assert!(hits("pypi:acme-*", "pypi", "acme-x") && !hits("pypi:acme-*", "pypi", "acme"));
        assert!(
            !hits("npm:*", "npm", "@acme/left"),
            "a star does not cross a scope"
        );
        assert!(!hits("npm:a.c", "npm", "abc"), "a dot is a dot");
    }

    #[test]
    fn what_is_not_a_closed_glob_is_refused() {
        for bad in [
            "left",
            "npm:",
            ":left",
            "NPM:left",
            "npm:^left$",
            "npm:l?ft",
            "npm:{a,b}",
            "npm:[ab]",
            "npm:**",
            "npm:@acme/**",
            "npm:a b",
            "*:left",
            "npm:l\u{e9}ft",
        ] {
            assert!(PackagePattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn closer_patterns_win() {
        let close = |p: &str| {
            PackagePattern::parse(p)
                .unwrap()
                .matches(&"npm".parse().unwrap(), &"@acme/left".parse().unwrap())
                .unwrap()
        };
        assert!(close("npm:@acme/left") > close("npm:@acme/left*"));
        assert!(close("npm:@acme/l*") > close("npm:@acme/*"));
        assert_eq!(close("npm:@acme/*t"), close("npm:@acme/*"));
    }

    #[test]
    fn a_claim_pattern_matches_whole_values() {
        let tags = ClaimPattern::with_star("refs/tags/v*").unwrap();
        assert!(tags.matches(Some("refs/tags/v1.0")) && tags.matches(Some("refs/tags/v1/x")));
        for other in [
            "refs/heads/refs/tags/v1",
            "refs/tags/V1",
            "refs/tags/w1",
            "refs/heads/v1",
        ] {
            assert!(!tags.matches(Some(other)), "{other}");
        }
        assert!(!tags.matches(None) && !ClaimPattern::with_star("*").unwrap().matches(None));
        assert!(ClaimPattern::absent().matches(None) && !ClaimPattern::absent().matches(Some("x")));
        assert!(ClaimPattern::exact("a*").is_err() && ClaimPattern::exact("").is_err());
        assert!(
            !ClaimPattern::with_star("v[12]*")
                .unwrap()
                .matches(Some("v1"))
        );
    }
}
