//! A URL that may hold a password.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::files;

/// The characters of a part that stand for themselves: the unreserved ones of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A URL that may hold a password. `${file:PATH}` in it is the contents of a file, which may be the whole URL or a part.
/// In a part, all characters with a meaning in a URL are written as `%XX`.
///
/// The files are read at each use, because a password may be renewed. `Debug` and serialisation show `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The URL with the contents of its files. The error names the file and the rule, and never has the contents.
    pub fn read(&self) -> Result<String, String> {
        let url = files::expanded(&self.0, |part| utf8_percent_encode(part, ENCODED).to_string())?;
        match self.only_file() {
            Some(path) if url.contains(|c: char| c.is_control() || c.is_whitespace()) => {
                Err(format!("{path:?} has a space or several lines, which a URL does not have"))
            }
            _ => Ok(url),
        }
    }

    /// Whether a part of it is in a file.
    pub fn reads_files(&self) -> bool {
        files::has_reference(&self.0)
    }

    /// The path of the file that holds the whole URL.
    pub fn only_file(&self) -> Option<&str> {
        files::only_file(&self.0)
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl JsonSchema for SecretUrl {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SecretUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "string" });
        schema.insert(files::KEEPS_REFERENCES.to_owned(), true.into());
        schema
    }
}
