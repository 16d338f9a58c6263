//! Logs and metrics.

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// For a person at a terminal.
    Pretty,
}

/// Starts logging to standard error. `RUST_LOG` filters; the default is `info`.
pub fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start is a test's; the first one stays.
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Pretty => builder.try_init(),
    };
}

/// What the daemon counts. Labels never hold text from outside.
pub struct Metrics {
    registry: Registry,
    /// Requests opened.
    pub opened: Counter,
    /// Requests refused when opened.
    pub refused: Counter,
    /// Answers accepted.
    pub answers: Counter,
    /// Answers refused.
    pub answers_refused: Counter,
    /// Requests published.
    pub published: Counter,
    /// Requests that ended in a conflict: look at them.
    pub conflicts: Counter,
    /// Alarms about what registries show: look at them.
    pub alarms: Counter,
    /// People rung.
    pub rings: Counter,
    /// Notifications that a server did not take.
    pub notifications_failed: Counter,
    /// Packages at whose registry nobody could look for hours.
    pub watch_blind: Gauge,
    /// Registry tokens that are to be rotated soon.
    pub tokens_rotate_soon: Gauge,
    /// The same, now.
    pub tokens_rotate_now: Gauge,
    /// Registry tokens that are no more here, and may still be good at their registry.
    pub tokens_to_revoke: Gauge,
    /// Old ones that are kept.
    pub tokens_kept: Gauge,
    /// Stored tokens of which nobody said that they are nowhere else.
    pub tokens_not_emptied: Gauge,
    /// Backups that the broker did not get made by itself.
    pub backups_failed: Counter,
    /// When the newest backup was taken, in seconds since 1970.
    pub backup_taken: Gauge,
    /// 1 while the database is an older copy that nobody agreed to.
    pub restored: Gauge,
    /// Witnesses that do not cosign the log, since it does not continue what they have seen: look at it.
    pub witnesses_refusing: Gauge,
    /// Witnesses that have not cosigned for an hour.
    pub witnesses_silent: Gauge,
    /// 1 while the wall clock is not believed: look at it.
    pub clock_suspect: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("countersign");
        let mut counter = |name: &str, help: &str| {
            let c = Counter::default();
            registry.register(name, help, c.clone());
            c
        };
        let opened = counter("requests_opened", "Requests opened");
        let refused = counter("requests_refused", "Requests refused when opened");
        let answers = counter("answers_accepted", "Answers accepted");
        let answers_refused = counter("answers_refused", "Answers refused");
        let published = counter("requests_published", "Requests published and read back");
        let conflicts = counter("requests_conflict", "Requests that ended in a conflict");
        let alarms = counter(
            "alarms",
            "Alarms about what registries show: countersign admin watch",
        );
        let rings = counter("rings", "People rung for requests");
        let notifications_failed = counter(
            "notifications_failed",
            "Notifications that a server did not take: countersign notify list",
        );
        let backups_failed = counter(
            "backups_failed",
            "Backups into the folder of [backup] that were not made",
        );
        let mut gauge = |name: &str, help: &str| {
            let g = Gauge::default();
            registry.register(name, help, g.clone());
            g
        };
        let watch_blind = gauge(
            "watch_blind",
            "Packages at whose registry nobody could look for hours",
        );
        let tokens_rotate_soon = gauge(
            "tokens_rotate_soon",
            "Registry tokens at 75 % of their allowed age, or in the last week before their expiry",
        );
        let tokens_rotate_now = gauge(
            "tokens_rotate_now",
            "Registry tokens at 90 % of their allowed age, expired, or seen by a job: countersign admin token list",
        );
        let tokens_to_revoke = gauge(
            "tokens_to_revoke",
            "Registry tokens that were destroyed here and may still be good: countersign admin token list",
        );
        let tokens_kept = gauge(
            "tokens_kept",
            "Old registry tokens that are kept, since nobody could prove the new ones: countersign admin token list --due",
        );
        let tokens_not_emptied = gauge(
            "tokens_not_emptied",
            "Registry tokens of which no admin said that they are nowhere else: countersign admin token emptied",
        );
        let backup_taken = gauge(
            "backup_taken_seconds",
            "When the newest backup was taken, in seconds since 1970; 0: none is known",
        );
        let restored = gauge(
            "restored",
            "1 while nothing is approved, since the database is an older copy: countersign admin restored",
        );
        let witnesses_refusing = gauge(
            "witnesses_refusing",
            "Witnesses that refuse the log, since it does not continue what they have seen: countersign admin status",
        );
        let witnesses_silent = gauge(
            "witnesses_silent",
            "Witnesses that have not cosigned the log for an hour",
        );
        let clock_suspect = gauge(
            "clock_suspect",
            "1 while the wall clock is not believed: TOTP and id tokens are refused",
        );
        Self {
            registry,
            opened,
            refused,
            answers,
            answers_refused,
            published,
            conflicts,
            alarms,
            rings,
            notifications_failed,
            watch_blind,
            tokens_rotate_soon,
            tokens_rotate_now,
            tokens_to_revoke,
            tokens_kept,
            tokens_not_emptied,
            backups_failed,
            backup_taken,
            restored,
            witnesses_refusing,
            witnesses_silent,
            clock_suspect,
        }
    }
}

impl Metrics {
    /// The Prometheus text form.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}
