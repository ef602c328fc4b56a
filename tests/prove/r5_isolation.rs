//! R5: a bad record harms only itself, and costs few calls.

use std::{collections::BTreeSet, time::Duration};

use launchdarkly_connector::{
    pb::identifier_record::Operation,
    sandbox::{
        FaultPlan, Hidden, RecordedCall,
        fixtures::{CLIENT_SIDE_ID, INTEGRATION},
    },
};

use crate::{
    figure::Figure,
    load,
    options::Size,
    test_service::{TestService, open_into, record},
};

const PROMISE: &str = "R5";
/// Members of one call.
const MEMBERS: usize = 1_000;
/// How many are refused, and the calls that may cost.
const CASES: [(usize, usize); 2] = [(1, 21), (10, 151)];

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    // All of a round are to leave together.
    let service = TestService::start_with(|s| s.delivery.linger = Duration::from_secs(1)).await;
    let name = service.create("vip").await;
    let mut random = fastrand::Rng::with_seed(size.seed);
    let mut figures = Vec::new();
    for (refused, bound) in CASES {
        let (mut most, mut wrong) = (0, 0);
        let rounds = size.pick(5, 50);
        for round in 0..rounds {
            let segment = format!("r5-{refused}-{round}");
            let poison = draw(&mut random, refused);
            let (calls, mistakes) = isolate(&service, &name, &segment, &poison).await;
            most = most.max(calls);
            wrong += mistakes;
        }
        let of = format!("{refused} of {MEMBERS} refused, {rounds} times");
        figures.extend([
            Figure::at_most(PROMISE, format!("{of}: most calls"), most, bound),
            Figure::exactly(PROMISE, format!("{of}: wrong results or members"), wrong, 0),
        ]);
    }
    Ok(figures)
}

fn draw(random: &mut fastrand::Rng, count: usize) -> BTreeSet<usize> {
    let mut drawn = BTreeSet::new();
    while drawn.len() < count {
        drawn.insert(random.usize(..MEMBERS));
    }
    drawn
}

/// The calls it took, and how many records and members are not as they should be.
async fn isolate(
    service: &TestService,
    destination: &str,
    segment: &str,
    poison: &BTreeSet<usize>,
) -> (usize, usize) {
    let key = |place: usize| format!("{segment}-{place}");
    service.sandbox.set_faults(FaultPlan {
        refused_keys: Hidden(poison.iter().map(|place| key(*place)).collect()),
        ..FaultPlan::default()
    });
    let stream = service.open_with(open_into(destination, segment)).await;
    let records = (0..MEMBERS).map(|place| record(&key(place), Operation::Add));
    stream.batch(records.collect()).await;
    let (answers, ended) = stream.finish().await;
    ended.expect("a bad record does not end its stream");
    let results = answers.results();
    let segment = format!("{INTEGRATION}-{segment}");
    let members = service.sandbox.members(CLIENT_SIDE_ID, &segment);
    let wrong = |place: &usize| {
        let sequence = i64::try_from(place + 1).expect("a batch is small");
        let refused = poison.contains(place);
        let rejected = Some("REJECTED_BY_DESTINATION".to_owned());
        let expected = if refused { rejected } else { None };
        results.get(&sequence) != Some(&expected) || members.contains(&key(*place)) == refused
    };
    let calls = service.sandbox.calls();
    let into = |call: &&RecordedCall| call.segment.as_ref() == Some(&segment);
    (
        calls.iter().filter(into).count(),
        (0..MEMBERS).filter(wrong).count(),
    )
}
