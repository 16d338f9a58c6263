//! `show`, `approve`, `deny`: what a maintainer does.

use super::inbox::{confirm_lines, waiting};
use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    job::open::is_match_code,
    profile::{ask_line, ask_secret},
    witness,
};
use proto::{
    answer::{Decision, Factor, Statement},
    api::{AnswerRequest, Answered, InboxLine, Question, SecondFactor, StateName},
    digest::hex,
    ids::RequestId,
    problem::Exit,
    request::RequestDigest,
    text::harmless,
};
use std::collections::BTreeSet;

mod card;
mod screen;

/// How long `approve` waits for the registry's page and for what comes of it, in seconds.
const SECOND_HALF: u64 = 900;
/// Pause between two looks.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Show exactly what would be published, most important first.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign show 0197…
  countersign show 0197… --diff lib/index.js  # how the text of a file inside changed")]
pub(crate) struct ShowArgs {
    /// The request
    id: RequestId,
    /// How the text of this file inside changed, by its name in the list (those with a star have one); where several
    /// files have the name, of each
    #[arg(long, value_name = "FILE")]
    diff: Option<String>,
}

/// Approve a request: shows it, asks for the match code from the CI job's own output, signs its digest
/// with this device.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign approve 0197…
  countersign approve 0197… --match-code 471102 --totp 123456

Type the match code from the output of the job that you started yourself. If you did not start one, \
deny: `countersign deny <ID> --freeze`.")]
pub(crate) struct ApproveArgs {
    /// The request
    id: RequestId,
    /// The 6 digits from the CI job's output (asked for when absent)
    #[arg(long, value_name = "DIGITS")]
    match_code: Option<String>,
    /// The code that your authenticator shows (asked for when the policy needs it)
    #[arg(
        long,
        value_name = "DIGITS",
        env = "COUNTERSIGN_TOTP",
        hide_env_values = true
    )]
    totp: Option<String>,
    /// Approve only if the request still has this digest
    #[arg(long)]
    digest: Option<RequestDigest>,
    /// Do not wait for the page where the registry wants its own second factor
    #[arg(long)]
    no_wait: bool,
}

/// Deny a request, or all of a package. One denial ends a request.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign deny 0197… --reason 'wrong branch'
  countersign deny 0197… --freeze --reason 'nobody started this'
  countersign deny --all npm:@acme/left --but 0198…  # a flood: keep the one that is ours")]
pub(crate) struct DenyArgs {
    /// The request
    #[arg(required_unless_present = "all")]
    id: Option<RequestId>,
    /// Every pending request of this package instead of one
    #[arg(long, value_name = "PACKAGE", conflicts_with_all = ["id", "freeze"])]
    all: Option<String>,
    /// … but this one; may be given several times
    #[arg(long, value_name = "ID", requires = "all")]
    but: Vec<RequestId>,
    /// Freeze its packages too: nothing of them is released until two people thaw them
    #[arg(long)]
    freeze: bool,
    /// Why; shown in the job's log
    #[arg(long)]
    reason: Option<String>,
}

/// `countersign show`
pub(crate) async fn show(context: &Context, args: &ShowArgs) -> Result<(), Failure> {
    let device = context.device()?;
    if let Some(name) = &args.diff {
        return card::diff(context, &device, args.id, name).await;
    }
    let (question, _) = question(&device, args.id).await?;
    witness::warn(context, &device).await;
    if context.out.json {
        return context.out.json(&question);
    }
    context
        .out
        .line(&screen::draw(&context.out, &question, edge::now()))
}

/// `countersign approve`
pub(crate) async fn approve(context: &Context, args: &ApproveArgs) -> Result<(), Failure> {
    let device = context.device()?;
    // Nothing is approved at a broker whose log is not the one that this device saw (attacks 35, 45, 46).
    witness::follow(context, &device).await?;
    let (question, digest) = question(&device, args.id).await?;
    if args.digest.is_some_and(|d| d != digest) {
        return Err(Failure::refused(
            format!("The request's digest is {digest}, not the one that you named."),
            "Look at it with `countersign show`; do not approve what you did not mean.",
        ));
    }
    if question.state != StateName::Pending {
        return Err(Failure::new(
            Exit::Conflict,
            format!("The request is {} already.", question.state.text()),
            "Nothing is left to answer.",
        ));
    }
    if !question.factors.iter().any(|f| *f != Factor::Passkey) {
        let page = format!("{}/r/{}", device.broker.base(), args.id);
        return Err(Failure::refused(
            "The policy wants a passkey for this, which a terminal has not.",
            format!("Open {page} on your phone."),
        ));
    }
    // The screen is for the person; standard output stays for the result.
    context
        .out
        .note(&screen::draw(&context.out, &question, edge::now()));
    let match_code = match &args.match_code {
        Some(code) => code.clone(),
        None => ask_line("Match code from the CI job's output", "Give --match-code.")?,
    };
    let match_code: String = match_code.chars().filter(|c| !c.is_whitespace()).collect();
    if !is_match_code(&match_code) {
        // Three tries a request: a typing error must not cost one.
        return Err(Failure::usage(
            "The match code is not 6 digits.",
            "Type the 6 digits from the CI job's own output.",
        ));
    }
    let totp = match &args.totp {
        Some(code) => Some(code.trim().to_owned()),
        None if needs_totp(&question.factors) => Some(
            ask_secret(
                "Code of your authenticator",
                false,
                "Give --totp or set COUNTERSIGN_TOTP.",
            )?
            .trim()
            .to_owned(),
        ),
        None => None,
    };
    let mut answer = sign(&device, Decision::Approve, digest)?;
    answer.match_code = match_code;
    answer.factor.totp = totp;
    let done = answered(&device, args.id, &answer).await?;
    let text = said(&done);
    context.out.result(&done, &text)?;
    // With this, a log without this very answer is none that this device goes on with.
    witness::warn(context, &device).await;
    let enough = done.state != StateName::Pending;
    if question.will_confirm && enough && !args.no_wait && !context.out.json {
        return second_half(context, &device, args.id).await;
    }
    Ok(())
}

/// Waits for the page where the registry wants its own second factor, and shows it. What is not shown
/// here is in the inbox: nothing depends on this program's patience.
async fn second_half(context: &Context, device: &Device, id: RequestId) -> Result<(), Failure> {
    context.out.note(
        "  The registry will want its own second factor; its page is shown here (Ctrl-C is harmless: `countersign inbox` has it too).",
    );
    let started = edge::now();
    let mut told = BTreeSet::new();
    while edge::now().since(started) < SECOND_HALF {
        let (question, _) = question(device, id).await?;
        let with_page = question.confirm.iter().filter(|c| c.page.is_some());
        for confirm in with_page.filter(|c| told.insert(c.page.clone())) {
            for line in confirm_lines(std::slice::from_ref(confirm), edge::now()) {
                context.out.line(&context.out.warning(&line))?;
            }
        }
        if question.state.is_final() {
            return context.out.line(question.state.text());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    context
        .out
        .note("  It has not asked yet: look later with `countersign inbox`.");
    Ok(())
}

/// `countersign deny`
pub(crate) async fn deny(context: &Context, args: &DenyArgs) -> Result<(), Failure> {
    if let Some(reason) = &args.reason {
        proto::text::check(reason, 500)
            .map_err(|e| Failure::usage(format!("The reason {e}."), "Shorten or clean it."))?;
    }
    let device = context.device()?;
    let id = match (args.id, &args.all) {
        (Some(id), _) => id,
        (None, Some(package)) => return deny_all(context, &device, package, args).await,
        (None, None) => return Err(Failure::usage("Nothing to deny.", "Name a request.")),
    };
    let (_, digest) = question(&device, id).await?;
    let decision = if args.freeze {
        Decision::DenyAndFreeze
    } else {
        Decision::Deny
    };
    let mut answer = sign(&device, decision, digest)?;
    answer.reason.clone_from(&args.reason);
    send(context, &device, id, &answer).await?;
    witness::warn(context, &device).await;
    Ok(())
}

/// What `deny --all` did.
#[derive(serde::Serialize)]
struct DeniedAll<'a> {
    package: &'a str,
    denied: Vec<RequestId>,
    kept: &'a [RequestId],
}

/// Denies whatever waits for a package, each by a signed denial of its own.
async fn deny_all(
    context: &Context,
    device: &Device,
    package: &str,
    args: &DenyArgs,
) -> Result<(), Failure> {
    let mut denied = Vec::new();
    let mut passed = BTreeSet::new();
    // Whatever is opened meanwhile is found by the next look.
    loop {
        let inbox = waiting(device, true).await?;
        let wanted = |line: &&InboxLine| {
            line.packages.iter().any(|p| p == package)
                && !args.but.contains(&line.id)
                && !passed.contains(&line.id)
        };
        let lines: Vec<_> = inbox.requests.iter().filter(wanted).collect();
        if lines.is_empty() {
            break;
        }
        let mut now_passed = Vec::new();
        for line in lines {
            now_passed.push(line.id);
            let mut answer = sign(device, Decision::Deny, line.request_digest)?;
            answer.reason.clone_from(&args.reason);
            match answered(device, line.id, &answer).await {
                Ok(_) => denied.push(line.id),
                // Somebody else ended it first.
                Err(failure) if failure.exit == Exit::Conflict => {}
                Err(failure) => {
                    let so_far = format!("{} denied so far", denied.len());
                    context.out.note(&so_far);
                    return Err(failure);
                }
            }
        }
        passed.extend(now_passed);
    }
    let text = match denied.len() {
        0 => format!("nothing of {} waits", harmless(package)),
        1 => "denied 1 request".to_owned(),
        n => format!("denied {n} requests"),
    };
    let done = DeniedAll {
        package,
        denied,
        kept: &args.but,
    };
    context.out.result(&done, &text)
}

/// Asks for the question, and computes the digest here. What a person sees and what the device signs
/// are the same bytes, whatever the broker says (attack 35).
async fn question(device: &Device, id: RequestId) -> Result<(Question, RequestDigest), Failure> {
    let path = format!("/v1/requests/{id}/question");
    let question: Question = device.broker.get(&path, device.proof()).await?;
    let digest = own_digest(&question, id)?;
    Ok((question, digest))
}

fn own_digest(question: &Question, id: RequestId) -> Result<RequestDigest, Failure> {
    let digest = question.facts.digest();
    if digest == question.request_digest && question.facts.id == id {
        return Ok(digest);
    }
    Err(Failure::refused(
        "The broker shows other facts than its digest covers.",
        "Do not answer. Tell the broker's admin.",
    ))
}

fn needs_totp(factors: &[Factor]) -> bool {
    factors.contains(&Factor::Totp) && !factors.contains(&Factor::Device)
}

fn sign(
    device: &Device,
    decision: Decision,
    digest: RequestDigest,
) -> Result<AnswerRequest, Failure> {
    let statement = Statement {
        decision,
        request_digest: digest,
        device: device.profile.device.clone(),
        time: edge::now(),
        nonce: edge::random_id()?,
    };
    Ok(AnswerRequest {
        signature: hex(&device.key.sign(&statement.canonical())),
        statement,
        match_code: String::new(),
        factor: SecondFactor::default(),
        reason: None,
    })
}

async fn send(
    context: &Context,
    device: &Device,
    id: RequestId,
    answer: &AnswerRequest,
) -> Result<(), Failure> {
    let done = answered(device, id, answer).await?;
    context.out.result(&done, &said(&done))
}

fn said(done: &Answered) -> String {
    match done.decision {
        Decision::Approve => format!(
            "approved: {} of {}, now {}",
            done.approvals,
            done.quorum,
            done.state.text()
        ),
        Decision::Deny => "denied".to_owned(),
        Decision::DenyAndFreeze => "denied and frozen".to_owned(),
    }
}

/// Sends an answer; what the broker says came of it must be what was signed.
async fn answered(
    device: &Device,
    id: RequestId,
    answer: &AnswerRequest,
) -> Result<Answered, Failure> {
    let path = format!("/v1/requests/{id}/answer");
    let done: Answered = device.broker.post(&path, answer, device.proof()).await?;
    if done.decision != answer.statement.decision {
        return Err(Failure::refused(
            "The broker recorded another decision than the one that was signed.",
            "Tell the broker's admin at once.",
        ));
    }
    let denies = answer.statement.decision != Decision::Approve;
    if denies != (done.state == StateName::Denied) {
        return Err(Failure::new(
            Exit::Conflict,
            format!("After the answer the request is {}.", done.state.text()),
            "Look at it with `countersign show`.",
        ));
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
