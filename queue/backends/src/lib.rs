//! Opens the backend that a URL names: `embedded:FOLDER`, `kafka://…`, `rabbitmq://…` or `redis://…`.

mod existing;
mod open;
mod url;
mod urls;

pub use existing::Existing;
pub use open::{open, open_with_clock};
pub use url::BackendUrl;
pub use urls::BackendUrls;
