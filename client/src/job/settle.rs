//! After the registry's client ran: what does the broker say that the registry shows?

use super::session::{Event, Session, ended};
use crate::{context::Context, edge, fail::Failure, http::Broker};
use proto::{
    api::{ItemStatus, StateName, Status},
    problem::Exit,
    text::harmless,
};

/// How long the outcome is waited for, in seconds.
const WAIT: u64 = 120;
/// The same after a command that failed and a broker that saw nothing of it, in seconds.
const WAIT_FAILED: u64 = 8;
/// How long one poll is held, in seconds.
const HOLD: u64 = 10;

/// Waits for the outcome. The broker's word decides, never the command's: a command may fail after
/// its publish went through, or succeed without having published anything.
pub(crate) async fn settle(
    context: &Context,
    broker: &Broker,
    session: &Session,
    command_failed: Option<String>,
) -> Result<(), Failure> {
    let mut started = edge::now();
    let mut told = false;
    let mut since = None;
    loop {
        let status = match session.poll(broker, since, HOLD).await {
            Ok(status) => status,
            Err(f) if f.is_away() && edge::now().since(started) < WAIT => {
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                continue;
            }
            Err(f) => return Err(f),
        };
        if since != Some(status.revision) && context.out.json {
            context.out.json(&Event {
                event: "state",
                status: &status,
            })?;
        }
        since = Some(status.revision);
        if status.state.is_final() {
            return published(context, session, &ended(status)?, command_failed.as_deref());
        }
        if status.state == StateName::Confirming {
            // Its end is the broker's to say: people give the registry's second factor meanwhile.
            if let Some(reason) = status.reason.as_deref().filter(|_| !told) {
                context.out.note(&format!("  {}", harmless(reason)));
                told = true;
            }
            started = edge::now();
            continue;
        }
        let spent = edge::now().since(started);
        let limit = match (status.state, &command_failed) {
            (StateName::Settling, _) | (_, None) => WAIT,
            (_, Some(_)) => WAIT_FAILED,
        };
        if spent >= limit {
            return Err(open_end(session, &status, command_failed));
        }
    }
}

/// Waits while the registry wants its own second factor: clients lose patience meanwhile, the broker does
/// not. What the request is afterwards.
pub(crate) async fn confirmed(
    context: &Context,
    broker: &Broker,
    session: &Session,
) -> Result<Status, Failure> {
    let mut status = session.poll(broker, None, 0).await?;
    let mut told = false;
    while status.state == StateName::Confirming {
        if let Some(reason) = status.reason.as_deref().filter(|_| !told) {
            context.out.note(&format!("  {}", harmless(reason)));
            told = true;
        }
        status = session.poll(broker, Some(status.revision), HOLD).await?;
    }
    Ok(status)
}

/// What is said when time is up. Where a part of a batch is published, what is missing is named.
fn open_end(session: &Session, status: &Status, command_failed: Option<String>) -> Failure {
    let is_out = |i: &&ItemStatus| i.state == StateName::Published;
    let out = status.items.iter().filter(is_out).count();
    let missing: Vec<_> = status.items.iter().filter(|i| !is_out(i)).collect();
    let names: Vec<_> = missing.iter().map(|i| harmless(&i.name)).collect();
    let so_far = match out {
        0 => "nothing was published".to_owned(),
        _ => format!(
            "{out} of {} packages are published, not: {}",
            status.items.len(),
            names.join(", ")
        ),
    };
    // What the registry said to an upload of our own stands in its answer already: once is enough.
    let known = |said: &String| {
        let words = said.strip_prefix("the registry said: ").unwrap_or(said);
        command_failed.as_ref().is_some_and(|c| c.contains(words))
    };
    let said = status.reason.as_deref().map(harmless).filter(|s| !known(s));
    let so_far = said.map_or(so_far.clone(), |said| {
        format!("{}; {so_far}", said.trim_end_matches('.'))
    });
    let command_failed = command_failed.map(|c| c.trim_end_matches('.').to_owned());
    let go_on = match &session.kept {
        Some(file) => format!(
            "The approval holds until {}: `countersign collect --ticket-file {}` publishes what is left.",
            status.expires.rfc3339(),
            file.display()
        ),
        None if out > 0 => {
            "Run the job again with --skip-published (--workspaces has it): it asks for what is left.".to_owned()
        }
        None => "Run the job again: it asks anew.".to_owned(),
    };
    match (status.state, command_failed) {
        (StateName::Settling, _) => Failure::new(
            Exit::Conflict,
            format!(
                "The registry's answer is unclear, and the broker keeps reading it back; {so_far}."
            ),
            format!("Do not publish this by hand. {go_on}"),
        ),
        (_, Some(command)) => Failure::failed(
            format!("{command}; {so_far}."),
            format!("Read the command's output above. {go_on}"),
        ),
        (_, None) if out > 0 => Failure::new(
            Exit::Conflict,
            format!("The command succeeded, but {so_far}."),
            format!("Check what the command publishes. {go_on}"),
        ),
        (_, None) => Failure::new(
            Exit::Conflict,
            "The command succeeded, but no publish of these bytes reached the broker.",
            "Check where the command publishes to: it must use the registry address that it was given.",
        ),
    }
}

/// Reports a publish; the digests that were read back must be the ones that were asked for.
fn published(
    context: &Context,
    session: &Session,
    status: &Status,
    command_failed: Option<&str>,
) -> Result<(), Failure> {
    for item in &session.items {
        let name = item.name();
        let shown = status.items.iter().find(|i| i.name == name);
        for file in &item.files {
            let shown = shown.and_then(|i| i.files.iter().find(|f| f.name == file.name));
            // A file counts as published only with the bytes that were asked for.
            if shown.and_then(|f| f.read_back.as_ref()) != Some(&file.digest) {
                return Err(Failure::new(
                    Exit::Conflict,
                    format!(
                        "The registry's bytes of {name} were not shown to be the approved ones ({}).",
                        harmless(&file.name)
                    ),
                    "Compare the registry's own integrity value with the digest above.",
                ));
            }
            context
                .out
                .note(&format!("  read back  {name}  {}", file.digest));
        }
    }
    if let Some(command) = command_failed {
        context.out.note(&format!(
            "  {command}, but the registry shows the approved bytes: published."
        ));
    }
    let names = session
        .items
        .iter()
        .map(|i| harmless(&i.name()))
        .collect::<Vec<_>>()
        .join(", ");
    if context.out.json {
        return context.out.json(&Event {
            event: "done",
            status,
        });
    }
    context.out.line(&format!("published {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{edge::Env, out::Out};
    use proto::{
        api::FileStatus,
        digest::{Algorithm, Digest},
        request::{File, Item},
        time::UnixTime,
    };

    fn session(items: Vec<Item>) -> Session {
        Session {
            broker: String::new(),
            id: "00000000-0000-7000-8000-000000000001".parse().unwrap(),
            secrets: crate::job::session::Secrets {
                ticket: String::new(),
                job_key: String::new(),
            },
            items,
            paths: vec![],
            plain: false,
            deposit: None,
            inspect: Vec::new(),
            registry_url: std::collections::BTreeMap::default(),
            expires: UnixTime(0),
            kept: None,
        }
    }

    fn status(session: &Session, state: StateName, items: &[(&str, StateName)]) -> Status {
        let items = items.iter().map(|(name, state)| ItemStatus {
            name: (*name).to_owned(),
            state: *state,
            files: vec![],
        });
        Status {
            id: session.id,
            state,
            revision: 1,
            approvals: 1,
            quorum: 1,
            expires: UnixTime(0),
            reason: None,
            not_before: None,
            items: items.collect(),
        }
    }

    #[test]
    fn what_the_registry_said_is_told_once() {
        let session = session(vec![]);
        let mut status = status(&session, StateName::Releasing, &[]);
        status.reason = Some("the registry said: 403 Forbidden: not on Sunday".to_owned());
        for command in [
            "the broker answered 403 Forbidden: the registry said no: 403 Forbidden: not on Sunday",
            "`npm publish` failed (exit status: 1)",
            "the upload broke off (timeout)",
        ] {
            let told = open_end(&session, &status, Some(command.to_owned())).what;
            assert!(told.starts_with(command), "{told}");
            assert_eq!(told.matches("not on Sunday").count(), 1, "{told}");
            assert!(told.ends_with("; nothing was published."), "{told}");
        }
    }

    #[test]
    fn attack_35_a_publish_counts_only_with_the_bytes_that_were_asked_for() {
        let context = Context {
            env: Env::default(),
            out: Out::new(true, &Env::default()),
            broker: None,
        };
        let digest = Digest::of(Algorithm::Sha512, b"a");
        let item = Item {
            registry: "npm".parse().unwrap(),
            package: "left".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            tag: None,
            files: vec![File {
                name: "l.tgz".into(),
                size: 1,
                digest: digest.clone(),
            }],
        };
        let session = session(vec![item]);
        let judge = |read_back: Option<Digest>, failed: Option<&str>| {
            let status = Status {
                id: session.id,
                state: StateName::Published,
                revision: 1,
                approvals: 1,
                quorum: 1,
                expires: UnixTime(0),
                reason: None,
                not_before: None,
                items: vec![ItemStatus {
                    name: "npm:left@1.0.0".into(),
                    state: StateName::Published,
                    files: vec![FileStatus {
                        name: "l.tgz".into(),
                        state: StateName::Published,
                        read_back,
                    }],
                }],
            };
            published(&context, &session, &status, failed).map_err(|f| f.exit as u8)
        };
        assert_eq!(judge(Some(digest.clone()), None), Ok(()));
        assert_eq!(judge(Some(digest), Some("npm exited with 1")), Ok(()));
        assert_eq!(
            judge(Some(Digest::of(Algorithm::Sha512, b"b")), None),
            Err(7)
        );
        assert_eq!(judge(None, None), Err(7));
    }

    #[test]
    fn an_open_end_is_never_a_success_and_says_what_is_missing() {
        use StateName::{Published, Releasing, Settling};
        let mut session = session(vec![]);
        let end = |session: &Session, state, items: &[(&str, StateName)], failed: Option<&str>| {
            let status = status(session, state, items);
            open_end(session, &status, failed.map(str::to_owned))
        };
        let one = [("npm:a@1.0.0", Releasing)];
        assert_eq!(end(&session, Settling, &one, None).exit as u8, 7);
        assert_eq!(end(&session, Releasing, &one, None).exit as u8, 7);
        let failed = end(&session, Releasing, &one, Some("npm exited with 1"));
        assert_eq!(failed.exit as u8, 1);
        assert!(failed.what.contains("nothing was published"));
        let two = [("npm:a@1.0.0", Published), ("npm:b@1.0.0", Releasing)];
        for why in [None, Some("npm exited with 1")] {
            let half = end(&session, Releasing, &two, why);
            assert!(
                half.what
                    .contains("1 of 2 packages are published, not: npm:b@1.0.0")
            );
            assert!(half.next.contains("--skip-published"));
        }
        session.kept = Some("r.json".into());
        let kept = end(&session, Releasing, &two, None);
        assert!(kept.next.contains("collect --ticket-file r.json"));
    }
}
