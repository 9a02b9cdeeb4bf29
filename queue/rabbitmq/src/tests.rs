//! Promises that only RabbitMQ makes.
#![allow(clippy::disallowed_methods, reason = "starting a server blocks, and only its test waits for it")]

mod connections;
mod outside;
mod queues;
mod server;
mod servers;

use lapin::types::ShortString;
use lapin::{Channel, Connection};

use super::RabbitMqUrl;
use crate::fixture::RabbitMqFixture;
use queue::{Consumer, Delivery, Settlement};
use queue_contract::pool;

fn shared() -> RabbitMqFixture {
    RabbitMqFixture::start()
}

async fn acknowledge(consumer: &dyn Consumer, deliveries: Vec<Delivery>) {
    let deliveries = deliveries.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect();
    consumer.settle(deliveries).await.unwrap();
}

/// A connection of another program.
async fn channel(url: &RabbitMqUrl) -> (Connection, Channel) {
    let connection =
        Connection::connect_uri(url.uris().remove(0), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// The queue of [`pool`] and the class standard.
fn queue(fixture: &RabbitMqFixture) -> ShortString {
    format!("{}.{}.standard", fixture.prefix(), pool()).into()
}
