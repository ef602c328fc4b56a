//! Leaving for LaunchDarkly through a company's network.

use std::net::SocketAddr;

use launchdarkly_connector::{
    config::Settings,
    launchdarkly::{Egress, Roots},
    pb,
};
use tonic::Code;

use self::wall::{Door, OUTSIDE, Wall};
use crate::{
    support::certificates::Authority,
    test_service::{TestService, reason},
};

mod wall;

/// `user:p@ss`, as `Proxy-Authorization` has it.
const PASS: &str = "Basic dXNlcjpwQHNz";

/// Puts a wall between a service and its sandbox. `trusted` is who the operator says to trust.
fn behind(settings: &mut Settings, wall: &Wall, scheme: &str, trusted: Option<&Authority>) {
    let host = if scheme == "https" {
        "localhost"
    } else {
        "127.0.0.1"
    };
    let port = wall.address.port();
    let url = format!("{scheme}://user:p%40ss@{host}:{port}");
    let to = &mut settings.launchdarkly;
    to.url = Some(format!("https://{OUTSIDE}").parse().unwrap());
    to.egress = Egress {
        proxy: Some(url.parse().unwrap()),
        roots: trusted.map(|authority| Roots::from_pem(authority.pem().into()).unwrap()),
    };
}

fn sandbox(settings: &Settings) -> SocketAddr {
    let url = settings.launchdarkly.url.as_ref().unwrap().to_string();
    url.trim_start_matches("http://").parse().unwrap()
}

fn door(scheme: &str) -> Door {
    Door {
        tls: scheme == "https",
        pass: Some(PASS),
    }
}

/// What a check of the stored credentials ends with.
async fn checked(service: &TestService, name: &str) -> Result<bool, (Code, String)> {
    let target = pb::validate_credentials_request::Target::Name(name.into());
    let request = pb::ValidateCredentialsRequest {
        target: Some(target),
    };
    let answer = service.client.clone().validate_credentials(request).await;
    match answer {
        Ok(answer) => Ok(answer.into_inner().valid),
        Err(status) => Err((status.code(), reason(&status))),
    }
}

#[tokio::test]
async fn calls_leave_through_the_operators_proxy_on_the_word_of_his_authority() {
    for scheme in ["http", "https"] {
        let authority = Authority::new();
        let mut wall = None;
        let service = TestService::start_with(|settings| {
            let inside = sandbox(settings);
            let built = Wall::start(&authority, door(scheme), inside);
            behind(settings, &built, scheme, Some(&authority));
            wall = Some(built);
        })
        .await;
        let wall = wall.unwrap();
        let name = service.create("vip").await;
        assert_eq!(checked(&service, &name).await, Ok(true), "{scheme}");
        let stream = service.open(&name).await;
        stream.add(&["a", "b"]).await;
        stream.finish().await.1.unwrap();
        assert_eq!(service.members(), ["a", "b"]);
        let heads = wall.heads();
        assert!(!heads.is_empty());
        for head in heads {
            assert!(
                head.starts_with(&format!("CONNECT {OUTSIDE}:443 HTTP/1.1\r\n")),
                "{head}"
            );
            assert!(!head.contains("api-"), "{head}");
        }
    }
}

#[tokio::test]
async fn who_cannot_prove_to_be_launchdarkly_is_told_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    for trusted in [Some(&other), None] {
        cannot_ask_through(&authority, door("http"), trusted).await;
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_an_outage_and_not_a_verdict() {
    let authority = Authority::new();
    let strict = Door {
        tls: false,
        pass: Some("Basic somebody-else"),
    };
    cannot_ask_through(&authority, strict, Some(&authority)).await;
}

/// The proxy is asked, LaunchDarkly is told nothing, and the credentials are not judged.
async fn cannot_ask_through(authority: &Authority, door: Door, trusted: Option<&Authority>) {
    let mut wall = None;
    let service = TestService::start_with(|settings| {
        let inside = sandbox(settings);
        let built = Wall::start(authority, door, inside);
        behind(settings, &built, "http", trusted);
        wall = Some(built);
    })
    .await;
    let name = service.create("vip").await;
    let unavailable = (Code::Unavailable, "DESTINATION_UNAVAILABLE".to_owned());
    assert_eq!(checked(&service, &name).await, Err(unavailable));
    assert!(service.sandbox.calls().is_empty());
    assert!(!wall.unwrap().heads().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn what_is_on_this_machine_is_called_without_the_proxy() {
    let authority = Authority::new();
    let mut wall = None;
    let service = TestService::start_with(|settings| {
        let (inside, url) = (sandbox(settings), settings.launchdarkly.url.clone());
        let built = Wall::start(&authority, door("http"), inside);
        behind(settings, &built, "http", Some(&authority));
        settings.launchdarkly.url = url;
        wall = Some(built);
    })
    .await;
    let name = service.create("vip").await;
    assert_eq!(checked(&service, &name).await, Ok(true));
    assert_eq!(wall.unwrap().heads(), Vec::<String>::new());
}
