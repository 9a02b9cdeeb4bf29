//! A client like KEDA up to 2.16, whose messages have only integers.

use prost::Message;
use proto::externalscaler::ScaledObjectRef;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::*;

#[derive(Clone, PartialEq, Message)]
struct Active {
    #[prost(bool, tag = "1")]
    result: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Specs {
    #[prost(message, repeated, tag = "1")]
    metric_specs: Vec<Spec>,
}

#[derive(Clone, PartialEq, Message)]
struct Spec {
    #[prost(string, tag = "1")]
    metric_name: String,
    #[prost(int64, tag = "2")]
    target_size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(message, optional, tag = "1")]
    scaled_object_ref: Option<ScaledObjectRef>,
    #[prost(string, tag = "2")]
    metric_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Values {
    #[prost(message, repeated, tag = "1")]
    metric_values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    metric_name: String,
    #[prost(int64, tag = "2")]
    metric_value: i64,
}

struct OldKeda(Grpc<Channel>);

impl OldKeda {
    async fn call<A, B>(&mut self, path: &'static str, message: A) -> B
    where
        A: Message + Send + Sync + 'static,
        B: Message + Default + Send + Sync + 'static,
    {
        self.0.ready().await.unwrap();
        let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::default());
        self.0.unary(Request::new(message), path, codec).await.unwrap().into_inner()
    }

    /// The first message of a stream.
    async fn first<A, B>(&mut self, path: &'static str, message: A) -> B
    where
        A: Message + Send + Sync + 'static,
        B: Message + Default + Send + Sync + 'static,
    {
        self.0.ready().await.unwrap();
        let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::default());
        let stream = self.0.server_streaming(Request::new(message), path, codec).await.unwrap();
        stream.into_inner().message().await.unwrap().expect("the stream has ended")
    }
}

/// C1.
#[tokio::test(flavor = "multi_thread")]
async fn all_five_calls_serve_a_client_that_reads_only_integers() {
    let (system, scaler, keda) = running().await;
    let backend = system.backend().await.unwrap();
    publish(&backend, "echo", 7).await;
    keda.until_value(&object("echo"), 7.0).await;

    let address = format!("http://{}", scaler.address);
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let mut old = OldKeda(Grpc::new(channel));
    let specs: Specs = old.call("/externalscaler.ExternalScaler/GetMetricSpec", object("echo")).await;
    let [Spec { metric_name, target_size }] = &specs.metric_specs[..] else { panic!("{specs:?}") };
    assert_eq!(*target_size, 3, "2.5, rounded up");
    let query = Query { scaled_object_ref: Some(object("echo")), metric_name: metric_name.clone() };
    let values: Values = old.call("/externalscaler.ExternalScaler/GetMetrics", query).await;
    assert_eq!(values.metric_values, [Value { metric_name: metric_name.clone(), metric_value: 7 }]);
    let active: Active = old.call("/externalscaler.ExternalScaler/IsActive", object("echo")).await;
    assert!(active.result);
    let pushed: Active = old.first("/externalscaler.ExternalScaler/StreamIsActive", object("echo")).await;
    assert!(pushed.result);
    let pushed: Specs = old.first("/externalscaler.ExternalScaler/StreamMetricSpec", object("echo")).await;
    assert_eq!(pushed, specs);
}
