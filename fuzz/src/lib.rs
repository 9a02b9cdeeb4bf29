//! The promises of every broker's URL.

use std::fmt::Display;
use std::str::FromStr;

use queue::{Error, ErrorKind};

const PASSWORD: &str = "hunter2";

/// Parses a URL. The error of a rejected one states a reason.
pub fn parsed<Url: FromStr<Err = Error>>(text: &str) -> Option<Url> {
    let rejected = |error: &Error| assert!(error.kind() == ErrorKind::Refused && !error.to_string().is_empty());
    text.parse().inspect_err(rejected).ok()
}

/// Checks that neither the URL nor its error shows a password that ends with `text`.
pub fn check_password<Url: FromStr<Err = Error> + Display>(scheme: &str, text: &str) {
    if text.contains(PASSWORD) {
        return;
    }
    let shown = match format!("{scheme}://me:{PASSWORD}{text}@host:1").parse::<Url>() {
        Ok(url) => url.to_string(),
        Err(error) => error.to_string(),
    };
    assert!(!shown.contains(PASSWORD), "{shown}");
}
