use super::*;
use crate::registry::pypi::samples::{
    CONTENT_TYPE, Fields, SDIST, WHEEL, fields, form, sdist, wheel,
};

fn read(body: &[u8]) -> Result<Publish, UploadError> {
    read_as(body, Attestations::Refuse)
}

fn read_as(body: &[u8], attestations: Attestations) -> Result<Publish, UploadError> {
    super::read(body, CONTENT_TYPE, &std::env::temp_dir(), attestations)
}

/// The usual upload of a wheel with other fields.
fn with(change: impl Fn(&mut Fields)) -> Result<Publish, UploadError> {
    let wheel = wheel();
    let mut all = fields(&wheel, "bdist_wheel");
    change(&mut all);
    read(&form(&all, WHEEL, &wheel))
}

fn fields_of(publish: &Publish) -> &Fields {
    match &publish.envelope {
        registry::Envelope::PyPi(envelope) => &envelope.fields,
        _ => panic!("not Python's"),
    }
}

fn set(all: &mut Fields, field: &str, value: &str) {
    for (name, old) in all.iter_mut() {
        if *name == field {
            value.clone_into(old);
        }
    }
}

#[test]
fn a_usual_upload_is_read_and_written_from_the_archive() {
    let read = with(|_| {}).unwrap();
    assert_eq!(read.package.as_str(), "acme-demo");
    assert_eq!(read.version.as_str(), "1.0.0");
    assert_eq!(
        (read.name.as_deref().unwrap(), read.size),
        (WHEEL, wheel().len() as u64)
    );
    assert_eq!(read.digest, Digest::of(Algorithm::Sha256, &wheel()));
    let sent = |name: &str| -> Vec<_> {
        fields_of(&read)
            .iter()
            .filter(|f| f.0 == name)
            .map(|f| f.1.as_str())
            .collect()
    };
    assert_eq!(sent("requires_dist"), ["idna", "six; extra == 'x'"]);
    assert_eq!(sent("pyversion"), ["py3"]);
    assert_eq!(sent("sha256_digest").len(), 1);
    assert!(sent("blake2_256_digest").is_empty());
    let sdist = sdist();
    let source = self::read(&form(&fields(&sdist, "sdist"), SDIST, &sdist)).unwrap();
    assert!(fields_of(&source).contains(&("pyversion", "source".to_owned())));
}

#[test]
fn what_a_client_leaves_out_is_taken_from_the_archive() {
    let read = with(|f| f.retain(|(n, _)| !["requires_dist", "summary"].contains(n))).unwrap();
    assert!(fields_of(&read).contains(&("requires_dist", "idna".to_owned())));
}

#[test]
fn attack_13_the_form_says_something_else_than_the_archive() {
    for (field, value) in [
        ("name", "acme-evil"),
        ("version", "2.0.0"),
        ("requires_dist", "evil"),
        ("summary", "Another"),
    ] {
        assert!(with(|f| set(f, field, value)).is_err(), "{field}");
    }
}

#[test]
fn attack_14_fields_twice_and_digests_of_other_bytes_are_refused() {
    for field in [
        "name",
        "version",
        ":action",
        "protocol_version",
        "filetype",
        "sha256_digest",
        "blake2_256_digest",
        "description",
        "pyversion",
    ] {
        let twice = with(|f| {
            let same = f.iter().find(|(n, _)| *n == field).unwrap().clone();
            f.insert(0, same);
        });
        assert!(
            matches!(twice, Err(UploadError::Twice(f)) if f == field),
            "{field}"
        );
    }
    assert!(matches!(
        with(|f| set(f, "sha256_digest", &"0".repeat(64))),
        Err(UploadError::Digest("sha256_digest"))
    ));
    assert!(with(|f| set(f, "blake2_256_digest", "xyz")).is_err());
    assert!(with(|f| f.retain(|(n, _)| *n != "sha256_digest")).is_err());
    let wheel = wheel();
    let two = [
        &form(&fields(&wheel, "bdist_wheel"), WHEEL, &wheel)[..],
        &form(&Fields::new(), WHEEL, &wheel)[..],
    ];
    let joined = [&two[0][..two[0].len() - 4], &two[1][4..]].concat();
    assert!(read(&joined).is_err(), "two files");
}

#[test]
fn attack_20_other_calls_of_the_same_route_are_refused() {
    for (field, value) in [
        (":action", "submit"),
        (":action", "doc_upload"),
        (":action", "remove_pkg"),
        ("protocol_version", "2"),
        ("filetype", "sdist"),
        ("filetype", "bdist_egg"),
    ] {
        assert!(
            matches!(
                with(|f| set(f, field, value)),
                Err(UploadError::NotAPublish(_))
            ),
            "{field} {value}"
        );
        assert!(
            with(|f| f.retain(|(n, _)| *n != field)).is_err(),
            "no {field}"
        );
    }
    let extra = with(|f| f.push(("yanked", "true".into())));
    assert!(matches!(extra, Err(UploadError::Extra(f)) if f == "yanked"));
    let mut no_file = form(&fields(&wheel(), "bdist_wheel"), WHEEL, b"");
    let end = no_file
        .windows(15)
        .position(|w| w == b"name=\"content\";")
        .unwrap();
    no_file.splice(end..end + 15, *b"name=\"gpg_sig\";");
    assert!(read(&no_file).is_err(), "no file");
}

#[test]
fn attack_19_attestations_are_refused_unless_the_configuration_drops_them() {
    let wheel = wheel();
    let mut all = fields(&wheel, "bdist_wheel");
    all.push(("attestations", "[{}]".to_owned()));
    let body = form(&all, WHEEL, &wheel);
    assert!(matches!(read(&body), Err(UploadError::Attestations)));
    let read = read_as(&body, Attestations::Drop).unwrap();
    assert!(!fields_of(&read).iter().any(|(n, _)| *n == "attestations"));
}

#[test]
fn attack_53_fields_have_limits() {
    assert!(matches!(
        with(|f| set(f, "description", &"x".repeat(5 << 20))),
        Err(UploadError::TooLarge("fields"))
    ));
    assert!(matches!(
        with(|f| f.extend((0..5000).map(|_| ("classifiers", "x".to_owned())))),
        Err(UploadError::TooLarge("fields"))
    ));
}

#[test]
fn half_an_upload_is_refused() {
    let wheel = wheel();
    let body = form(&fields(&wheel, "bdist_wheel"), WHEEL, &wheel);
    for cut in [0, 1, 100, body.len() / 2, body.len() - 20, body.len() - 5] {
        assert!(read(&body[..cut]).is_err(), "{cut}");
    }
    assert!(matches!(
        super::read(
            &body[..],
            "application/json",
            &std::env::temp_dir(),
            Attestations::Refuse
        ),
        Err(UploadError::Form(FormError::ContentType))
    ));
}
