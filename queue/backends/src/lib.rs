//! Opens the backend that a URL names: `embedded:FOLDER`, `kafka://…`, `rabbitmq://…` or `redis://…`. Also opens the blob
//! store that a URL names: `s3://…`, `gs://…` or `az://…`.

mod blobs;
mod existing;
mod open;
mod url;
mod urls;

pub use blobs::{BlobUrl, open_blobs};
pub use existing::Existing;
pub use open::{open, open_with_clock};
pub use url::BackendUrl;
pub use urls::BackendUrls;
