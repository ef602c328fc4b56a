use proptest::prelude::*;

use super::*;

fn mapping(sources: &[&str], transforms: &[Transform]) -> FieldMapping {
    FieldMapping {
        field: CONTEXT_KEY_FIELD.into(),
        sources: sources.iter().map(ToString::to_string).collect(),
        transforms: transforms.to_vec(),
    }
}

fn key_of(mapping: FieldMapping, record: &[(&str, &str)]) -> Result<String, RecordError> {
    let identifiers = record
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let mapping = Mapping::check(vec![mapping]).unwrap();
    mapping
        .context_key(&identifiers)
        .map(|key| key.as_str().to_owned())
}

#[test]
fn the_first_filled_source_wins() {
    let sources = ["user_id", "email"];
    let both = [("email", "a@x.org"), ("user_id", "u-1")];
    assert_eq!(key_of(mapping(&sources, &[]), &both), Ok("u-1".into()));
    let blank_first = [("email", "a@x.org"), ("user_id", " \t")];
    assert_eq!(
        key_of(mapping(&sources, &[]), &blank_first),
        Ok("a@x.org".into())
    );
}

#[test]
fn transforms_apply_in_order() {
    use Transform::{Lowercase, Sha256Hex, Trim};
    let record = [("email", " ABC ")];
    assert_eq!(
        key_of(mapping(&["email"], &[Trim, Lowercase]), &record),
        Ok("abc".into())
    );
    // SHA-256 of "abc": the first test vector of FIPS 180-2.
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let hashed = key_of(mapping(&["email"], &[Trim, Lowercase, Sha256Hex]), &record);
    assert_eq!(hashed.as_deref(), Ok(digest));
    let hashed_first = key_of(mapping(&["email"], &[Sha256Hex, Trim, Lowercase]), &record);
    assert_ne!(hashed_first.as_deref(), Ok(digest));
}

#[test]
fn absent_and_blank_identifiers_are_told_apart() {
    let sources = ["user_id", "email"];
    assert_eq!(
        key_of(mapping(&sources, &[]), &[("phone", "1")]),
        Err(RecordError::IdentifierMissing {
            sources: ["user_id".to_owned(), "email".to_owned()].into()
        })
    );
    assert_eq!(
        key_of(mapping(&sources, &[]), &[("email", "  ")]),
        Err(RecordError::IdentifierInvalid {
            source_name: "email".into(),
            reason: KeyError::Blank
        })
    );
}

#[test]
fn a_broken_identifier_is_an_error_and_no_reason_to_fall_back() {
    let record = [("user_id", "u\u{0}1"), ("email", "a@x.org")];
    let refused = key_of(mapping(&["user_id", "email"], &[]), &record);
    assert!(matches!(
        refused,
        Err(RecordError::IdentifierInvalid {
            reason: KeyError::Control,
            ..
        })
    ));
}

#[test]
fn every_problem_of_a_mapping_is_named() {
    let unknown = FieldMapping {
        field: "kind".into(),
        ..mapping(&["x"], &[])
    };
    let errors = Mapping::check(vec![
        unknown,
        mapping(&[], &[]),
        mapping(&["user_id", ""], &[]),
    ]);
    assert_eq!(
        errors,
        Err(vec![
            MappingError::UnknownField { index: 0 },
            MappingError::NoSources { index: 1 },
            MappingError::BlankSource {
                index: 2,
                source_index: 1
            },
            MappingError::DuplicateField { index: 2 },
        ])
    );
    assert_eq!(
        Mapping::check(vec![]),
        Err(vec![MappingError::MissingField])
    );
}

proptest! {
    #[test]
    fn a_mapped_key_is_never_blank_over_long_or_unprintable(
        value in "\\PC{0,20}|[ \t\n\u{0}]{0,5}|a{1000,1100}",
        trim in any::<bool>(),
    ) {
        let transforms: &[Transform] = if trim { &[Transform::Trim] } else { &[] };
        if let Ok(key) = key_of(mapping(&["id"], transforms), &[("id", &value)]) {
            prop_assert!(!key.trim().is_empty());
            prop_assert!(key.len() <= crate::domain::MAX_CONTEXT_KEY_BYTES);
            prop_assert!(!key.chars().any(char::is_control));
        }
    }
}
