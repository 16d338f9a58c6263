//! The main job with real parts: a real registry, the real npm, pnpm and Yarn, an issuer.

use stand::team::Team;

#[tokio::test]
async fn a_package_is_published_only_after_two_people_approved() {
    let team = Team::start().await.unwrap();
    let dir = team.package("@acme/left", "1.4.2").unwrap();
    let mut job = team.publish(&[&dir.display().to_string()]).await.unwrap();
    assert!(team.registry.package("@acme/left").await.unwrap().is_none());

    team.approve(&team.maintainers[0], &job)
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert!(
        team.registry.package("@acme/left").await.unwrap().is_none(),
        "one of two is not enough"
    );
    team.approve(&team.maintainers[1], &job)
        .await
        .unwrap()
        .ok()
        .unwrap();

    assert_eq!(job.end().await.unwrap(), Some(0), "{}", job.text());
    let shown = team
        .registry
        .integrity("@acme/left", "1.4.2")
        .await
        .unwrap();
    assert!(
        shown.is_some_and(|i| i.starts_with("sha512-")),
        "{}",
        job.text()
    );
}
