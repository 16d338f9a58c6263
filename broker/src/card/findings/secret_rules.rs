//! What secrets look like: one row a kind, those of registries first. A maintained list: add a row with a sample, and the
//! tests do the rest.
//!
//! Each pattern begins with letters that stand in nearly no other text, so that all of them are looked for in one
//! pass, and ends where a secret of its kind does. Samples are written in two parts, so that no other scanner
//! takes this file for a leak.

/// One kind of secret.
pub(super) struct Rule {
    /// What it is, for people.
    pub(super) name: &'static str,
    /// What it looks like; bytes, no Unicode.
    pub(super) pattern: &'static str,
    /// How a sample begins.
    #[cfg_attr(not(test), allow(dead_code, reason = "samples are for the tests"))]
    start: &'static str,
    /// What a sample goes on with, repeated to a length, and its end.
    #[cfg_attr(not(test), allow(dead_code, reason = "samples are for the tests"))]
    goes_on: (&'static str, usize, &'static str),
}

/// Words of those who show what a secret would look like.
const EXAMPLES: [&[u8]; 6] = [
    b"example",
    b"xxxxxxxx",
    b"abcdefghij",
    b"12345678901234567890",
    b"your",
    b"placeholder",
];
/// A secret has at least so many different characters.
const DISTINCT: usize = 8;

/// Whether what was found may be one: not what documentation shows in its place.
pub(super) fn is_secret(found: &[u8]) -> bool {
    let lower = found.to_ascii_lowercase();
    let example = EXAMPLES
        .iter()
        .any(|word| lower.windows(word.len()).any(|w| w == *word));
    let mut seen = [false; 256];
    for byte in found {
        if let Some(seen) = seen.get_mut(usize::from(*byte)) {
            *seen = true;
        }
    }
    !example && seen.iter().filter(|s| **s).count() >= DISTINCT
}

const fn rule(
    name: &'static str,
    pattern: &'static str,
    start: &'static str,
    goes_on: (&'static str, usize, &'static str),
) -> Rule {
    Rule {
        name,
        pattern,
        start,
        goes_on,
    }
}

/// What letters and digits mixed look like.
const MIXED: &str = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0xL";
/// The same of hex.
const HEX: &str = "0a1b2c3d4e5f6789";

/// The list.
pub(super) const RULES: [Rule; 67] = [
    rule(
        "an npm token",
        r"\bnpm_[A-Za-z0-9]{36}\b",
        "npm_",
        (MIXED, 36, ""),
    ),
    rule(
        "an npm token in an .npmrc",
        r"_authToken[ \t]*=[ \t]*[A-Za-z0-9_.+/=-]{20,}",
        "_authToken=",
        (MIXED, 30, ""),
    ),
    rule(
        "an npm password in an .npmrc",
        r"\b_password[ \t]*=[ \t]*[A-Za-z0-9+/=]{12,}",
        "_password=",
        (MIXED, 20, ""),
    ),
    rule(
        "a PyPI token",
        r"\bpypi-[A-Za-z0-9_-]{80,}",
        "pypi-",
        (MIXED, 100, ""),
    ),
    rule(
        "a crates.io token",
        r"\bcio[A-Za-z0-9]{32}\b",
        "cio",
        (MIXED, 32, ""),
    ),
    rule(
        "a RubyGems key",
        r"\brubygems_[a-f0-9]{48}\b",
        "rubygems_",
        (HEX, 48, ""),
    ),
    rule(
        "a NuGet key",
        r"\boy2[a-z0-9]{43}\b",
        "oy2",
        ("a1b2c3d4e5", 43, ""),
    ),
    rule(
        "a Countersign secret",
        r"\bcs[tcgi]_[A-Za-z0-9_-]{43,}",
        "cst_",
        (MIXED, 46, ""),
    ),
    rule(
        "a Docker Hub token",
        r"\bdckr_[po]at_[A-Za-z0-9_-]{27,}",
        "dckr_pat_",
        (MIXED, 27, ""),
    ),
    rule(
        "a JFrog key",
        r"\bAKCp[A-Za-z0-9]{60,}",
        "AKCp",
        (MIXED, 69, ""),
    ),
    rule(
        "a Hex or Clojars token",
        r"\bCLOJARS_[a-z0-9]{60}\b",
        "CLOJARS_",
        ("a1b2c3d4e5", 60, ""),
    ),
    rule(
        "a Sonatype or GitHub Actions registry token in a URL",
        r#"https?://[A-Za-z0-9_.%-]{1,64}:[^\s@/'\"<>$\{\}:]{12,}@[A-Za-z0-9.-]+"#,
        "https://bot:",
        (MIXED, 24, "@git.acme.dev"),
    ),
    rule(
        "a GitHub token",
        r"\bgh[pousr]_[A-Za-z0-9]{36,}\b",
        "ghp_",
        (MIXED, 36, ""),
    ),
    rule(
        "a GitHub fine-grained token",
        r"\bgithub_pat_[A-Za-z0-9_]{60,}",
        "github_pat_",
        (MIXED, 82, ""),
    ),
    rule(
        "a GitLab token",
        r"\bgl(?:pat|ptt|dt|cbt|rt|ft|soat|agent|imt)-[A-Za-z0-9_-]{20,}",
        "glpat-",
        (MIXED, 20, ""),
    ),
    rule(
        "a Bitbucket token",
        r"\bATBB[A-Za-z0-9]{28,}\b",
        "ATBB",
        (MIXED, 32, ""),
    ),
    rule(
        "an Atlassian token",
        r"\bATATT3[A-Za-z0-9_=-]{100,}",
        "ATATT3",
        (MIXED, 180, ""),
    ),
    rule(
        "an AWS access key",
        r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b",
        "AKIA",
        ("Q3E5T7Y2U4I6O2P3", 16, ""),
    ),
    rule(
        "an AWS secret key",
        r#"(?i:aws_secret_access_key)['\"]?[ \t]*[=:][ \t]*['\"]?[A-Za-z0-9/+]{40}\b"#,
        "aws_secret_access_key = ",
        (MIXED, 40, ""),
    ),
    rule(
        "a Google API key",
        r"\bAIza[A-Za-z0-9_-]{35}\b",
        "AIza",
        (MIXED, 35, ""),
    ),
    rule(
        "a Google OAuth secret",
        r"\bGOCSPX-[A-Za-z0-9_-]{28}\b",
        "GOCSPX-",
        (MIXED, 28, ""),
    ),
    rule(
        "an Azure storage key",
        r"AccountKey=[A-Za-z0-9+/]{86}==",
        "AccountKey=",
        (MIXED, 86, "=="),
    ),
    rule(
        "an Alibaba access key",
        r"\bLTAI[A-Za-z0-9]{20}\b",
        "LTAI",
        (MIXED, 20, ""),
    ),
    rule(
        "a Tencent secret id",
        r"\bAKID[A-Za-z0-9]{32}\b",
        "AKID",
        (MIXED, 32, ""),
    ),
    rule(
        "a DigitalOcean token",
        r"\bdo[opr]_v1_[a-f0-9]{64}\b",
        "dop_v1_",
        (HEX, 64, ""),
    ),
    rule(
        "a Heroku key",
        r"\bHRKU-[A-Za-z0-9_-]{36,}",
        "HRKU-",
        (MIXED, 58, ""),
    ),
    rule(
        "a Fly.io token",
        r"\b(?:FlyV1 fm[12]_|fo1_)[A-Za-z0-9+/=_-]{40,}",
        "fo1_",
        (MIXED, 43, ""),
    ),
    rule(
        "a Netlify token",
        r"\bnfp_[A-Za-z0-9]{36,}",
        "nfp_",
        (MIXED, 40, ""),
    ),
    rule(
        "a Vercel token",
        r"\bvc[pkair]_[A-Za-z0-9]{50,}",
        "vcp_",
        (MIXED, 56, ""),
    ),
    rule(
        "a Cloudflare origin key",
        r"\bv1\.0-[a-f0-9]{24}-[a-f0-9]{146}\b",
        "v1.0-0a1b2c3d4e5f67890a1b2c3d-",
        (HEX, 146, ""),
    ),
    rule(
        "a HashiCorp Vault token",
        r"\bhv[sbr]\.[A-Za-z0-9_-]{90,}",
        "hvs.",
        (MIXED, 95, ""),
    ),
    rule(
        "a Terraform Cloud token",
        r"\batlasv1\.[A-Za-z0-9_=-]{60,}",
        "atlasv1.",
        (MIXED, 67, ""),
    ),
    rule(
        "a Pulumi token",
        r"\bpul-[a-f0-9]{40}\b",
        "pul-",
        (HEX, 40, ""),
    ),
    rule(
        "a Doppler token",
        r"\bdp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{40,}",
        "dp.pt.",
        (MIXED, 43, ""),
    ),
    rule(
        "a Databricks token",
        r"\bdapi[a-f0-9]{32}\b",
        "dapi",
        (HEX, 32, ""),
    ),
    rule(
        "a PlanetScale secret",
        r"\bpscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,}",
        "pscale_tkn_",
        (MIXED, 43, ""),
    ),
    rule(
        "a Supabase key",
        r"\bsb(?:p|_secret)_[A-Za-z0-9_]{31,}",
        "sbp_",
        (HEX, 40, ""),
    ),
    rule(
        "a Slack token",
        r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}",
        "xoxb-",
        (MIXED, 50, ""),
    ),
    rule(
        "a Slack app token",
        r"\bxapp-[0-9]-[A-Za-z0-9-]{40,}",
        "xapp-1-",
        (MIXED, 60, ""),
    ),
    rule(
        "a Slack webhook",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/+]{40,}",
        "hooks.slack.com/services/",
        (MIXED, 46, ""),
    ),
    rule(
        "a Discord webhook",
        r"discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{60,}",
        "discord.com/api/webhooks/12345678901234567/",
        (MIXED, 68, ""),
    ),
    rule(
        "a Telegram bot token",
        r"bot[0-9]{8,10}:AA[A-Za-z0-9_-]{33}\b",
        "bot1234567890:AA",
        (MIXED, 33, ""),
    ),
    rule(
        "a Stripe key",
        r"\b[rs]k_live_[A-Za-z0-9]{20,}",
        "sk_live_",
        (MIXED, 24, ""),
    ),
    rule(
        "a Stripe webhook secret",
        r"\bwhsec_[A-Za-z0-9+/=]{32,}",
        "whsec_",
        (MIXED, 32, ""),
    ),
    rule(
        "a Square token",
        r"\b(?:sq0csp|sq0atp)-[A-Za-z0-9_-]{22,}",
        "sq0csp-",
        (MIXED, 43, ""),
    ),
    rule(
        "a PayPal Braintree token",
        r"access_token\$production\$[a-z0-9]{16}\$[a-f0-9]{32}",
        "access_token$production$a1b2c3d4e5f6g7h8$",
        (HEX, 32, ""),
    ),
    rule(
        "a Shopify token",
        r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b",
        "shpat_",
        (HEX, 32, ""),
    ),
    rule(
        "a SendGrid key",
        r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
        "SG.aB3dE6gH9jK2mN5pQ8sT1v.",
        (MIXED, 43, ""),
    ),
    rule(
        "a Mailgun key",
        r"\bkey-[a-f0-9]{32}\b",
        "key-",
        (HEX, 32, ""),
    ),
    rule(
        "a Brevo key",
        r"\bxkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}\b",
        "xkeysib-",
        (HEX, 64, "-aB3dE6gH9jK2mN5p"),
    ),
    rule("a Twilio key", r"\bSK[a-f0-9]{32}\b", "SK", (HEX, 32, "")),
    rule(
        "an OpenAI key",
        r"\bsk-(?:proj-|svcacct-|admin-)[A-Za-z0-9_-]{40,}",
        "sk-proj-",
        (MIXED, 60, ""),
    ),
    rule(
        "an older OpenAI key",
        r"\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}\b",
        "sk-aB3dE6gH9jK2mN5pQ8sTT3BlbkFJ",
        (MIXED, 20, ""),
    ),
    rule(
        "an Anthropic key",
        r"\bsk-ant-[a-z]{3,5}[0-9]{2}-[A-Za-z0-9_-]{80,}",
        "sk-ant-api03-",
        (MIXED, 93, ""),
    ),
    rule(
        "a Hugging Face token",
        r"\bhf_[A-Za-z]{34}\b",
        "hf_",
        ("aBcDeFgHjKmNpQrStVwXyZ", 34, ""),
    ),
    rule(
        "a Replicate token",
        r"\br8_[A-Za-z0-9]{37}\b",
        "r8_",
        (MIXED, 37, ""),
    ),
    rule(
        "a Linear key",
        r"\blin_(?:api|oauth)_[A-Za-z0-9]{32,}",
        "lin_api_",
        (MIXED, 40, ""),
    ),
    rule(
        "a Notion key",
        r"\bntn_[A-Za-z0-9]{40,}",
        "ntn_",
        (MIXED, 46, ""),
    ),
    rule(
        "a Figma token",
        r"\bfigd_[A-Za-z0-9_-]{40,}",
        "figd_",
        (MIXED, 40, ""),
    ),
    rule(
        "a Postman key",
        r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}\b",
        "PMAK-0a1b2c3d4e5f67890a1b2c3d-",
        (HEX, 34, ""),
    ),
    rule(
        "a New Relic key",
        r"\bNRAK-[A-Z0-9]{27}\b",
        "NRAK-",
        ("A1B2C3D4E5", 27, ""),
    ),
    rule(
        "a Grafana token",
        r"\bgl(?:c|sa)_[A-Za-z0-9_+/=-]{32,}",
        "glsa_",
        (MIXED, 41, ""),
    ),
    rule(
        "a Sentry token",
        r"\bsntry[su]_[A-Za-z0-9_+/=-]{60,}",
        "sntrys_",
        (MIXED, 90, ""),
    ),
    rule(
        "a Dynatrace token",
        r"\bdt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{64}",
        "dt0c01.A1B2C3D4E5F6G7H8J9K1L2M3.",
        ("A1B2C3D4E5", 64, ""),
    ),
    rule(
        "an age secret key",
        r"AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{50,}",
        "AGE-SECRET-KEY-1",
        ("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58, ""),
    ),
    rule(
        "a private key",
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\\[nr]|[\sA-Za-z:.0-9,()-]){1,200}?[A-Za-z0-9+/]{60}",
        "-----BEGIN RSA PRIVATE KEY-----\\n",
        (MIXED, 64, ""),
    ),
    rule(
        "a PuTTY private key",
        r"PuTTY-User-Key-File-[23]: ",
        "PuTTY-User-Key-File-2: ",
        (MIXED, 4, ""),
    ),
];

#[cfg(test)]
fn sample(rule: &Rule) -> String {
    let (part, length, end) = rule.goes_on;
    let body: String = part.chars().cycle().take(length).collect();
    format!("{}{body}{end}", rule.start)
}

/// One of each kind.
#[cfg(test)]
pub(in crate::card) fn samples() -> Vec<String> {
    RULES.iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::findings::secrets::{Rules, Search};

    fn found(rules: &Rules, text: &[u8]) -> Vec<(usize, u64)> {
        let mut search = Search::new(Some(rules));
        search.see(text, 0);
        search.finish()
    }

    #[test]
    fn each_rule_finds_its_sample_and_no_other_rule_does() {
        let rules = Rules::new();
        for (n, rule) in RULES.iter().enumerate() {
            let text = format!("first\nconst token = \"{}\";\n", sample(rule));
            assert_eq!(
                found(&rules, text.as_bytes()),
                [(n, 2)],
                "{}: {text}",
                rule.name
            );
        }
    }

    #[test]
    fn what_documentation_shows_and_what_is_too_short_is_no_secret() {
        let rules = Rules::new();
        for text in [
            format!("npm_{}", "x".repeat(36)),
            format!("{}YOUR_TOKEN_HERE_1a2b3c4d5e6f7g8h9i0j", "npm_"),
            format!("npm_{}", &MIXED[..20]),
            "AKIAIOSFODNN7EXAMPLE".to_owned(),
            format!("-----BEGIN {}-----\\n...\\n-----END", "PRIVATE KEY"),
            "https://user:password@host.example".to_owned(),
            "https://${USER}:${PASSWORD_OF_USER}@host.example".to_owned(),
            "import sk from 'sk-lib'; const key = 'key-of-the-map';".to_owned(),
        ] {
            assert_eq!(found(&rules, text.as_bytes()), [], "{text}");
        }
    }

    #[test]
    fn a_secret_across_two_pieces_is_found_once_with_its_line() {
        let rules = Rules::new();
        let text = format!("a\nb\n{}\nc\n", sample(&RULES[0]));
        let text = text.as_bytes();
        for cut in 1..text.len() {
            let mut search = Search::new(Some(&rules));
            search.see(&text[..cut], 0);
            search.see(text, cut);
            assert_eq!(search.finish(), [(0, 3)], "{cut}");
        }
    }
}
