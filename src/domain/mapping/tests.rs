use std::collections::HashMap;

use proptest::prelude::*;

use unicode_normalization::UnicodeNormalization;

use super::*;

fn mapping(sources: &[&str], transforms: &[Transform]) -> FieldMapping {
    FieldMapping {
        field: CONTEXT_KEY_FIELD.into(),
        sources: sources.iter().map(ToString::to_string).collect(),
        transforms: transforms.to_vec(),
    }
}

fn key_of(mapping: FieldMapping, record: &[(&str, &str)]) -> Result<String, RecordError> {
    let identifiers: HashMap<String, String> = record
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
            sources: ["user_id".to_owned(), "email".to_owned()].into(),
            has_lookalike: false,
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
fn an_identifier_whose_name_only_looks_right_is_told() {
    let words = |name| {
        let refused = key_of(mapping(&["user_id", "email"], &[]), &[(name, "ada")]);
        refused.unwrap_err().to_string()
    };
    for name in ["\u{FEFF}user_id", "user_id ", "email\u{200B}"] {
        assert!(words(name).ends_with(LOOKALIKE), "{name:?}");
    }
    assert!(!words("phone ").ends_with(LOOKALIKE));
}

#[test]
fn a_broken_identifier_is_an_error_and_no_reason_to_fall_back() {
    let record = [("user_id", "u\u{0}1"), ("email", "a@x.org")];
    let refused = key_of(mapping(&["user_id", "email"], &[]), &record);
    assert!(matches!(
        refused,
        Err(RecordError::IdentifierInvalid {
            reason: KeyError::InvisibleCharacter(InvisibleCharacter::Control('\u{0}')),
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
        mapping(
            &["user_id", "", "\u{200B} ", "user_id\u{200B}", "a\tb"],
            &[],
        ),
    ]);
    let unseen = |source_index, unseen| MappingError::UnseenInSource {
        index: 2,
        source_index,
        unseen,
    };
    assert_eq!(
        errors,
        Err(vec![
            MappingError::UnknownField { index: 0 },
            MappingError::NoSources { index: 1 },
            MappingError::BlankSource {
                index: 2,
                source_index: 1
            },
            MappingError::BlankSource {
                index: 2,
                source_index: 2
            },
            unseen(3, InvisibleCharacter::Invisible('\u{200B}')),
            unseen(4, InvisibleCharacter::Control('\t')),
            MappingError::DuplicateField { index: 2 },
        ])
    );
    assert_eq!(
        Mapping::check(vec![]),
        Err(vec![MappingError::MissingField])
    );
}

#[test]
fn a_mapping_stored_before_its_source_was_refused_still_maps() {
    let odd = mapping(&["user_id\u{200B}"], &[Transform::Nfc]);
    assert!(Mapping::check(vec![odd.clone()]).is_err());
    let stored = Mapping::stored(vec![odd.clone()]).unwrap();
    assert_eq!(stored.fields(), [odd]);
    let record: HashMap<String, String> = [("user_id\u{200B}".to_owned(), "ada".to_owned())].into();
    assert_eq!(stored.context_key(&record).unwrap().as_str(), "ada");
    assert_eq!(Mapping::stored(vec![]), None);
}

#[test]
fn trimming_strips_what_nobody_can_see_at_both_ends() {
    for value in [
        "\u{200B} ada",
        "\u{FEFF}ada\u{AD} \u{200B}",
        " \u{202A}ada\u{202C}\u{2060}",
    ] {
        let key = key_of(mapping(&["id"], &[Transform::Trim]), &[("id", value)]);
        assert_eq!(key.as_deref(), Ok("ada"));
    }
}

#[test]
fn what_shows_nothing_is_blank_with_every_mapping() {
    use Transform::{Lowercase, Nfc, Sha256Hex, Trim};
    for transforms in [&[][..], &[Trim], &[Sha256Hex], &[Nfc, Lowercase, Sha256Hex]] {
        let blank = [("user_id", "\u{200B}\u{FEFF} "), ("email", "a@x.org")];
        let sources = mapping(&["user_id", "email"], transforms);
        let fall_back = mapping(&["email"], transforms);
        assert_eq!(key_of(sources, &blank), key_of(fall_back, &blank));
        let alone = key_of(mapping(&["user_id"], transforms), &blank);
        let expected = RecordError::IdentifierInvalid {
            source_name: "user_id".into(),
            reason: KeyError::Blank,
        };
        assert_eq!(alone, Err(expected));
    }
}

#[test]
fn what_nobody_can_see_inside_is_named_even_if_a_hash_would_hide_it() {
    use Transform::{Lowercase, Nfc, Sha256Hex, Trim};
    for (value, message) in [
        (
            "a\u{200B}da",
            "the identifier id holds the invisible character U+200B",
        ),
        (
            "a\u{2060}da",
            "the identifier id holds the invisible character U+2060",
        ),
        (
            "a\u{FEFF}da",
            "the identifier id holds the invisible character U+FEFF",
        ),
        (
            "a\u{AD}da",
            "the identifier id holds the invisible character U+00AD",
        ),
        (
            "a\u{202E}da",
            "the identifier id holds the invisible character U+202E",
        ),
        (
            "a\u{7}da",
            "the identifier id holds the control character U+0007",
        ),
    ] {
        for transforms in [
            &[][..],
            &[Trim],
            &[Sha256Hex],
            &[Sha256Hex, Trim],
            &[Trim, Lowercase, Nfc, Sha256Hex, Sha256Hex],
        ] {
            let refused = key_of(mapping(&["id"], transforms), &[("id", value)]);
            assert_eq!(refused.unwrap_err().to_string(), message, "{transforms:?}");
        }
    }
    // Stripped before it is hashed, or not.
    let at_end = [("id", "ada\u{200B}")];
    let hashed = key_of(mapping(&["id"], &[Trim, Sha256Hex]), &at_end);
    assert_eq!(
        hashed,
        key_of(mapping(&["id"], &[Sha256Hex]), &[("id", "ada")])
    );
    assert!(key_of(mapping(&["id"], &[Sha256Hex, Trim]), &at_end).is_err());
    // Joiners that a script or an emoji needs stay.
    for value in ["می\u{200C}خواهم", "👩\u{200D}👧", "❤\u{FE0F}"] {
        let key = key_of(mapping(&["id"], &[Trim, Nfc]), &[("id", value)]);
        assert_eq!(key.as_deref(), Ok(value));
    }
}

#[test]
fn both_forms_of_a_letter_become_one() {
    let composed = |value| key_of(mapping(&["id"], &[Transform::Nfc]), &[("id", value)]);
    assert_eq!(composed("caf\u{65}\u{301}").as_deref(), Ok("caf\u{e9}"));
    assert_eq!(composed("caf\u{e9}").as_deref(), Ok("caf\u{e9}"));
    assert_eq!(composed("\u{1112}\u{1161}\u{11ab}").as_deref(), Ok("한"));
    // Compatibility is no matter of composition.
    assert_eq!(composed("ﬁ").as_deref(), Ok("ﬁ"));
}

#[test]
fn a_key_is_measured_in_characters() {
    for unit in ["a", "é", "😀"] {
        let key = |chars| key_of(mapping(&["id"], &[]), &[("id", &unit.repeat(chars))]);
        assert!(key(1024).is_ok() && key(1025).is_err(), "{unit}");
    }
}

fn applied(transform: Transform, value: &str) -> Option<String> {
    transform.apply(value.into()).ok().map(Cow::into_owned)
}

proptest! {
    #[test]
    fn a_transform_done_twice_is_done_once(value in text()) {
        for transform in [Transform::Trim, Transform::Nfc] {
            let once = applied(transform, &value).unwrap();
            prop_assert_eq!(applied(transform, &once), Some(once));
        }
    }

    #[test]
    fn composing_is_what_unicode_says(value in text()) {
        let expected: String = value.nfc().collect();
        prop_assert_eq!(applied(Transform::Nfc, &value), Some(expected));
    }

    #[test]
    fn how_a_letter_is_written_is_no_matter_once_composed(value in text()) {
        let apart: String = value.nfd().collect();
        let key = |value: &str| key_of(mapping(&["id"], &[Transform::Trim, Transform::Nfc]), &[("id", value)]);
        if let (Ok(one), Ok(other)) = (key(&value), key(&apart)) {
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn a_mapped_key_is_seen_whole_and_not_over_long(
        value in text(),
        transforms in prop::collection::vec(any_transform(), 0..4),
    ) {
        if let Ok(key) = key_of(mapping(&["id"], &transforms), &[("id", &value)]) {
            prop_assert!(!key.trim().is_empty());
            prop_assert!(key.chars().count() <= crate::domain::MAX_CONTEXT_KEY_CHARS.into());
            prop_assert_eq!(visibility::first_unseen(&key), None);
        }
    }

    #[test]
    fn a_hash_hides_no_fault(value in text()) {
        let hashed = key_of(mapping(&["id"], &[Transform::Sha256Hex]), &[("id", &value)]);
        let plain = key_of(mapping(&["id"], &[]), &[("id", &value)]);
        let is_long = value.chars().count() > crate::domain::MAX_CONTEXT_KEY_CHARS.into();
        prop_assert!(is_long || hashed.is_ok() == plain.is_ok());
    }
}

fn text() -> impl Strategy<Value = String> {
    "[abAe\u{301}é한ÅåΩ \t\u{200B}\u{200D}\u{FEFF}\u{AD}]{0,8}|\\PC{0,20}|[ \t\n\u{0}]{0,5}|(a|é){1000,1100}"
}

fn any_transform() -> impl Strategy<Value = Transform> {
    use Transform::{Lowercase, Nfc, Sha256Hex, Trim};
    prop::sample::select(&[Trim, Lowercase, Sha256Hex, Nfc][..])
}
