use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus},
};

/// The act that a test's own child tries after it entered.
const ACT: &str = "COUNTERSIGN_TEST_ACT";

/// Runs `the_act` of this very test program in a process of its own.
fn tried(act: &str) -> ExitStatus {
    child(act).output().unwrap().status
}

fn child(act: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let name = "card::sandbox::tests::the_act";
    let args = ["--exact", name, "--ignored", "--test-threads", "1"];
    let mut command = Command::new(own);
    command.args(args).env(ACT, act);
    command
}

#[test]
#[ignore = "a process of its own does it"]
fn the_act() {
    let Ok(act) = std::env::var(ACT) else { return };
    super::enter().unwrap();
    match act.as_str() {
        "nothing" => {}
        "socket" => drop(std::net::TcpListener::bind("127.0.0.1:0")),
        "open" => drop(std::fs::File::open("/etc/hostname")),
        "write" => drop(std::fs::write("/tmp/x", "x")),
        "exec" => drop(Command::new("/bin/true").status()),
        "thread" => drop(std::thread::Builder::new().spawn(|| ())),
        "kill" => drop(rustix::process::kill_process(
            rustix::process::getpid(),
            rustix::process::Signal::TERM,
        )),
        "stay" => {
            use std::io::{Read as _, Write as _};
            let mut out = std::io::stdout();
            out.write_all(b"entered").unwrap();
            out.flush().unwrap();
            let _ = std::io::stdin().read(&mut [0]);
        }
        "memory" => drop(vec![1u8; usize::try_from(super::ADDRESSES).unwrap()]),
        other => panic!("{other}"),
    }
    // The test's own report would be a call that is not allowed on every machine.
    std::process::exit(0);
}

#[test]
fn attack_53_the_reader_of_archives_can_do_nothing_else() {
    assert_eq!(tried("nothing").code(), Some(0));
    for act in ["socket", "open", "write", "exec", "thread", "kill"] {
        let status = tried(act);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{act}: {status}");
    }
    let status = tried("memory");
    assert!(!status.success(), "{status}");
}

#[test]
fn attack_53_where_memory_runs_out_the_reader_ends_first() {
    use std::{io::Read as _, process::Stdio};
    let mut child = child("stay");
    let mut child = child
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    let mut out = child.stdout.take().unwrap();
    while !said.ends_with(b"entered") {
        let mut byte = [0];
        assert_eq!(
            out.read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&said)
        );
        said.extend_from_slice(&byte);
    }
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", child.id())).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(score.trim(), "1000");
}
