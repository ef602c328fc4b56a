use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::json;

use super::*;
use crate::{
    domain::SegmentClient,
    launchdarkly::{
        Client,
        testing::{self, Server},
    },
};

const TOKEN: &str = "api-00000000-0000-4000-8000-000000000001";
/// The environment that the token's account has.
const OWN: &str = "5a01";
const UNAUTHORIZED: Refusal = Refusal::Unauthorized;
const FORBIDDEN: Refusal = Refusal::Forbidden;
/// Nothing here takes as long.
const DEADLINE: Duration = Duration::from_secs(20);

/// A LaunchDarkly where a token has this role.
fn with_role(role: &'static str) -> Server {
    Server::start(move |call| match call.path.split('?').next().unwrap() {
        "/api/v2/caller-identity" => testing::json(json!({"accountId": "acme", "tokenId": "7e01"})),
        "/api/v2/tokens/7e01" => testing::json(json!({"role": role})),
        "/api/v2/projects" => testing::json(json!({
            "items": [{"key": "p", "name": "P", "environments": {
                "items": [{"_id": OWN, "key": "e", "name": "E"}], "totalCount": 1,
            }}],
            "totalCount": 1,
        })),
        _ => testing::status(200),
    })
}

/// One that answers every query with what `code` holds.
fn answering(code: &Arc<AtomicU16>) -> Server {
    let code = Arc::clone(code);
    Server::start(move |_| testing::status(code.load(Ordering::Relaxed)))
}

async fn asked(server: &Server, client_side_id: &str, refusal: Refusal) -> CredentialStanding {
    let client = Client::new(server.settings()).unwrap();
    let connection = Arc::new(testing::connection(TOKEN, client_side_id));
    client.confirm(&connection, refusal).await
}

#[tokio::test]
async fn a_401_is_confirmed_by_the_identity_of_the_token() {
    assert_eq!(
        asked(&with_role("reader"), OWN, UNAUTHORIZED).await,
        CredentialStanding::Good
    );
    let unknown = CredentialStanding::Unknown { retry_after: None };
    for (code, standing) in [
        (401, CredentialStanding::Refused),
        (403, CredentialStanding::Refused),
        (404, unknown),
        (503, unknown),
    ] {
        let server = answering(&Arc::new(code.into()));
        assert_eq!(asked(&server, OWN, UNAUTHORIZED).await, standing, "{code}");
        assert_eq!(server.calls().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_403_is_confirmed_by_the_role_and_the_environment() {
    for (role, client_side_id, standing) in [
        ("writer", OWN, CredentialStanding::Good),
        ("custom", OWN, CredentialStanding::Good),
        ("reader", OWN, CredentialStanding::Refused),
        ("writer", "5b01", CredentialStanding::Refused),
    ] {
        let server = with_role(role);
        let told = asked(&server, client_side_id, FORBIDDEN).await;
        assert_eq!(told, standing, "{role} in {client_side_id}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_one_is_refused_unasked() {
    let server = with_role("writer");
    let client = Client::new(server.settings()).unwrap();
    for token in ["sdk-5a01", "api\r\nx: y"] {
        let connection = Arc::new(testing::connection(token, OWN));
        let standing = client.confirm(&connection, UNAUTHORIZED).await;
        assert_eq!(standing, CredentialStanding::Refused);
    }
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn calls_refused_together_share_one_query() {
    let code = Arc::new(AtomicU16::new(401));
    let server = answering(&code);
    let client = Client::new(server.settings()).unwrap();
    let ask = |token: &'static str| {
        let connection = Arc::new(testing::connection(token, OWN));
        let client = &client;
        async move { client.confirm(&connection, UNAUTHORIZED).await }
    };
    let together = futures_util::future::join_all((0..50).map(|_| ask(TOKEN))).await;
    assert_eq!(together, [CredentialStanding::Refused; 50]);
    assert_eq!(ask(TOKEN).await, CredentialStanding::Refused);
    assert_eq!(server.calls().len(), 1);
    ask("api-other").await;
    assert_eq!(
        server.calls().len(),
        2,
        "another token's answer is not its own"
    );
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_query_to_the_next() {
    let server = Server::start(|_| None);
    let client = Arc::new(Client::new(server.settings()).unwrap());
    let ask = || {
        let client = Arc::clone(&client);
        let connection = Arc::new(testing::connection(TOKEN, OWN));
        tokio::spawn(async move { client.confirm(&connection, UNAUTHORIZED).await })
    };
    let has_asked = async |times| {
        let asked = async {
            while server.calls().len() < times {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, asked).await;
        in_time.unwrap_or_else(|_| panic!("not asked {times} times"));
    };
    let first = ask();
    has_asked(1).await;
    let second = ask();
    first.abort();
    has_asked(2).await;
    second.abort();
}

#[tokio::test]
async fn an_answer_is_cached_for_its_time_to_live_and_then_forgotten() {
    let confirmations = Confirmations::default();
    let key = QueryKey::of(&testing::connection(TOKEN, OWN), UNAUTHORIZED);
    let query = confirmations.query(&key);
    let answer = |expires| CachedStanding {
        standing: CredentialStanding::Good,
        expires,
    };
    *query.lock().await = Some(answer(Instant::now() + TOKEN_TTL));
    drop(query);
    let cached = confirmations.query(&key);
    assert!(cached.lock().await.is_some());
    *cached.lock().await = Some(answer(Instant::now()));
    drop(cached);
    let other = QueryKey::of(&testing::connection("api-other", OWN), UNAUTHORIZED);
    drop(confirmations.query(&other));
    assert!(!confirmations.0.lock().contains_key(&key));
}

#[test]
fn an_answer_about_permissions_lives_longer() {
    let ttl = |refusal, standing| {
        let key = QueryKey::of(&testing::connection(TOKEN, OWN), refusal);
        key.ttl(standing)
    };
    for known in [CredentialStanding::Good, CredentialStanding::Refused] {
        assert_eq!(ttl(UNAUTHORIZED, known), TOKEN_TTL);
        assert_eq!(ttl(FORBIDDEN, known), PERMISSION_TTL);
    }
    let unknown = CredentialStanding::Unknown { retry_after: None };
    assert_eq!(ttl(FORBIDDEN, unknown), TOKEN_TTL);
}
