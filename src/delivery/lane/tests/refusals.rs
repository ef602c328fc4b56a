//! Refusals: whether each concerns the segment or the destination, and what must confirm it.

use super::*;
use crate::delivery::health::CONFLICT_NOTICE_DELAY;

const UNAUTHORIZED: CallOutcome = CallOutcome::Refused(Refusal::Unauthorized);
const FORBIDDEN: CallOutcome = CallOutcome::Refused(Refusal::Forbidden);
const NO_SEGMENT: CallOutcome = CallOutcome::Refused(Refusal::Segment);
const UNKNOWN: CredentialStanding = CredentialStanding::Unknown { retry_after: None };

impl Bench {
    /// With a vendor that answers queries about refusals so, one after another.
    fn told(
        script: impl IntoIterator<Item = CallOutcome>,
        standings: impl IntoIterator<Item = CredentialStanding>,
    ) -> Self {
        let bench = Self::new(script, &[]);
        bench.vendor.standings.lock().unwrap().extend(standings);
        bench
    }

    fn queries(&self) -> usize {
        self.vendor.queries.lock().unwrap().len()
    }

    fn are_credentials_refused(&self) -> bool {
        self.live.watch(self.uid).current().1 == LiveState::Rejected
    }
}

impl Stream {
    /// Submits one more, and returns what becomes of it.
    async fn send(&mut self, key: &str) -> Verdict {
        self.submit(key, Operation::Add);
        self.verdict().await.1
    }
}

/// The next health that is reported, within a bounded time.
async fn told(health: &mut watch::Receiver<DeliveryHealth>) -> DeliveryHealth {
    let changed = tokio::time::timeout(LONG, health.changed()).await;
    changed.expect("nothing is told").unwrap();
    *health.borrow_and_update()
}

fn unconfirmed(refusal: Refusal) -> TransientError {
    TransientError::Unconfirmed(refusal)
}

#[tokio::test(start_paused = true)]
async fn a_transient_401_is_retried_and_reported() {
    let bench = Bench::told([UNAUTHORIZED], [CredentialStanding::Good]);
    let mut stream = bench.open(LONG);
    let mut health = stream.lane.health();
    stream.submit("a", Operation::Add);
    let told = told(&mut health).await;
    assert!(
        matches!(told, DeliveryHealth::Unreachable { error, .. } if error == unconfirmed(Refusal::Unauthorized)),
        "{told:?}"
    );
    assert_eq!(stream.verdict().await, (1, Verdict::Delivered));
    let attempts = bench.vendor.attempts.lock().unwrap().clone();
    assert_eq!(attempts, [Attempt::First, Attempt::Retry]);
    assert!(!bench.are_credentials_refused());
}

#[tokio::test(start_paused = true)]
async fn an_unconfirmed_refusal_is_retried_and_queried_again() {
    for refused in [UNAUTHORIZED, FORBIDDEN] {
        let bench = Bench::told([refused; 3], [UNKNOWN, UNKNOWN]);
        let mut stream = bench.open(LONG);
        let verdict = stream.send("a").await;
        assert_eq!(verdict, Verdict::Deferred(DeferralCause::Credentials));
        assert_eq!((bench.calls().len(), bench.queries()), (3, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_a_query_asked_for_is_kept() {
    let wait = Duration::from_secs(7);
    let busy = CredentialStanding::Unknown {
        retry_after: Some(wait),
    };
    let bench = Bench::told([UNAUTHORIZED], [busy]);
    assert_eq!(bench.open(LONG).send("a").await, Verdict::Delivered);
    let calls = bench.calls();
    assert!(calls[1].at >= calls[0].at + wait, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_rotated_while_its_refusal_is_asked_about_is_used_at_once() {
    let bench = Bench::told([UNAUTHORIZED], []);
    *bench.vendor.query_time.lock().unwrap() = LONG;
    let mut stream = bench.open(LONG);
    stream.submit("a", Operation::Add);
    stream.lane.flush();
    tokio::time::sleep(2 * CALL_TIME).await;
    bench.live.publish(bench.uid, Revision(2), active("second"));
    let rotated = Instant::now();
    assert_eq!(stream.verdict().await, (1, Verdict::Delivered));
    assert!(rotated.elapsed() < Duration::from_secs(2));
    assert_eq!(bench.calls()[1].token, "second");
}

#[tokio::test(start_paused = true)]
async fn no_record_waits_for_a_query_past_its_time_out() {
    let bench = Bench::told([UNAUTHORIZED], []);
    *bench.vendor.query_time.lock().unwrap() = LONG;
    let mut stream = bench.open(Duration::from_secs(3));
    let began = Instant::now();
    let tried = DeliveryAttempts {
        calls: 1,
        error: Some(unconfirmed(Refusal::Unauthorized)),
    };
    assert_eq!(stream.send("a").await, Verdict::TimedOut(tried));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_segment_ends_alone() {
    let bench = Bench::told(
        [CallOutcome::Applied, FORBIDDEN],
        [CredentialStanding::Good],
    );
    let (mut well, mut guarded) = (bench.open(LONG), bench.open_into("guarded", LONG));
    assert_eq!(well.send("a").await, Verdict::Delivered);
    let verdict = guarded.send("b").await;
    assert_eq!(verdict, Verdict::Deferred(DeferralCause::Permission));
    assert_eq!(well.send("c").await, Verdict::Delivered);
    // The change is approved by now.
    assert_eq!(guarded.send("d").await, Verdict::Delivered);
}

#[tokio::test(start_paused = true)]
async fn one_forbidden_segment_does_not_refuse_the_destination_however_often() {
    let bench = Bench::told([FORBIDDEN; 3], [CredentialStanding::Good; 3]);
    let mut stream = bench.open(LONG);
    for _ in 0..3 {
        let verdict = stream.send("a").await;
        assert_eq!(verdict, Verdict::Deferred(DeferralCause::Permission));
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_whose_segments_are_all_forbidden_is_refused() {
    let bench = Bench::told([FORBIDDEN; 2], [CredentialStanding::Good; 2]);
    // The first stream is over before the second one opens.
    let verdict = bench.open_into("one", LONG).send("a").await;
    assert_eq!(verdict, Verdict::Deferred(DeferralCause::Permission));
    let verdict = bench.open_into("two", LONG).send("b").await;
    assert_eq!(verdict, Verdict::Deferred(DeferralCause::Credentials));
    assert!(bench.are_credentials_refused());
}

#[tokio::test(start_paused = true)]
async fn a_role_that_cannot_write_refuses_the_destination_at_once() {
    let bench = Bench::told([FORBIDDEN], [CredentialStanding::Refused]);
    let verdict = bench.open(LONG).send("a").await;
    assert_eq!(verdict, Verdict::Deferred(DeferralCause::Credentials));
    assert!(bench.are_credentials_refused());
}

#[tokio::test(start_paused = true)]
async fn a_single_refusal_of_a_segment_that_was_accepted_is_tried_again() {
    for (refused, refusal) in [
        (NO_SEGMENT, Refusal::Segment),
        (FORBIDDEN, Refusal::Forbidden),
    ] {
        let bench = Bench::told([CallOutcome::Applied, refused], [CredentialStanding::Good]);
        let mut stream = bench.open(LONG);
        assert_eq!(stream.send("a").await, Verdict::Delivered);
        let mut health = stream.lane.health();
        stream.submit("b", Operation::Add);
        let told = told(&mut health).await;
        assert!(
            matches!(told, DeliveryHealth::Unreachable { error, .. } if error == unconfirmed(refusal)),
            "{told:?}"
        );
        assert_eq!(stream.verdict().await, (2, Verdict::Delivered));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_an_accepted_segment_counts_once_it_has_lasted() {
    let refusals = std::iter::repeat_n(NO_SEGMENT, 20);
    let bench = Bench::told([CallOutcome::Applied].into_iter().chain(refusals), []);
    let mut stream = bench.open(LONG);
    assert_eq!(stream.send("a").await, Verdict::Delivered);
    let began = Instant::now();
    let verdict = stream.send("b").await;
    assert_eq!(verdict, Verdict::Deferred(DeferralCause::Segment));
    let took = began.elapsed();
    assert!(
        UNCONFIRMED_REFUSAL_PERIOD <= took && took < 2 * UNCONFIRMED_REFUSAL_PERIOD,
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn lasting_conflicts_are_reported_once_and_named() {
    let conflicts = std::iter::repeat_n(retry(TransientError::Conflict, None), 100);
    let bench = Bench::new(conflicts, &[]);
    let mut stream = bench.open(Duration::from_secs(30));
    let mut health = stream.lane.health();
    stream.submit("a", Operation::Add);
    let began = Instant::now();
    let told = told(&mut health).await;
    assert!(
        matches!(told, DeliveryHealth::Conflicting { .. }),
        "{told:?}"
    );
    let took = began.elapsed();
    assert!(
        CONFLICT_NOTICE_DELAY <= took && took < Duration::from_secs(6),
        "{took:?}"
    );
    let (_, verdict) = stream.verdict().await;
    let named = |tried: DeliveryAttempts| tried.error == Some(TransientError::Conflict);
    assert!(
        matches!(verdict, Verdict::TimedOut(tried) if named(tried)),
        "{verdict:?}"
    );
    assert!(!health.has_changed().unwrap(), "told more than once");
}

#[tokio::test(start_paused = true)]
async fn short_conflicts_are_not_reported() {
    // Four in a row take less than a second and a half, and so do those after a success.
    let conflict = retry(TransientError::Conflict, None);
    let mut script = vec![conflict; 3];
    script.push(CallOutcome::Applied);
    script.extend([conflict; 3]);
    let bench = Bench::new(script, &[]);
    let mut stream = bench.open(LONG);
    let mut health = stream.lane.health();
    health.mark_unchanged();
    assert_eq!(stream.send("a").await, Verdict::Delivered);
    tokio::time::sleep(CONFLICT_NOTICE_DELAY).await;
    assert_eq!(stream.send("b").await, Verdict::Delivered);
    assert!(!health.has_changed().unwrap());
}
