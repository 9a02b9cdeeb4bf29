//! The limits of a gateway.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::{ByteSize, Period};

/// Where a gateway listens, and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// Where clients connect: `host:port`.
    pub listen: String,
    /// The largest body of a request; a larger one is answered with 413.
    pub max_body: ByteSize,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Period,
    /// The longest time an answer is held back (`wait`); who asks for more gets this.
    pub max_wait: Period,
    /// How long requests in flight may take once the gateway is told to stop.
    pub drain_timeout: Period,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            max_body: ByteSize::mib(32),
            body_timeout: Period::seconds(30),
            max_wait: Period::seconds(60),
            drain_timeout: Period::seconds(5),
        }
    }
}
