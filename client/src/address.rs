//! The URLs that this crate can connect to.

use reqwest::Url;

use crate::Error;

/// The base URL of a server, such as `http://127.0.0.1:8080`.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    base: Url,
    /// As the caller wrote it, without a slash at the end.
    text: String,
}

impl Address {
    /// Refuses a text that is not an `http://` or `https://` URL, or has a query.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let base = Url::parse(text).map_err(|cause| Error::NotAUrl { text: text.to_owned(), cause })?;
        if !matches!(base.scheme(), "http" | "https") || base.query().is_some() || base.fragment().is_some() {
            return Err(Error::NotHttp { text: text.to_owned() });
        }
        Ok(Self { base, text: text.trim_end_matches('/').to_owned() })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL of a path that the caller has encoded already; it may have a query.
    pub(crate) fn join(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.text)
    }

    /// The URL of a path below the base. Each segment is percent-encoded, so an id or a name cannot leave its place.
    pub(crate) fn path(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // Every http URL has a path, so this never fails.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_http_or_https_url_is_an_address() {
        assert!(Address::parse("https://gateway").unwrap().is_https());
        assert_eq!(Address::parse("http://127.0.0.1:8080/").unwrap().as_str(), "http://127.0.0.1:8080");
        for bad in ["127.0.0.1:8080", "ftp://gateway", "http://gateway/?a=1", "gateway"] {
            let error = Address::parse(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?} is not a ")), "{error}");
        }
    }

    #[test]
    fn segments_are_encoded_and_follow_the_path_of_the_base() {
        let address = Address::parse("http://proxy/millrace/").unwrap();
        assert_eq!(address.path(&["v1", "jobs", "a/b?c"]).as_str(), "http://proxy/millrace/v1/jobs/a%2Fb%3Fc");
        assert_eq!(address.join("/v1/dead?limit=1"), "http://proxy/millrace/v1/dead?limit=1");
        let address = Address::parse("http://127.0.0.1:8080").unwrap();
        assert_eq!(address.path(&["livez"]).as_str(), "http://127.0.0.1:8080/livez");
    }
}
