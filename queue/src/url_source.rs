//! The source of a URL that can change.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// Reads the text of a URL again. A driver does so before it opens a connection, because the password may have been
/// renewed.
#[derive(Clone)]
pub struct UrlSource(Arc<dyn Fn() -> Result<String> + Send + Sync>);

impl UrlSource {
    /// A source that calls `read`, which may read small files.
    pub fn new(read: impl Fn() -> Result<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The URL as it is now. A text that is no URL is `Denied`, because a corrected file makes the next call succeed.
    pub fn read<U: FromStr<Err = Error>>(&self) -> Result<U> {
        let url = (self.0)().and_then(|text| text.parse());
        url.map_err(|error| Error::caused(ErrorKind::Denied, "cannot read the URL for a new connection", error))
    }
}

/// Two URLs with the same text are equal, whatever their sources are.
impl PartialEq for UrlSource {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for UrlSource {}

impl fmt::Debug for UrlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlSource")
    }
}
