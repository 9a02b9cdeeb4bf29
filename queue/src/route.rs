//! Topics and queues of a pool whose names do not follow from the pool's name.

use std::collections::BTreeMap;

use crate::PoolName;

/// Further sources of a pool's jobs, and the destination of its results. Only Kafka and RabbitMQ have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// Topics (Kafka) or queues (RabbitMQ) whose messages are jobs of the pool too, of class standard.
    pub jobs_from: Vec<String>,
    /// The topic or queue that gets an event for each job that ends.
    pub results_to: Option<String>,
}

/// The routes of all pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(BTreeMap<PoolName, Route>);

/// An invalid name in a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {name:?} {why}")]
pub struct RouteError {
    /// Its key in the configuration: `pools.POOL.jobs_from` or `pools.POOL.results_to`.
    pub key: String,
    /// The name.
    pub name: String,
    /// The rule that it breaks.
    pub why: String,
}

/// All invalid names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(RouteError::to_string).collect::<Vec<_>>().join("; "))]
pub struct RouteErrors(pub Vec<RouteError>);

impl RouteErrors {
    /// `value` if there are no errors.
    pub fn none_or<T>(errors: Vec<RouteError>, value: T) -> Result<T, Self> {
        if errors.is_empty() { Ok(value) } else { Err(Self(errors)) }
    }
}

impl Routes {
    /// Rejects a source that two pools share, since either pool could take its jobs. Rejects routes on which the
    /// results of a pool become jobs of the same pool, because such jobs would never end.
    pub fn new(routes: BTreeMap<PoolName, Route>) -> Result<Self, RouteErrors> {
        let routes = Self(routes);
        let mut errors = Vec::new();
        let mut takers: BTreeMap<&str, &PoolName> = BTreeMap::new();
        for (key, name) in routes.names() {
            if name.is_empty() || name.len() > 249 || name.chars().any(char::is_control) {
                let why = "is not the name of a topic or queue, of 1 to 249 bytes".to_owned();
                errors.push(RouteError { key, name: name.to_owned(), why });
            }
        }
        for (pool, route) in &routes.0 {
            for name in &route.jobs_from {
                if let Some(taker) = takers.insert(name, pool) {
                    let why = format!("is a source of jobs already, in pools.{taker}.jobs_from");
                    errors.push(RouteError { key: format!("pools.{pool}.jobs_from"), name: name.clone(), why });
                }
            }
        }
        let next = |pool: &PoolName| takers.get(routes.results_to(pool)?).copied();
        for (pool, route) in &routes.0 {
            // The search needs no more steps than there are pools: a longer path would visit a pool twice.
            let way = std::iter::successors(next(pool), |pool| next(pool)).take(routes.0.len());
            if let Some(name) = route.results_to.as_ref().filter(|_| way.into_iter().any(|other| other == pool)) {
                let why = "would return the results of the pool to the same pool, as jobs".to_owned();
                errors.push(RouteError { key: format!("pools.{pool}.results_to"), name: name.clone(), why });
            }
        }
        RouteErrors::none_or(errors, routes)
    }

    /// Further sources of the jobs of `pool`.
    pub fn jobs_from(&self, pool: &PoolName) -> &[String] {
        self.0.get(pool).map_or(&[], |route| &route.jobs_from)
    }

    /// The destination of the results of `pool`.
    pub fn results_to(&self, pool: &PoolName) -> Option<&str> {
        self.0.get(pool)?.results_to.as_deref()
    }

    /// Each name with its key in the configuration.
    pub fn names(&self) -> impl Iterator<Item = (String, &str)> {
        self.0.iter().flat_map(|(pool, route)| {
            let from = route.jobs_from.iter().map(move |name| (format!("pools.{pool}.jobs_from"), name.as_str()));
            from.chain(route.results_to.iter().map(move |name| (format!("pools.{pool}.results_to"), name.as_str())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(of: &[(&str, &[&str], Option<&str>)]) -> Result<Routes, RouteErrors> {
        let route = |(pool, from, to): &(&str, &[&str], Option<&str>)| {
            let jobs_from = from.iter().map(|name| (*name).to_owned()).collect();
            (pool.parse().unwrap(), Route { jobs_from, results_to: to.map(str::to_owned) })
        };
        Routes::new(of.iter().map(route).collect())
    }

    #[test]
    fn a_source_that_two_pools_share_and_a_circle_of_results_are_refused() {
        routes(&[("a", &["shots", "scans"], Some("results")), ("b", &[], Some("results"))]).unwrap();
        routes(&[("a", &["shots"], Some("faces")), ("b", &["faces"], Some("names")), ("c", &["names"], None)]).unwrap();
        for (of, why) in [
            (
                &[("a", &["x"][..], None), ("b", &["x"], None)][..],
                "pools.b.jobs_from: \"x\" is a source of jobs already, in pools.a.",
            ),
            (&[("a", &["x"], Some("x"))], "pools.a.results_to: \"x\" would return the results"),
            (
                &[("a", &["x"], Some("y")), ("b", &["y"], Some("x"))],
                "pools.a.results_to: \"y\" would return the results",
            ),
            (&[("a", &["x", "x"], None)], "pools.a.jobs_from: \"x\" is a source of jobs already"),
            (&[("a", &[""], None)], "is not the name of a topic or queue"),
            (&[("a", &["", "x"], Some("x"))], "bytes; pools.a.results_to: \"x\" would return the results"),
        ] {
            let error = routes(of).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_pool_without_a_route_has_only_its_own_names() {
        let routes = routes(&[("a", &["shots"], None)]).unwrap();
        let pool = "b".parse().unwrap();
        assert_eq!((routes.jobs_from(&pool), routes.results_to(&pool)), (&[][..], None));
        assert_eq!(routes.jobs_from(&"a".parse().unwrap()), ["shots"]);
    }
}
