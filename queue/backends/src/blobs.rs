//! Opens the blob store that a URL names.

mod http;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use queue::{Blobs, Error, ErrorKind, Result};
use url::Url;

use self::http::Connector;

/// The client repeats a failed request for this time. After that, the caller decides.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RETRIES: usize = 2;

/// The URL of a bucket or container, with an optional prefix: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
/// `az://CONTAINER/PREFIX`. Credentials come from the environment, so the URL has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobUrl(Url);

impl FromStr for BlobUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why: &str| Err(Error::new(ErrorKind::Refused, why));
        let Ok(url) = Url::parse(text) else {
            return refused("is not a URL: write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX");
        };
        if !matches!(url.scheme(), "s3" | "gs" | "az") || url.host_str().is_none_or(str::is_empty) {
            return refused(&format!(
                "{:?} is not the scheme of a blob store with a bucket: write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or \
                 az://CONTAINER/PREFIX",
                url.scheme()
            ));
        }
        let has_more = !url.username().is_empty() || url.password().is_some() || url.port().is_some();
        if has_more || url.query().is_some() || url.fragment().is_some() {
            return refused("has more than a bucket and a prefix: endpoint and credentials come from the environment");
        }
        if let Err(error) = Path::from_url_path(url.path()) {
            return refused(&format!("has a prefix that is no path: {error}"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for BlobUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Opens the blob store at `url`, with the credentials and the endpoint of the environment. Does not wait for the server.
pub fn open_blobs(url: &BlobUrl, inline_limit_bytes: usize) -> Result<Blobs> {
    let store = store(url).map_err(|error| Error::caused(ErrorKind::Denied, format_args!("{url}"), error))?;
    Ok(Blobs::of_server(store, inline_limit_bytes))
}

fn store(url: &BlobUrl) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = RetryConfig { max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
    let prefix = Path::from_url_path(url.0.path())?;
    let bucket = format!("{}://{}", url.0.scheme(), url.0.host_str().unwrap_or_default());
    let store: Arc<dyn ObjectStore> = match url.0.scheme() {
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(bucket).with_http_connector(Connector);
            Arc::new(builder.with_retry(retry).build()?)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(bucket).with_http_connector(Connector);
            Arc::new(builder.with_retry(retry).build()?)
        }
        _ => {
            let builder = AmazonS3Builder::from_env().with_url(bucket).with_http_connector(Connector);
            Arc::new(builder.with_retry(retry).build()?)
        }
    };
    Ok(if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_a_blob_store_is_a_bucket_and_a_prefix() {
        for text in ["s3://bucket", "s3://bucket/a/b", "gs://bucket/a", "az://container/a"] {
            assert_eq!(text.parse::<BlobUrl>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("./data/blobs", "is not a URL"),
            ("ftp://host/a", "\"ftp\" is not the scheme"),
            ("s3:///a", "with a bucket"),
            ("s3://key:secret@bucket", "come from the environment"),
            ("az://container?sig=secret", "come from the environment"),
        ] {
            let error = text.parse::<BlobUrl>().unwrap_err();
            assert!(error.to_string().contains(why) && !error.to_string().contains("secret"), "{text}: {error}");
        }
    }
}
