//! The URL of a Redis.
//!
//! A URL without percent-encoding that is shown is read as the same URL, except for its password, which is never shown.

#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
use millrace_fuzz::{check_password, parsed};

#[path = "../../queue/redis/src/connection/url.rs"]
mod redis_url;

use redis_url::RedisUrl;

fuzz_target!(|text: &str| {
    check_password::<RedisUrl>("redis", text);
    let Some(url) = parsed::<RedisUrl>(text) else { return };
    let shown = url.to_string();
    // A name is shown without its percent-encoding, so a special character in it cannot be read again.
    if !text.contains('%') {
        let again: RedisUrl = shown.parse().expect("a URL that was shown can be read");
        assert_eq!(again.to_string(), shown);
        assert!(again == url || url.password.is_some(), "{text:?} is not {shown:?}");
    }
});
