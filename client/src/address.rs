//! Other processes of this program, as its commands speak to them.

use anyhow::{Context, bail};

/// Refuses a gateway that this program could not talk to.
pub(crate) fn gateway_url(text: &str) -> anyhow::Result<String> {
    plain_url("--gateway", text)
}

/// Refuses an address, given as `flag`, that this program could not talk to.
pub(crate) fn plain_url(flag: &str, text: &str) -> anyhow::Result<String> {
    let url = reqwest::Url::parse(text).with_context(|| format!("{flag}: {text:?} is not a URL"))?;
    if url.scheme() != "http" || url.query().is_some() || url.fragment().is_some() {
        bail!("{flag}: {text:?} is not a plain http:// URL such as http://127.0.0.1:8080");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// The error at the bottom says what happened ("connection refused"); those above it only that something did.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_http_url_is_a_gateway() {
        assert_eq!(gateway_url("http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080");
        for bad in ["127.0.0.1:8080", "https://gateway", "http://gateway/?a=1", "gateway"] {
            let error = gateway_url(bad).unwrap_err().to_string();
            assert!(error.starts_with("--gateway: "), "{error}");
        }
    }
}
