//! The URL of a RabbitMQ server.
//!
//! A URL without percent-encoding that is shown is read as the same URL, except for its password, which is never shown.

#![no_main]
#![allow(dead_code)]

extern crate self as lapin;

// The driver `lapin` has its URIs from this crate.
pub(crate) use amq_protocol_uri as uri;
use libfuzzer_sys::fuzz_target;
use millrace_fuzz::{check_password, parsed};

#[path = "../../queue/rabbitmq/src/url.rs"]
mod rabbitmq_url;

use rabbitmq_url::RabbitMqUrl;

fuzz_target!(|text: &str| {
    check_password::<RabbitMqUrl>("rabbitmq", text);
    let Some(url) = parsed::<RabbitMqUrl>(text) else { return };
    let shown = url.to_string();
    // A name is shown without its percent-encoding, so a special character in it cannot be read again.
    if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        let again: RabbitMqUrl = shown.parse().expect("a URL that was shown can be read");
        assert_eq!(again.to_string(), shown);
    }
});
