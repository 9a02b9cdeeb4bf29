//! Which namespace may ask for which pool.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::Faults;
use tonic::Status;

/// In a namespace's list: every pool.
const EVERY_POOL: &str = "*";

/// So much of what a caller said is said back to it.
const MOST_SHOWN: usize = 80;

/// The pools that each namespace may ask for, `*` standing for all of them. Absent: every namespace may ask for every
/// pool.
///
/// A namespace is what the caller says it is. KEDA says the truth of its ScaledObjects, so a list means something where
/// nobody but KEDA can call: by mutual TLS or a NetworkPolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Tenancy(Option<BTreeMap<String, Vec<String>>>);

impl Tenancy {
    /// Whether anything is forbidden at all.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Refuses a namespace that may not ask for `pool`, in the same words whether there is such a pool or not.
    pub(crate) fn check(&self, namespace: &str, pool: &str) -> Result<(), Status> {
        // That no pool is named at all is another fault, and told as such.
        let Some(namespaces) = self.0.as_ref().filter(|_| !pool.is_empty()) else { return Ok(()) };
        let allowed = namespaces.get(namespace).map_or(&[][..], Vec::as_slice);
        if allowed.iter().any(|allowed| allowed == EVERY_POOL || allowed == pool) {
            return Ok(());
        }
        let shown = |text: &str| text.chars().take(MOST_SHOWN).collect::<String>();
        let (namespace, pool) = (shown(namespace), shown(pool));
        Err(Status::permission_denied(format!("namespace {namespace:?} may not ask for pool {pool:?}")))
    }

    /// Adds the pools that are allowed, under `key`, and are none.
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
    fn without_lists_every_namespace_may_ask_for_every_pool() {
        assert!(Tenancy::default().check("anybody", "digits").is_ok());
        assert!(Tenancy(Some(BTreeMap::new())).check("anybody", "digits").is_err());
    }

    /// C17.
    #[test]
    fn a_namespace_may_ask_for_the_pools_in_its_list() {
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
                let text = format!("namespace {namespace:?} may not ask for pool {pool:?}");
                assert_eq!(status.message(), text);
            }
        }
        let long = tenancy().check("team-b", &"x".repeat(10_000)).unwrap_err();
        assert!(long.message().len() < 200, "{long}");
    }

    #[test]
    fn a_pool_that_is_allowed_and_is_none_is_a_fault() {
        let mut faults = Faults::default();
        tenancy().check_pools("scaler.namespaces", |pool| pool == "letters", &mut faults);
        assert_eq!(faults.to_string(), "scaler.namespaces.team-a: \"digits\" is neither a configured pool nor \"*\"");
    }
}
