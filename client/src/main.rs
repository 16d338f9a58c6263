//! `countersign`: the command line of CI jobs, maintainers, admins and verifiers.
//!
//! Reading order: [`cli`] is what can be typed, one file under `commands` per family runs it, `job`
//! is a publish from the job's side, `http` and `profile` are what all of them stand on.

mod cli;
mod commands;
mod context;
mod edge;
mod fail;
mod http;
mod job;
mod out;
mod profile;
mod witness;

use clap::Parser as _;
use context::Context;
use edge::Env;
use fail::Failure;
use out::Out;
use proto::problem::Exit;
use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    // A defect must read like an error and never exit 0; a backtrace may show what is in memory.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(
            std::io::stderr().lock(),
            "error: countersign has a defect (at {place}).\n next: Report it with the command that you ran."
        );
    }));
    let exit = std::panic::catch_unwind(start).unwrap_or(Exit::Failed);
    ExitCode::from(exit as u8)
}

fn start() -> Exit {
    let env = Env::process();
    // So cargo starts its credential providers; what its settings say behind our name comes on standard input.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|a| a == "--cargo-plugin")
    {
        let out = Out::new(false, &env);
        return finish(&out, run(commands::cargo_credential::plugin(&env)));
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return tell(&told),
    };
    let context = Context {
        out: Out::new(cli.json, &env),
        env,
        broker: cli.broker,
    };
    let done = run(commands::dispatch(&context, cli.command));
    finish(&context.out, done)
}

fn finish(out: &Out, done: Result<(), Failure>) -> Exit {
    match done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            out.failure(&failure);
            exit_of(&failure)
        }
    }
}

/// Help and usage errors. Help that could not be printed is a failure too; clap itself would exit 0.
fn tell(told: &clap::Error) -> Exit {
    let printed = told.print().and_then(|()| std::io::stdout().flush());
    match (told.use_stderr(), printed) {
        (true, _) => Exit::Usage,
        (false, Ok(())) => Exit::Done,
        (false, Err(_)) => Exit::Failed,
    }
}

/// A failure never exits 0, whatever its maker wrote into it.
fn exit_of(failure: &Failure) -> Exit {
    if failure.exit == Exit::Done {
        Exit::Failed
    } else {
        failure.exit
    }
}

fn run(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| {
            Failure::failed(format!("The event loop did not start: {e}."), "Try again.")
        })?;
    runtime.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_exits_0() {
        assert_eq!(exit_of(&Failure::new(Exit::Done, "", "")), Exit::Failed);
        assert_eq!(exit_of(&Failure::usage("", "")), Exit::Usage);
    }
}
