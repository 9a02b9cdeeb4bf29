//! The URL of a Kafka cluster.
//!
//! A URL that is written is read as the same URL, except for its passwords, which are never shown.

#![no_main]
#![allow(dead_code)]

extern crate self as rdkafka;

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use millrace_fuzz::{check_password, parsed};

#[path = "../../queue/kafka/src/url.rs"]
mod kafka_url;

use kafka_url::KafkaUrl;

fuzz_target!(|text: &str| {
    check_password::<KafkaUrl>("kafka", text);
    let Some(url) = parsed::<KafkaUrl>(text) else { return };
    let shown = url.to_string();
    let again: KafkaUrl = shown.parse().expect("a URL that was written can be read");
    assert_eq!(again.to_string(), shown);
    if !shown.contains("***") {
        assert!(again == url, "{text:?} is not {shown:?}");
    }
});

/// Stands in for librdkafka, which takes minutes to compile. The driver leaves the check of properties to it.
#[derive(Default)]
pub(crate) struct ClientConfig(BTreeMap<String, String>);

impl ClientConfig {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.0.insert(name.into(), value.into());
        self
    }

    pub(crate) fn create_native_config(&self) -> Result<(), error::KafkaError> {
        let is_property = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '.');
        match self.0.iter().find(|(name, value)| !is_property(name) || value.contains('\0')) {
            Some((name, _)) => Err(error::KafkaError::ClientConfig((), format!("{name:?} is not a property"))),
            None => Ok(()),
        }
    }
}

pub(crate) mod error {
    pub(crate) enum KafkaError {
        ClientConfig((), String),
        Other,
    }
}
