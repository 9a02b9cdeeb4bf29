//! What crosses the wire: KEDA's external scaler contract, client and server.

/// KEDA's external scaler contract. What each call means is said in `proto/externalscaler.proto`.
///
/// The integer fields are marked deprecated by KEDA, and still are all that its clients up to 2.16 read.
pub mod externalscaler {
    #![allow(missing_docs, unreachable_pub, deprecated, clippy::all, reason = "generated")]
    tonic::include_proto!("externalscaler");
}
