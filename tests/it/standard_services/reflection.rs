//! grpc.reflection

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorProto;
use tonic::{Code, Status, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_reflection::pb::v1alpha::{
    self, server_reflection_client::ServerReflectionClient as AlphaClient,
};

use crate::harness::{TestApp, methods, reason, wait_until};

async fn send(
    channel: &Channel,
    message_request: MessageRequest,
) -> Result<MessageResponse, Status> {
    let request =
        ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
    let mut client = ServerReflectionClient::new(channel.clone());
    let replies = client.server_reflection_info(futures::stream::iter([request])).await?;
    let reply = replies.into_inner().message().await?.expect("a reply");
    Ok(reply.message_response.expect("a response"))
}

/// The files that define a symbol.
async fn files_of(channel: &Channel, symbol: &str) -> Vec<FileDescriptorProto> {
    let message_request = MessageRequest::FileContainingSymbol(symbol.into());
    match send(channel, message_request).await.expect("a reply") {
        MessageResponse::FileDescriptorResponse(response) => {
            let files = response.file_descriptor_proto.iter();
            files.map(|file| FileDescriptorProto::decode(&file[..]).expect("a file")).collect()
        }
        other => panic!("{symbol}: {other:?}"),
    }
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let app = TestApp::shared();
    let message_request = MessageRequest::ListServices(String::new());
    let response = send(&app.channel, message_request).await.expect("a reply");
    let MessageResponse::ListServicesResponse(list) = response else { panic!("{response:?}") };
    let services: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
    let mut expected: BTreeSet<_> =
        methods().iter().map(|m| m.0.parent_service().full_name().to_owned()).collect();
    expected.insert("grpc.health.v1.Health".into());
    assert!(services.is_superset(&expected), "{services:?}");
    let other_services: Vec<_> = services.difference(&expected).collect();
    assert!(
        other_services.iter().all(|name| name.starts_with("grpc.reflection.")),
        "{other_services:?}"
    );
}

#[tokio::test]
async fn reflection_describes_every_method_and_the_error_details() {
    let app = TestApp::shared();
    for method in methods() {
        let files = files_of(&app.channel, method.0.full_name()).await;
        let methods = files.iter().flat_map(|f| &f.service).flat_map(|s| &s.method);
        assert!(methods.into_iter().any(|m| m.name() == method.0.name()), "{}", method.path());
    }
    for (symbol, message) in [
        ("google.rpc.ErrorInfo", "ErrorInfo"),
        ("google.rpc.BadRequest", "BadRequest"),
        ("google.rpc.RetryInfo", "RetryInfo"),
        ("google.rpc.Status", "Status"),
        ("tenantry.v1.User", "User"),
    ] {
        let files = files_of(&app.channel, symbol).await;
        let is_defined = files.iter().flat_map(|f| &f.message_type).any(|m| m.name() == message);
        assert!(is_defined, "{symbol}");
    }
}

/// Lists the services with the version of reflection that older clients use.
async fn list_services_alpha(channel: &Channel) -> Result<Vec<String>, Status> {
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = AlphaClient::new(channel.clone());
    let replies = client.server_reflection_info(futures::stream::iter([request])).await?;
    let reply = replies.into_inner().message().await?.expect("a reply");
    match reply.message_response {
        Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn reflection_supports_the_alpha_version_too() {
    let app = TestApp::shared();
    let services = list_services_alpha(&app.channel).await.expect("a list");
    for method in methods() {
        let service = method.0.parent_service().full_name().to_owned();
        assert!(services.contains(&service), "{service}");
    }
}

/// N21: a stream of reflection needs no token and holds descriptors, so one network has a share.
#[tokio::test]
async fn the_number_of_reflection_streams_of_a_network_is_limited() {
    let app = TestApp::spawn().await;
    // A stream is open until its sender of requests is dropped.
    let open = || async {
        let (sender, requests) = futures::channel::mpsc::unbounded();
        let mut client = ServerReflectionClient::new(app.channel.clone());
        client.server_reflection_info(requests).await.map(|responses| (sender, responses))
    };
    let mut open_streams = Vec::new();
    let refusal = loop {
        match open().await {
            Ok(stream) => open_streams.push(stream),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.code(), open_streams.len()), (Code::ResourceExhausted, 100));
    assert_eq!(reason(&refusal), "OVERLOADED");
    open_streams.clear();
    wait_until(10, || async { open().await.is_ok() }).await;
}

#[tokio::test]
async fn reflection_can_be_turned_off() {
    let app = TestApp::with_settings(|values| values.set("REFLECTION", "off")).await;
    let message_request = MessageRequest::ListServices(String::new());
    let v1 = send(&app.channel, message_request).await.expect_err("reflection is off");
    let alpha = list_services_alpha(&app.channel).await.expect_err("reflection is off");
    for status in [v1, alpha] {
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(reason(&status), "METHOD_UNKNOWN");
    }
    // The server still serves its own methods.
    app.create_tenant("acme").await;
}
