//! Connections that are refused, or get no reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::shared;
use crate::fixture::RabbitMqFixture;
use crate::{RabbitMqBroker, RabbitMqUrl};
use queue::{Broker, ErrorKind, Routes};
use queue_contract::{job, pool, soon};

#[tokio::test]
async fn wrong_credentials_are_refused_without_showing_the_password() {
    let fixture = shared();
    let (host, port) = fixture.url().address();
    let url: RabbitMqUrl = format!("rabbitmq://guest:s3cret@{host}:{port}").parse().unwrap();
    let broker = RabbitMqBroker::open(&url, &Routes::default()).unwrap();
    let error = soon(broker.gauge().await.unwrap().depths(&[pool()])).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_of_calls_and_not_of_opening() {
    let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let url: RabbitMqUrl = format!("rabbitmq://127.0.0.1:{port}").parse().unwrap();
    let broker = RabbitMqBroker::open(&url, &Routes::default()).unwrap();
    let (producer, consumer) = (broker.producer().await.unwrap(), broker.consumer(&pool()).await.unwrap());
    let error = soon(producer.publish(&[job(&RabbitMqFixture::of(url), "job")])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    assert_eq!(soon(consumer.receive(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_client_uses_another_node_of_the_url_if_one_cannot_be_reached() {
    let fixture = shared();
    let (host, port) = fixture.url().address();
    let unused = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let url: RabbitMqUrl = format!("rabbitmq://127.0.0.1:{unused},{host}:{port}").parse().unwrap();
    let broker = RabbitMqBroker::open(&url, &Routes::default()).unwrap();
    for _ in 0..2 {
        soon(broker.gauge().await.unwrap().depths(&[pool()])).await.remove(0).unwrap();
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_gets_few_attempts_to_connect() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rabbitmq://{}", listener.local_addr().unwrap()).parse().unwrap();
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(connection);
        }
    });
    let gauge = RabbitMqBroker::open(&url, &Routes::default()).unwrap().gauge().await.unwrap();
    let since = Instant::now();
    for _ in 0..100 {
        assert_eq!(soon(gauge.depths(&[pool()])).await.remove(0).unwrap_err().kind(), ErrorKind::Unavailable);
    }
    // The shortest pause is 100 ms.
    let allowed = 1 + since.elapsed().as_millis() / 100;
    assert!(u128::from(attempts.load(Ordering::Relaxed)) <= allowed, "{attempts:?} of {allowed}");
}

#[tokio::test]
async fn a_server_that_does_not_reply_is_unavailable_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let broker =
        RabbitMqBroker::open(&format!("rabbitmq://127.0.0.1:{port}").parse().unwrap(), &Routes::default()).unwrap();
    let error = soon(broker.gauge().await.unwrap().depths(&[pool()])).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
