//! Which faults are drawn for which calls.

use super::*;

const PATH: &str = "/api/v2/segment-targets/zeotap";

fn injector(json: &str) -> FaultInjector {
    FaultInjector::new(serde_json::from_str(json).unwrap())
}

fn statuses(injector: &mut FaultInjector, calls: usize) -> Vec<Option<u16>> {
    let status = |plan: CallFaults| Some(plan.fault?.how.status()?.as_u16());
    (0..calls)
        .map(|_| status(injector.faults_of(PATH, &CallTraits::default())))
        .collect()
}

#[test]
fn the_same_seed_brings_the_same_faults_at_their_rate() {
    let json = r#"{"seed":7,"mishaps":[{"how":{"status":503},"rate":0.2}]}"#;
    let drawn = statuses(&mut injector(json), 1_000);
    assert_eq!(drawn, statuses(&mut injector(json), 1_000));
    let hits = drawn.iter().flatten().count();
    // Five standard deviations (12.6) around 200; the seed is fixed, so it cannot flicker.
    assert!((137..=263).contains(&hits), "{hits} of 1000");
}

#[test]
fn a_counted_fault_is_over_after_its_calls() {
    let mut injector = injector(
        r#"{"mishaps":[{"how":{"status":429},"calls":2},{"how":{"garbage":200},"calls":1}]}"#,
    );
    assert_eq!(
        statuses(&mut injector, 4),
        [Some(429), Some(429), Some(200), None]
    );
    assert_eq!(injector.plan().faults[0].calls, Some(0));
}

#[test]
fn a_fault_of_one_account_spares_the_others_and_is_not_used_up_by_them() {
    let mut injector = injector(r#"{"mishaps":[{"how":{"status":503},"calls":1,"account":"a"}]}"#);
    let of = |account: &str| CallTraits {
        account: Some(account.into()),
        ..CallTraits::default()
    };
    assert_eq!(injector.faults_of(PATH, &CallTraits::default()).fault, None);
    assert_eq!(injector.faults_of(PATH, &of("b")).fault, None);
    assert!(injector.faults_of(PATH, &of("a")).fault.is_some());
    assert_eq!(injector.faults_of(PATH, &of("a")).fault, None);
}

#[test]
fn a_fault_hits_what_all_its_filters_name() {
    let status = |environment: Option<&str>, segment: Option<&str>| {
        let aim = CallTraits {
            account: Some("a".into()),
            environment: environment.map(Into::into),
            segments: segment.map(Into::into).into_iter().collect(),
        };
        let mut injector = injector(
            r#"{"mishaps":[
                {"how":{"status":501},"account":"b","environment":"e"},
                {"how":{"status":502},"environment":"e","segment":"s"},
                {"how":{"status":503},"account":"a","environment":"e"},
                {"how":{"status":504},"segment":"s"}]}"#,
        );
        assert!(injector.looks_into_bodies());
        injector
            .faults_of(PATH, &aim)
            .fault
            .and_then(|fault| fault.how.status())
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
    let built = Fault::new(FaultKind::Page(StatusCode::OK))
        .of_environment("e")
        .of_segment("s");
    assert_eq!(serde_json::from_str::<Fault>(json).unwrap(), built);
}

#[test]
fn calls_outside_the_prefix_are_spared() {
    let mut injector = injector(
        r#"{"latency_ms":50,"max_members":1,"max_body_bytes":1,"mishaps":[{"how":"hang"}]}"#,
    );
    assert_eq!(
        injector.faults_of("/api/v2/versions", &CallTraits::default()),
        CallFaults::default()
    );
    assert_eq!(injector.weigh_body("/api/v2/versions", 2), Ok(()));
    let plan = injector.faults_of(PATH, &CallTraits::default());
    assert_eq!(plan.delay, Duration::from_millis(50));
    assert_eq!(plan.fault, Some(Fault::new(FaultKind::Hang)));
    assert_eq!(injector.weigh_body(PATH, 2), Err(ContentFault::TooLarge));
    assert_eq!(
        injector.weigh_members(PATH, &["a", "b"]),
        Err(ContentFault::TooLarge)
    );
}

#[test]
fn one_refused_key_refuses_its_neighbours_too() {
    let injector = injector(r#"{"refused_keys":["bad"]}"#);
    assert_eq!(injector.weigh_members(PATH, &["good"]), Ok(()));
    assert_eq!(
        injector.weigh_members(PATH, &["good", "bad"]),
        Err(ContentFault::RefusedKey)
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
        assert!(serde_json::from_str::<FaultPlan>(json).is_err(), "{json}");
    }
}
