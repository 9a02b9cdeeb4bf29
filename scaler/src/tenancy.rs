//! Which namespace may use which pool.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::Faults;
use tonic::Status;

/// Stands for every pool in the list of a namespace.
const EVERY_POOL: &str = "*";

/// The maximum length of a client's text in an error message, in characters.
const MAX_SHOWN: usize = 80;

/// The pools that each namespace may use. `*` stands for all pools. If this key is missing, every namespace may use
/// every pool.
///
/// The namespace comes from the request. KEDA sends the namespace of the ScaledObject, but another client could send
/// any name. So these lists protect pools only if other clients cannot connect, by mutual TLS or a NetworkPolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Tenancy(Option<BTreeMap<String, Vec<String>>>);

impl Tenancy {
    /// Whether every namespace may use every pool.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Rejects a namespace that may not use `pool`. The message does not reveal whether the pool exists.
    pub(crate) fn check(&self, namespace: &str, pool: &str) -> Result<(), Status> {
        // A missing pool is a different fault, which the trigger reports.
        let Some(namespaces) = self.0.as_ref().filter(|_| !pool.is_empty()) else { return Ok(()) };
        let allowed = namespaces.get(namespace).map_or(&[][..], Vec::as_slice);
        if allowed.iter().any(|allowed| allowed == EVERY_POOL || allowed == pool) {
            return Ok(());
        }
        let shown = |text: &str| text.chars().take(MAX_SHOWN).collect::<String>();
        let (namespace, pool) = (shown(namespace), shown(pool));
        Err(Status::permission_denied(format!("namespace {namespace:?} may not use pool {pool:?}")))
    }

    /// Adds a fault for every listed pool that does not exist. `key` is the key of these lists.
    pub fn check_pools(&self, key: &str, is_pool: impl Fn(&str) -> bool, faults: &mut Faults) {
        for (namespace, pools) in self.0.iter().flatten() {
            for pool in pools.iter().filter(|pool| *pool != EVERY_POOL && !is_pool(pool)) {
                let rule = "is neither a configured pool nor \"*\"";
                faults.refuse(format_args!("{key}.{namespace}"), format_args!("{pool:?}"), rule);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenancy() -> Tenancy {
        let lists = [("team-a", vec!["digits"]), ("ops", vec!["*"]), ("idle", vec![])];
        let owned =
            |(name, pools): (&str, Vec<&str>)| (name.to_owned(), pools.into_iter().map(str::to_owned).collect());
        Tenancy(Some(lists.into_iter().map(owned).collect()))
    }

    #[test]
    fn without_lists_every_namespace_may_use_every_pool() {
        assert!(Tenancy::default().check("team-c", "digits").is_ok());
        assert!(Tenancy(Some(BTreeMap::new())).check("team-c", "digits").is_err());
    }

    /// C17.
    #[test]
    fn a_namespace_may_use_the_pools_in_its_list() {
        for (namespace, pool, allowed) in [
            ("team-a", "digits", true),
            ("team-a", "letters", false),
            ("team-a", "nosuch", false),
            ("team-a", "*", false),
            ("ops", "letters", true),
            ("idle", "digits", false),
            ("team-b", "digits", false),
            ("", "digits", false),
            ("team-b", "", true),
        ] {
            let answer = tenancy().check(namespace, pool);
            assert_eq!(answer.is_ok(), allowed, "{namespace} {pool}");
            if let Err(status) = answer {
                assert_eq!(status.code(), tonic::Code::PermissionDenied);
                let text = format!("namespace {namespace:?} may not use pool {pool:?}");
                assert_eq!(status.message(), text);
            }
        }
        let long = tenancy().check("team-b", &"x".repeat(10_000)).unwrap_err();
        assert!(long.message().len() < 200, "{long}");
    }

    #[test]
    fn a_listed_pool_that_does_not_exist_is_a_fault() {
        let mut faults = Faults::default();
        tenancy().check_pools("scaler.namespaces", |pool| pool == "letters", &mut faults);
        assert_eq!(faults.to_string(), "scaler.namespaces.team-a: \"digits\" is neither a configured pool nor \"*\"");
    }
}
