//! LaunchDarkly's own Rust SDK against the sandbox: it sees the flag flip, by stream and by poll.

use std::time::Duration;

use launchdarkly_connector::sandbox::{
    Flag, Integration, Manifest, Sandbox, SandboxOptions,
    fixtures::{CLIENT_SIDE_ID, FLAG, SDK_KEY},
};
use launchdarkly_sdk_transport::HyperTransport;
use launchdarkly_server_sdk::{
    Client, ConfigBuilder, Context, ContextBuilder, EventProcessorBuilder, MultiContextBuilder,
    PollingDataSourceBuilder, ServiceEndpointsBuilder, StreamingDataSourceBuilder,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::sandbox_http::{Running, soon};

/// How the SDK learns of changes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Streaming,
    Polling,
}

/// Makes an SDK client that reads and reports to this address; it still has to be started.
pub(crate) fn sdk(base_url: &str, mode: Mode) -> Client {
    let transport = || {
        HyperTransport::builder()
            .disable_proxy()
            .build_http()
            .unwrap()
    };
    let mut streaming = StreamingDataSourceBuilder::new();
    let mut polling = PollingDataSourceBuilder::new();
    let config = ConfigBuilder::new(SDK_KEY)
        .service_endpoints(ServiceEndpointsBuilder::new().relay_proxy(base_url))
        .event_processor(EventProcessorBuilder::new().transport(transport()));
    let config = match mode {
        Mode::Streaming => config.data_source(streaming.transport(transport())),
        Mode::Polling => config.data_source(polling.transport(transport())),
    };
    Client::build(config.build().unwrap()).unwrap()
}

/// Runs the SDK on a thread and a clock of its own, and sends each new value of the flag.
///
/// The SDK polls every 30 s at the most often. On a paused clock that jumps whenever the thread
/// has nothing else to do, those pass at once; the rest of the test, and its deadlines, stay on
/// the real clock. The channel is bounded by the flips that the test makes; the thread ends when
/// its receiver is dropped.
pub(crate) fn watch_flag(
    base_url: String,
    mode: Mode,
    person: Context,
) -> mpsc::UnboundedReceiver<bool> {
    let (values, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async move {
            let client = sdk(&base_url, mode);
            client.start_with_default_executor();
            let mut last = None;
            while !values.is_closed() {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let value = client
                    .initialized()
                    .then(|| client.bool_variation(&person, FLAG, false));
                if value != last {
                    values.send(value.unwrap()).ok();
                    last = value;
                    // Reports are otherwise made every five seconds, on a real clock.
                    client.flush();
                }
            }
            client.close();
        });
    });
    receiver
}

async fn the_sdk_sees_the_flag_flip(mode: Mode) {
    let running = Running::start().await;
    let person = ContextBuilder::new("ann").build().unwrap();
    let mut flag = watch_flag(running.url(""), mode, person);
    assert_eq!(soon("the SDK starts", flag.recv()).await, Some(false));
    assert_eq!(running.send("add_members", "ann").await.unwrap(), 204);
    assert_eq!(soon("the flag turns true", flag.recv()).await, Some(true));
    assert_eq!(running.send("remove_members", "ann").await.unwrap(), 204);
    assert_eq!(soon("the flag turns false", flag.recv()).await, Some(false));
    let events_taken = |sandbox: &Sandbox| sandbox.totals().statuses.contains_key(&202);
    soon("the SDK reports", running.sandbox.until(events_taken)).await;
    drop(flag);
    running.stop().await;
}

#[tokio::test]
async fn a_streaming_sdk_sees_the_flag_flip() {
    the_sdk_sees_the_flag_flip(Mode::Streaming).await;
}

#[tokio::test]
async fn a_polling_sdk_sees_the_flag_flip() {
    the_sdk_sees_the_flag_flip(Mode::Polling).await;
}

/// A sandbox whose flag targets accounts, which an integration other than the default one sends.
async fn for_accounts() -> Running {
    Running::start_with(SandboxOptions {
        integrations: vec![Integration {
            key: "acme".into(),
            manifest: Manifest::read(include_str!("../manifests/hightouch.json")).unwrap(),
        }],
        flags: vec![flag("acme-enterprise")],
        ..SandboxOptions::default()
    })
    .await
}

fn flag(segment: &str) -> Flag {
    Flag {
        key: FLAG.into(),
        segment: segment.into(),
        on: true,
    }
}

fn accounts(action: &str, keys: &[&str]) -> Value {
    let member = |key| json!({ "integration_distinct_id": key });
    json!({"environmentId": CLIENT_SIDE_ID, "cohortId": "enterprise", "cohortName": "Enterprise",
        "contextKind": "account", "action": action,
        "members": keys.iter().map(member).collect::<Vec<_>>()})
}

#[tokio::test]
async fn an_sdk_sees_the_flag_flip_for_an_account() {
    let running = for_accounts().await;
    let context = |kind: &str, key: &str| {
        let mut builder = ContextBuilder::new(key);
        builder.kind(kind);
        builder.build().unwrap()
    };
    let both = |account: &str, user: &str| {
        let mut builder = MultiContextBuilder::new();
        builder.add_context(context("account", account));
        builder.add_context(context("user", user));
        builder.build().unwrap()
    };
    let watch = |mode, context| watch_flag(running.url(""), mode, context);
    let mut members = [
        watch(Mode::Streaming, context("account", "initech")),
        watch(Mode::Polling, context("account", "initech")),
        watch(Mode::Streaming, both("initech", "ann")),
    ];
    let mut others = [
        watch(Mode::Streaming, context("user", "initech")),
        watch(Mode::Streaming, both("hooli", "initech")),
    ];
    for flag in members.iter_mut().chain(&mut others) {
        assert_eq!(soon("the SDK starts", flag.recv()).await, Some(false));
    }
    for (action, value) in [("add", true), ("remove", false)] {
        let sent = accounts(action, &["initech", "globex"]);
        assert_eq!(running.send_as("acme", &sent).await.unwrap(), 204);
        for flag in &mut members {
            assert_eq!(soon("the flag flips", flag.recv()).await, Some(value));
        }
    }
    drop(members);
    // The others see the flag flip once, when it targets a segment of users.
    running
        .sandbox
        .put_flag(CLIENT_SIDE_ID, flag("acme-people"));
    let people = json!({"environmentId": CLIENT_SIDE_ID, "cohortId": "people",
        "cohortName": "People", "action": "add",
        "members": [{"integration_distinct_id": "initech"}]});
    assert_eq!(running.send_as("acme", &people).await.unwrap(), 204);
    for mut flag in others {
        assert_eq!(soon("the flag flips", flag.recv()).await, Some(true));
        assert!(flag.try_recv().is_err());
    }
    running.stop().await;
}
