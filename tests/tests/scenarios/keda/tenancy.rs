//! The pools that a namespace may use.

use super::*;

const LISTS: &str = "
scaler:
  sample_interval: 20ms
  namespaces: {team-a: [echo], ops: ['*'], idle: []}
pools:
  echo: {model: echo}
  other: {model: echo}
";

fn from(namespace: &str, pool: &str) -> ScaledObjectRef {
    ScaledObjectRef { namespace: namespace.to_owned(), ..object(pool) }
}

/// C17.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_gets_answers_about_its_own_pools_and_no_information_about_others() {
    let system = System::new(LISTS).unwrap();
    let scaler = system.scaler().await.unwrap();
    let mut keda = Keda::of(&scaler).await;
    for (namespace, pool) in [("team-a", "echo"), ("ops", "echo"), ("ops", "other")] {
        let object = from(namespace, pool);
        let name = keda.spec(&object).await.unwrap().metric_name;
        for (call, status) in keda.all_five(&object, &name).await {
            assert!(status.is_none(), "{namespace} {pool} {call}: {status:?}");
        }
    }
    // An unknown pool is refused with the same message as a forbidden one.
    for (namespace, pool) in [
        ("team-a", "other"),
        ("team-a", "nosuch"),
        ("team-a", "*"),
        ("idle", "echo"),
        ("team-b", "echo"),
        ("team-b", "nosuch"),
        ("", "echo"),
    ] {
        let expected = format!("namespace {namespace:?} may not use pool {pool:?}");
        for (call, status) in keda.all_five(&from(namespace, pool), "millrace-echo").await {
            let status = status.expect(call);
            assert_eq!((status.code(), status.message()), (Code::PermissionDenied, expected.as_str()), "{call}");
        }
    }
    assert_eq!(keda.spec(&from("ops", "nosuch")).await.unwrap_err().code(), UNKNOWN_POOL);
}

/// C17.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_pool_in_the_configuration_is_a_fault() {
    let system = System::new(&LISTS.replace("[echo]", "[echo, ecko]")).unwrap();
    let (status, output) = system.start("scaler", &[]).unwrap().ended().await.unwrap();
    assert!(!status.success());
    let fault = "scaler.namespaces.team-a: \"ecko\" is neither a configured pool nor \"*\"";
    assert!(output.contains(fault), "{output}");
}
