//! The limits of a gateway.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::{ByteSize, Period};

/// The limits of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
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
            max_body: ByteSize::mib(32),
            body_timeout: Period::seconds(30),
            max_wait: Period::seconds(60),
            drain_timeout: Period::seconds(5),
        }
    }
}
