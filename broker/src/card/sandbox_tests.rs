use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus},
};

/// The act that a test's own child tries after it entered.
const ACT: &str = "COUNTERSIGN_TEST_ACT";

/// Runs `the_act` of this very test program in a process of its own.
fn tried(act: &str) -> ExitStatus {
    let own = std::env::current_exe().unwrap();
    let name = "card::sandbox::tests::the_act";
    let args = ["--exact", name, "--ignored", "--test-threads", "1"];
    let mut command = Command::new(own);
    command.args(args).env(ACT, act);
    command.output().unwrap().status
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
