//! The limits of a gateway.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::{ByteSize, Faults, Period, TlsSettings};

/// Where a gateway listens, and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// The address that the gateway listens on: `host:port`.
    pub listen: String,
    /// The files for TLS. Without them the gateway serves plain HTTP.
    pub tls: Option<TlsSettings>,
    /// The largest body of a request, as it was sent and decoded. A larger body is answered with 413.
    pub max_body: ByteSize,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Period,
    /// The longest time that a request may wait for a job to end. A longer `wait` is reduced to this.
    pub max_wait: Period,
    /// How long the gateway still accepts connections once it has been asked to stop. `/readyz` answers 503 meanwhile.
    /// Behind a load balancer, use the time in which it removes a gateway that is not ready, such as `5s`.
    pub lame_duck: Period,
    /// How long requests in flight may take once the gateway has been asked to stop.
    pub drain_timeout: Period,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            tls: None,
            max_body: ByteSize::mib(32),
            body_timeout: Period::seconds(30),
            max_wait: Period::seconds(60),
            lame_duck: Period::seconds(0),
            drain_timeout: Period::seconds(5),
        }
    }
}

impl GatewaySettings {
    /// Adds the faults of these settings, whose keys start with `key`.
    pub fn check(&self, key: &str, faults: &mut Faults) {
        if let Some(tls) = &self.tls {
            tls.check(&format!("{key}.tls"), faults);
        }
        if *self.max_body == 0 {
            faults.refuse(format_args!("{key}.max_body"), self.max_body, "is not more than 0B");
        }
        if self.body_timeout.is_zero() {
            faults.refuse(format_args!("{key}.body_timeout"), self.body_timeout, "is not more than 0s");
        }
    }
}
