//! The messages and calls of KEDA's external scaler contract: client and server.

/// KEDA's external scaler contract. The comments in `proto/externalscaler.proto` explain the calls.
pub mod externalscaler {
    #![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
    tonic::include_proto!("externalscaler");
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::externalscaler::{GetMetricSpecResponse, GetMetricsResponse, MetricSpec, MetricValue, ScaledObjectRef};

    #[test]
    fn fields_have_the_numbers_that_kedas_client_reads() {
        let object = ScaledObjectRef {
            name: "a".into(),
            namespace: "b".into(),
            scaler_metadata: [("k".into(), "v".into())].into(),
        };
        assert_eq!(object.encode_to_vec(), b"\x0a\x01a\x12\x01b\x1a\x06\x0a\x01k\x12\x01v");

        let spec = MetricSpec { metric_name: "m".into(), target_size: 2, target_size_float: 1.5 };
        let spec = GetMetricSpecResponse { metric_specs: vec![spec] }.encode_to_vec();
        assert_eq!(spec, b"\x0a\x0e\x0a\x01m\x10\x02\x19\0\0\0\0\0\0\xf8\x3f");

        let value = MetricValue { metric_name: "m".into(), metric_value: 2, metric_value_float: 1.5 };
        let value = GetMetricsResponse { metric_values: vec![value] }.encode_to_vec();
        assert_eq!(value, b"\x0a\x0e\x0a\x01m\x10\x02\x19\0\0\0\0\0\0\xf8\x3f");
    }
}
