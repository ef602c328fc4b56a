//! Which faults are drawn for which calls.

use super::*;

const PATH: &str = "/api/v2/segment-targets/zeotap";

fn deck(json: &str) -> Deck {
    Deck::new(serde_json::from_str(json).unwrap())
}

fn statuses(deck: &mut Deck, calls: usize) -> Vec<Option<u16>> {
    let status = |plan: Plan| Some(plan.mishap?.how.status()?.as_u16());
    (0..calls)
        .map(|_| status(deck.plan(PATH, &Aim::default())))
        .collect()
}

#[test]
fn the_same_seed_brings_the_same_mishaps_at_their_rate() {
    let json = r#"{"seed":7,"mishaps":[{"how":{"status":503},"rate":0.2}]}"#;
    let drawn = statuses(&mut deck(json), 1_000);
    assert_eq!(drawn, statuses(&mut deck(json), 1_000));
    let hits = drawn.iter().flatten().count();
    // Five standard deviations (12.6) around 200; the seed is fixed, so it cannot flicker.
    assert!((137..=263).contains(&hits), "{hits} of 1000");
}

#[test]
fn a_counted_mishap_is_over_after_its_calls() {
    let mut deck =
        deck(r#"{"mishaps":[{"how":{"status":429},"calls":2},{"how":{"garbage":200},"calls":1}]}"#);
    assert_eq!(
        statuses(&mut deck, 4),
        [Some(429), Some(429), Some(200), None]
    );
    assert_eq!(deck.faults().mishaps[0].calls, Some(0));
}

#[test]
fn a_mishap_of_one_account_spares_the_others_and_is_not_used_up_by_them() {
    let mut deck = deck(r#"{"mishaps":[{"how":{"status":503},"calls":1,"account":"a"}]}"#);
    let of = |account: &str| Aim {
        account: Some(account.into()),
        ..Aim::default()
    };
    assert_eq!(deck.plan(PATH, &Aim::default()).mishap, None);
    assert_eq!(deck.plan(PATH, &of("b")).mishap, None);
    assert!(deck.plan(PATH, &of("a")).mishap.is_some());
    assert_eq!(deck.plan(PATH, &of("a")).mishap, None);
}

#[test]
fn a_mishap_hits_what_all_its_filters_name() {
    let status = |environment: Option<&str>, segment: Option<&str>| {
        let aim = Aim {
            account: Some("a".into()),
            environment: environment.map(Into::into),
            segment: segment.map(Into::into),
        };
        let mut deck = deck(
            r#"{"mishaps":[
                {"how":{"status":501},"account":"b","environment":"e"},
                {"how":{"status":502},"environment":"e","segment":"s"},
                {"how":{"status":503},"account":"a","environment":"e"},
                {"how":{"status":504},"segment":"s"}]}"#,
        );
        assert!(deck.looks_into_bodies());
        deck.plan(PATH, &aim)
            .mishap
            .and_then(|mishap| mishap.how.status())
            .map(|status| status.as_u16())
    };
    assert_eq!(status(Some("e"), Some("s")), Some(502));
    assert_eq!(status(Some("e"), Some("t")), Some(503));
    assert_eq!(status(Some("f"), Some("s")), Some(504));
    assert_eq!(status(Some("f"), Some("t")), None);
    assert_eq!(status(None, None), None);
}

#[test]
fn builders_say_what_json_says() {
    let json = r#"{"how":{"page":200},"environment":"e","segment":"s"}"#;
    let built = Mishap::new(How::Page(StatusCode::OK))
        .of_environment("e")
        .of_segment("s");
    assert_eq!(serde_json::from_str::<Mishap>(json).unwrap(), built);
}

#[test]
fn calls_outside_the_prefix_are_spared() {
    let mut deck =
        deck(r#"{"latency_ms":50,"max_members":1,"max_body_bytes":1,"mishaps":[{"how":"hang"}]}"#);
    assert_eq!(
        deck.plan("/api/v2/versions", &Aim::default()),
        Plan::default()
    );
    assert_eq!(deck.weigh_body("/api/v2/versions", 2), Ok(()));
    let plan = deck.plan(PATH, &Aim::default());
    assert_eq!(plan.delay, Duration::from_millis(50));
    assert_eq!(plan.mishap, Some(Mishap::new(How::Hang)));
    assert_eq!(deck.weigh_body(PATH, 2), Err(Objection::TooLarge));
    assert_eq!(
        deck.weigh_members(PATH, &["a".into(), "b".into()]),
        Err(Objection::TooLarge)
    );
}

#[test]
fn one_refused_key_refuses_its_neighbours_too() {
    let deck = deck(r#"{"refused_keys":["bad"]}"#);
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    assert_eq!(deck.weigh_members(PATH, &keys(&["good"])), Ok(()));
    assert_eq!(
        deck.weigh_members(PATH, &keys(&["good", "bad"])),
        Err(Objection::RefusedKey)
    );
}

#[test]
fn a_fault_that_cannot_be_is_refused() {
    for json in [
        r#"{"latency":5}"#,
        r#"{"mishaps":[{"how":{"status":100}}]}"#,
        r#"{"mishaps":[{"how":{"status":99}}]}"#,
        r#"{"mishaps":[{"how":"explode"}]}"#,
        r#"{"mishaps":[{"how":{"page":"200"}}]}"#,
        r#"{"mishaps":[{"how":"hang","cohort":"vip"}]}"#,
    ] {
        assert!(serde_json::from_str::<Faults>(json).is_err(), "{json}");
    }
}
