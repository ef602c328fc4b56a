//! The sandbox over real sockets: what only a connection can show.

use std::{future::Future, net::SocketAddr, time::Duration};

use http::{StatusCode, Version};
use launchdarkly_connector::{
    clock,
    sandbox::{
        Fault, FaultKind, FaultPlan, Sandbox, SandboxOptions,
        fixtures::{CLIENT_SIDE_ID, INTEGRATION, MOBILE_KEY, SDK_KEY, SEGMENT, WRITER_TOKEN},
    },
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// Far above what loopback needs; only a failure waits as long.
const DEADLINE: Duration = Duration::from_secs(20);

/// A sandbox that listens on a free port until it is stopped.
pub(crate) struct Running {
    pub(crate) sandbox: Sandbox,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(SandboxOptions::default()).await
    }

    pub(crate) async fn start_with(options: SandboxOptions) -> Self {
        let sandbox = Sandbox::new(options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or_default() };
        // Awaited by `stop`; a failing test's runtime aborts it.
        let server = tokio::spawn(sandbox.clone().serve(listener, shutdown));
        Self {
            sandbox,
            address,
            stop,
            server,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends one member of the segment that the default flag targets.
    pub(crate) async fn send(
        &self,
        action: &str,
        key: &str,
    ) -> Result<reqwest::StatusCode, reqwest::Error> {
        let body = json!({"action": action, "parameters": {
            "integration_project_id": CLIENT_SIDE_ID, "integration_cohort_id": "vip",
            "integration_cohort_name": "VIP", "members": [{"integration_distinct_id": key}]}});
        self.send_as(INTEGRATION, &body).await
    }

    /// Sends what an integration would.
    pub(crate) async fn send_as(
        &self,
        integration: &str,
        body: &Value,
    ) -> Result<reqwest::StatusCode, reqwest::Error> {
        let path = format!("/api/v2/segment-targets/{integration}");
        let request = http().post(self.url(&path)).body(body.to_string());
        let response = request.header("authorization", WRITER_TOKEN).send().await?;
        Ok(response.status())
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        soon("the sandbox ends", self.server)
            .await
            .unwrap()
            .unwrap();
    }

    fn set_fault(&self, fault: Fault) {
        self.sandbox.set_faults(FaultPlan {
            faults: vec![fault],
            ..FaultPlan::default()
        });
    }
}

pub(crate) async fn soon<T>(what: &str, task: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, task).await {
        Ok(done) => done,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

fn http() -> reqwest::Client {
    // Loopback only: whatever proxy the environment names is not meant for it.
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// One for each version of HTTP that is spoken without TLS.
fn clients() -> [(reqwest::Client, Version); 2] {
    let http2 = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    [(http(), Version::HTTP_11), (http2, Version::HTTP_2)]
}

#[tokio::test]
async fn a_reset_drops_the_connection_without_an_answer() {
    let running = Running::start().await;
    running.set_fault(Fault::new(FaultKind::Reset).for_calls(1).after_applying());
    let error = soon("the reset is heard", running.send("add_members", "ann"))
        .await
        .unwrap_err();
    assert!(error.status().is_none(), "an answer came: {error}");
    assert!(
        format!("{error:?}").contains("ConnectionReset"),
        "{error:?}"
    );
    assert_eq!(running.sandbox.members(CLIENT_SIDE_ID, SEGMENT).len(), 1);
    assert_eq!(running.send("remove_members", "ann").await.unwrap(), 204);
    running.stop().await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_open_streams_or_hung_calls() {
    let running = Running::start().await;
    running.set_fault(Fault::new(FaultKind::Hang));
    let request = http()
        .get(running.url("/all"))
        .header("authorization", SDK_KEY);
    let mut stream = soon("the stream opens", request.send()).await.unwrap();
    let first = soon("the first event", stream.chunk())
        .await
        .unwrap()
        .unwrap();
    assert!(first.starts_with(b"event: put\ndata: {"), "{first:?}");
    let is_hung = |sandbox: &Sandbox| {
        sandbox
            .calls()
            .iter()
            .any(|call| call.fault == Some("hang"))
    };
    let sandbox = running.sandbox.clone();
    let url = running.url("");
    tokio::select! {
        answer = running.send("add_members", "ann") => panic!("{url} answered {answer:?}"),
        () = soon("the call hangs", sandbox.until(is_hung)) => {}
    }
    // Kept open: a caller who never says a word must not hold the end up either.
    let _silent = TcpStream::connect(running.address).await.unwrap();
    running.stop().await;
    let end = soon("the stream ends", stream.chunk()).await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
}

#[tokio::test]
async fn every_answer_has_launchdarklys_date_and_http2_is_spoken_without_tls() {
    let running = Running::start().await;
    let hour = Duration::from_secs(3_600);
    running.sandbox.set_faults(FaultPlan {
        clock_ahead_ms: hour.as_millis().try_into().unwrap(),
        faults: vec![Fault::new(FaultKind::Page(StatusCode::OK)).for_calls(2)],
        ..FaultPlan::default()
    });
    let path = format!("/api/v2/segment-targets/{INTEGRATION}");
    let before = clock::now() - Duration::from_secs(1);
    for (client, version) in clients() {
        let page = client.post(running.url(&path)).send().await.unwrap();
        assert_eq!(page.version(), version);
        let dates: Vec<_> = page.headers().get_all("date").iter().collect();
        let date = httpdate::parse_http_date(dates[0].to_str().unwrap()).unwrap();
        assert!((before + hour..=clock::now() + hour).contains(&date));
        assert_eq!(dates.len(), 1);
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert!(page.text().await.unwrap().contains("</html>"));
    }
    running.stop().await;
}

#[tokio::test]
async fn a_context_may_be_the_body_of_a_report() {
    let running = Running::start().await;
    let report = reqwest::Method::from_bytes(b"REPORT").unwrap();
    for (client, version) in clients() {
        let request = client
            .request(report.clone(), running.url("/meval?withReasons=true"))
            .header("authorization", MOBILE_KEY)
            .header("content-type", "application/json")
            .body(r#"{"kind":"user","key":"ann"}"#);
        let mut stream = soon("the stream opens", request.send()).await.unwrap();
        assert_eq!(
            (stream.status(), stream.version()),
            (StatusCode::OK, version)
        );
        for (event, change) in [("put", "add_members"), ("patch", "remove_members")] {
            let heard = soon(event, stream.chunk()).await.unwrap().unwrap();
            let heard = String::from_utf8(heard.to_vec()).unwrap();
            let start = format!("event: {event}\ndata: {{");
            assert!(
                heard.starts_with(&start) && heard.contains("reason"),
                "{heard}"
            );
            assert_eq!(running.send(change, "ann").await.unwrap(), 204);
        }
    }
    running.stop().await;
}
