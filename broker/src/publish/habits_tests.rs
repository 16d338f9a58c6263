use super::*;

const LEFT: &str = "npm:@acme/left";

fn caller(claims: &[(&str, &str)]) -> CallerFacts {
    let claims = claims
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    CallerFacts {
        issuer: "github".to_owned(),
        subject: "1".to_owned(),
        claims: claims.collect(),
        run_url: None,
    }
}

/// A release from this file of the own repository, which its source shows with this digest.
fn release(habits: &mut Habits, file: &str, digest: Option<&str>) {
    let caller = caller(&[("workflow", file)]);
    let workflow = Workflow::of(&caller, digest.map(str::to_owned));
    habits.learn(&caller, workflow.as_ref());
}

fn told(habits: &Habits, file: &str, digest: Option<&str>) -> Vec<String> {
    let caller = caller(&[("workflow", file)]);
    let workflow = Workflow::of(&caller, digest.map(str::to_owned));
    unusual(&[(LEFT, habits.clone())], &caller, workflow.as_ref())
}

const A: &str = ".github/workflows/a.yml";
const B: &str = ".github/workflows/b.yml";

#[test]
fn a_known_workflow_that_changed_is_told_after_a_release_by_another_and_after_one_without_a_source()
{
    let none: [String; 0] = [];
    let mut habits = Habits::default();
    release(&mut habits, A, Some("1"));
    release(&mut habits, B, Some("7"));
    assert_eq!(told(&habits, A, Some("1")), none);
    let changed = told(&habits, A, Some("2"));
    assert!(changed[0].contains("changed since its last"), "{changed:?}");
    // The same release again, its source gone: what was known is not forgotten.
    release(&mut habits, A, None);
    assert_eq!(told(&habits, A, Some("2")), changed);
    let unknown = told(&habits, A, None);
    assert!(unknown[0].contains("is not known"), "{unknown:?}");
    release(&mut habits, A, Some("2"));
    assert_eq!(told(&habits, A, Some("2")), none);
}

#[test]
fn a_reusable_workflow_is_known_by_the_commit_of_each_name() {
    let at = |name: &str, commit: Option<&str>| {
        let mut claims = vec![("workflow", name)];
        claims.extend(commit.map(|c| ("job_workflow_sha", c)));
        let caller = caller(&claims);
        let workflow = Workflow::of(&caller, None);
        (caller, workflow)
    };
    let mut habits = Habits::default();
    for (name, commit) in [("acme/ci/a.yml", "c1"), ("acme/ci/b.yml", "c2")] {
        let (caller, workflow) = at(name, Some(commit));
        habits.learn(&caller, workflow.as_ref());
    }
    let told = |name: &str, commit: Option<&str>| {
        let (caller, workflow) = at(name, commit);
        unusual(&[(LEFT, habits.clone())], &caller, workflow.as_ref())
    };
    assert!(told("acme/ci/a.yml", Some("c1")).is_empty());
    assert!(told("acme/ci/a.yml", Some("c2"))[0].contains("another commit"));
    assert!(told("acme/ci/a.yml", None)[0].contains("is not known"));
}

#[test]
fn what_was_always_there_and_is_absent_is_told_and_who_called_a_workflow_too() {
    let mut habits = Habits::default();
    let usual = [
        ("workflow", "acme/ci/a.yml"),
        ("entry_workflow", A),
        ("environment", "release"),
    ];
    habits.learn(&caller(&usual), None);
    let told = |claims: &[(&str, &str)]| unusual(&[(LEFT, habits.clone())], &caller(claims), None);
    assert!(told(&usual).is_empty());
    let mut other = usual;
    other[1].1 = B;
    assert_eq!(
        told(&other),
        [format!(
            "the first release of {LEFT} by a job that was called from the workflow {B}"
        )]
    );
    assert_eq!(
        told(&usual[..2]),
        [format!(
            "the first release of {LEFT} without an environment"
        )]
    );
    // A file that is new and started itself is one line.
    let own = [("workflow", B), ("entry_workflow", B), usual[2]];
    let own = told(&own);
    assert_eq!(own.len(), 2, "{own:?}");
    assert!(own[0].ends_with(&format!("from the workflow {B}")));
    assert!(own[1].ends_with("by a workflow that no other one called"));
}

#[test]
fn a_batch_has_one_line_for_each_thing_and_the_gravest_first() {
    let mut habits = Habits::default();
    release(&mut habits, A, Some("1"));
    let names: Vec<String> = (10..50).map(|n| format!("npm:p{n}")).collect();
    let all: Vec<_> = names.iter().map(|n| (n.as_str(), habits.clone())).collect();
    let caller = caller(&[("workflow", A), ("actor", "eve"), ("event", "push")]);
    let workflow = Workflow::of(&caller, Some("2".to_owned()));
    let lines = unusual(&all, &caller, workflow.as_ref());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with(&format!("the workflow {A} changed")));
    assert_eq!(
        lines[2],
        "the first release of npm:p10 and of 39 more by a job that was started by eve"
    );
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut habits = Habits::default();
    for n in 0..2 * WAYS_MAX {
        release(
            &mut habits,
            &format!(".github/workflows/{n}.yml"),
            Some("1"),
        );
    }
    assert_eq!(habits.workflows.len(), WAYS_MAX);
    assert_eq!(habits.ways["workflow"].len(), WAYS_MAX);
    assert_eq!(
        told(&habits, ".github/workflows/99.yml", Some("1")).len(),
        1
    );
}
