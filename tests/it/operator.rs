//! What the operator and the person with grpcurl meet: health, reflection, and no secrets.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use futures_util::FutureExt;
use launchdarkly_connector::{
    pb,
    sandbox::{Fault, FaultKind, FaultPlan},
};
use prost::Message;
use prost_types::FileDescriptorProto;
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::test_service::{ORGANIZATION, TestService, destination, soon};

const SERVICE: &str = "cdp.destinations.v1.DestinationConnector";

async fn channel(service: &TestService) -> Channel {
    Channel::from_shared(format!("http://{}", service.address))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn health_is_told_to_those_who_ask_and_to_those_who_watch() {
    let service = TestService::start().await;
    let mut health = HealthClient::new(channel(&service).await);
    for service in ["", SERVICE] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let request = HealthCheckRequest {
        service: SERVICE.into(),
    };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    let name = service.create("vip").await;
    let busy = service.open(&name).await;
    service.shutdown.trigger();
    let changed = soon("health changes", watch.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(changed.status(), ServingStatus::NotServing);
    busy.finish().await.1.unwrap();
    soon("the service ends, though somebody watches", service.served)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_service_that_is_not_known_is_no_reason_to_end_a_watch() {
    let service = TestService::start().await;
    let mut health = HealthClient::new(channel(&service).await);
    let request = HealthCheckRequest {
        service: "nobody".into(),
    };
    let status = health.check(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        ServingStatus::ServiceUnknown
    );
    // Two answers on the same connection later, nothing has ended it.
    for _ in 0..2 {
        health.check(HealthCheckRequest::default()).await.unwrap();
    }
    assert!(watch.message().now_or_never().is_none());
    service.shutdown.trigger();
    soon("the service ends, though somebody watches", service.served)
        .await
        .unwrap();
}

/// What one stream of reflection answers to questions about things that are not there, and to one
/// about something that is.
macro_rules! asked_on_one_stream {
    ($version:ident, $service:expr) => {{
        use $version::{
            ExtensionRequest, ServerReflectionRequest,
            server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let questions = [
            Some(MessageRequest::FileContainingSymbol("no.Such".into())),
            Some(MessageRequest::FileByFilename("no/such.proto".into())),
            Some(MessageRequest::FileContainingExtension(ExtensionRequest {
                containing_type: "google.rpc.Status".into(),
                extension_number: 7,
            })),
            Some(MessageRequest::AllExtensionNumbersOfType("no.Such".into())),
            None,
            Some(MessageRequest::AllExtensionNumbersOfType(
                "google.rpc.Status".into(),
            )),
            Some(MessageRequest::FileContainingSymbol(
                "google.rpc.Status.code".into(),
            )),
        ];
        let (sender, requests) = tokio::sync::mpsc::channel(1);
        let mut client = ServerReflectionClient::new(channel($service).await);
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        let answers = client.server_reflection_info(requests).await.unwrap();
        let mut answers = answers.into_inner();
        let mut codes = Vec::new();
        for message_request in questions {
            let request = ServerReflectionRequest {
                host: "host".into(),
                message_request,
            };
            sender.send(request.clone()).await.unwrap();
            let answer = soon("an answer", answers.message()).await.unwrap().unwrap();
            assert_eq!(answer.valid_host, "host");
            assert_eq!(answer.original_request, Some(request));
            codes.push(match answer.message_response.unwrap() {
                MessageResponse::ErrorResponse(error) => {
                    assert!(!error.error_message.is_empty());
                    error.error_code
                }
                _ => 0,
            });
        }
        drop(sender);
        assert_eq!(answers.message().await.unwrap(), None);
        codes
    }};
}

#[tokio::test]
async fn reflection_answers_what_it_does_not_know_and_goes_on() {
    let service = TestService::start().await;
    // NOT_FOUND, and INVALID_ARGUMENT for a request that asks for nothing.
    let expected = [5, 5, 5, 5, 3, 0, 0];
    assert_eq!(asked_on_one_stream!(v1, &service), expected);
    assert_eq!(asked_on_one_stream!(v1alpha, &service), expected);
}

/// Every file that reflection serves, by asking for services and following imports.
macro_rules! reflected {
    ($version:ident, $service:expr) => {{
        use $version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut client = ServerReflectionClient::new(channel($service).await);
        let mut ask = async |message: MessageRequest| {
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message),
            };
            let answers = client
                .server_reflection_info(tokio_stream::once(request))
                .await;
            let answer = answers
                .unwrap()
                .into_inner()
                .message()
                .await
                .unwrap()
                .unwrap();
            answer.message_response.unwrap()
        };
        let listed = ask(MessageRequest::ListServices(String::new())).await;
        let MessageResponse::ListServicesResponse(listed) = listed else {
            panic!()
        };
        let services: Vec<_> = listed
            .service
            .into_iter()
            .map(|service| service.name)
            .collect();
        let mut files = BTreeMap::new();
        let mut names = vec!["google/rpc/error_details.proto".to_owned()];
        for service in &services {
            let answer = ask(MessageRequest::FileContainingSymbol(service.clone())).await;
            let MessageResponse::FileDescriptorResponse(answer) = answer else {
                panic!()
            };
            for file in answer.file_descriptor_proto {
                let file = FileDescriptorProto::decode(file.as_slice()).unwrap();
                names.extend(file.dependency.iter().cloned());
                files.insert(file.name().to_owned(), file);
            }
        }
        while let Some(name) = names.pop() {
            if files.contains_key(&name) {
                continue;
            }
            let answer = ask(MessageRequest::FileByFilename(name.clone())).await;
            let MessageResponse::FileDescriptorResponse(answer) = answer else {
                panic!("{name} is imported and not served")
            };
            for file in answer.file_descriptor_proto {
                let file = FileDescriptorProto::decode(file.as_slice()).unwrap();
                names.extend(file.dependency.iter().cloned());
                files.insert(file.name().to_owned(), file);
            }
        }
        (services, files)
    }};
}

fn check_reflection(services: &[String], files: &BTreeMap<String, FileDescriptorProto>) {
    for service in [
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        assert!(
            services.iter().any(|name| name == service),
            "{service} not in {services:?}"
        );
    }
    let mut homes = BTreeMap::new();
    for file in files.values() {
        for message in &file.message_type {
            let full = format!("{}.{}", file.package(), message.name());
            let other = homes.insert(full.clone(), file.name().to_owned());
            assert_eq!(other, None, "{full} has two homes");
        }
    }
    assert_eq!(homes["google.rpc.Status"], "google/rpc/status.proto");
    assert_eq!(
        homes["google.rpc.BadRequest"],
        "google/rpc/error_details.proto"
    );
}

#[tokio::test]
async fn reflection_serves_each_definition_once_in_both_versions() {
    let service = TestService::start().await;
    let (services, files) = reflected!(v1, &service);
    check_reflection(&services, &files);
    let (services, files) = reflected!(v1alpha, &service);
    check_reflection(&services, &files);
}

/// Collects everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const CANARY: &str = "api-canary00-0000-4000-8000-00000000c0de";
const CANARY_KEY: &str = "canary-person@example.org";

#[tokio::test]
async fn neither_token_nor_identifier_is_in_any_log_answer_or_file() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // While there is only one subscriber, tracing asks the thread that meets a log line first
    // whether anybody wants it, and the threads of other tests do not.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    // For this thread, on which the whole service runs.
    let _guard = tracing::subscriber::set_default(subscriber);

    let service = TestService::start().await;
    let mut client = service.client.clone();
    let mut answers = String::new();
    let create = pb::CreateDestinationRequest {
        parent: ORGANIZATION.into(),
        destination_id: "vip".into(),
        destination: Some(destination(CANARY)),
        ..Default::default()
    };
    let created = client
        .create_destination(create.clone())
        .await
        .unwrap()
        .into_inner();
    let name = created.name.clone();
    answers += &format!("{created:?}");
    answers += &format!(
        "{:?}",
        client.create_destination(create.clone()).await.unwrap_err()
    );
    answers += &format!("{create:?}");
    let update = pb::UpdateDestinationRequest {
        destination: Some(pb::Destination {
            name: name.clone(),
            ..destination(CANARY)
        }),
        ..Default::default()
    };
    answers += &format!("{:?}", client.update_destination(update).await.unwrap());
    let stored = pb::validate_credentials_request::Target::Name(name.clone());
    let validate = pb::ValidateCredentialsRequest {
        target: Some(stored),
    };
    answers += &format!(
        "{:?}",
        client.validate_credentials(validate.clone()).await.unwrap()
    );
    service.sandbox.set_faults(FaultPlan {
        path_prefix: "/".into(),
        faults: vec![
            Fault::new(FaultKind::Status(http::StatusCode::INTERNAL_SERVER_ERROR)).for_calls(2),
        ],
        ..FaultPlan::default()
    });
    answers += &format!("{:?}", client.validate_credentials(validate).await);
    let mut stream = service.open(&name).await;
    stream
        .add(&[CANARY_KEY, &format!("{CANARY_KEY}\u{0}")])
        .await;
    let (told, ended) = stream.end().await;
    answers += &format!("{told:?} {:?}", ended.unwrap_err());

    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(
        logged.contains("stream opens") && logged.contains("TRACE"),
        "nothing logged"
    );
    let files: Vec<_> = service.files().into_iter().collect();
    assert!(files.iter().any(|(path, _)| path.ends_with("connector.db")));
    for secret in ["canary00-0000", "canary-person"] {
        assert!(!answers.contains(secret), "in an answer: {secret}");
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "logged: {secret}");
        for (path, bytes) in &files {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {path}");
        }
    }
}
