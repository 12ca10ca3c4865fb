//! Calls any method by its descriptor, so that existing tests also cover new RPCs.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::{
    Request, Response, Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding::Gzip, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
};

use super::{Client, client::Service};

/// A method of the API.
#[derive(Clone)]
pub struct Method(pub MethodDescriptor);

/// A reply as undecoded bytes.
pub type RawReply = Result<Response<Vec<u8>>, Status>;

/// Every method of the API, from the API's descriptors.
pub fn methods() -> Vec<Method> {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(tenantry::proto::DESCRIPTORS).expect("descriptors")
    });
    let services: Vec<_> =
        POOL.services().filter(|s| s.parent_file().package_name() == "tenantry.v1").collect();
    services.iter().flat_map(|s| s.methods().map(Method).collect::<Vec<_>>()).collect()
}

impl Method {
    /// The path of the method, such as `/tenantry.v1.UserService/GetUser`.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.0.parent_service().full_name(), self.0.name())
    }

    /// An empty request of the method's type.
    pub fn request(&self) -> DynamicMessage {
        DynamicMessage::new(self.0.input())
    }

    /// Calls the method with a message.
    pub async fn call(&self, client: &Client, message: &DynamicMessage) -> RawReply {
        self.call_raw(client, message.encode_to_vec()).await
    }

    /// Calls the method with any bytes, valid or not.
    pub async fn call_raw(&self, client: &Client, bytes: Vec<u8>) -> RawReply {
        Self::call_path(client, &self.path(), bytes).await
    }

    /// Calls the method as a client that compresses its messages with gzip, and accepts gzip.
    pub async fn call_with_gzip(&self, client: &Client, bytes: Vec<u8>) -> RawReply {
        let with_gzip = |grpc: Grpc<Service>| grpc.send_compressed(Gzip).accept_compressed(Gzip);
        Self::call_configured(client, &self.path(), bytes, with_gzip).await
    }

    /// Calls any path with any bytes.
    pub async fn call_path(client: &Client, path: &str, bytes: Vec<u8>) -> RawReply {
        Self::call_configured(client, path, bytes, |grpc| grpc).await
    }

    /// Calls any path with any bytes. `configure` sets options of the tonic client.
    async fn call_configured(
        client: &Client,
        path: &str,
        bytes: Vec<u8>,
        configure: impl Fn(Grpc<Service>) -> Grpc<Service>,
    ) -> RawReply {
        let service = tonic::service::interceptor::InterceptedService::new(
            client.channel.clone(),
            client.metadata.clone(),
        );
        let mut grpc = configure(Grpc::new(service));
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let path: PathAndQuery = path.parse().expect("a path");
        if !is_stream(&path) {
            return grpc.unary(Request::new(bytes), path, RawCodec).await;
        }
        // For a server stream, return its first message.
        let response = grpc.server_streaming(Request::new(bytes), path, RawCodec).await?;
        let (metadata, mut messages, extensions) = response.into_parts();
        let first_message = messages.message().await?.unwrap_or_default();
        Ok(Response::from_parts(metadata, first_message, extensions))
    }
}

fn is_stream(path: &PathAndQuery) -> bool {
    methods().iter().any(|method| method.0.is_server_streaming() && method.path() == path.path())
}

/// Sends and receives messages as raw bytes.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}
