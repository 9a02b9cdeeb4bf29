//! The body of a request with a `Content-Encoding`.
//!
//! A decoded body has at most one byte more than the limit. The limit decides nothing else: below it, a larger limit gives
//! the same bytes.

#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;

#[path = "../../gateway/src/http/encoding/decode.rs"]
mod decode;

const LIMITS: [usize; 3] = [0, 100, 64 * 1024];

fuzz_target!(|body: &[u8]| {
    for decode in [decode::gzip, decode::zstd] {
        check(body, decode);
    }
});

fn check(body: &[u8], decode: fn(&[u8], usize) -> io::Result<Vec<u8>>) {
    let mut before: Option<Vec<u8>> = None;
    for limit in LIMITS {
        let decoded = decode(body, limit).inspect_err(|error| assert!(!error.to_string().is_empty())).ok();
        if let Some(decoded) = &decoded {
            assert!(decoded.len() <= limit + 1);
        }
        if let Some(before) = before.filter(|_| limit > 0) {
            assert_eq!(decoded.as_ref(), Some(&before), "a larger limit gives other bytes");
        }
        before = decoded.filter(|decoded| decoded.len() <= limit);
    }
}
