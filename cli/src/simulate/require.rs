//! Requirements on the figures of simulated runs, for the exit status.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;

use crate::exit::BadAnswer;

/// A bound for a figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Requirement {
    /// The policy whose runs must satisfy it. `None`: every policy.
    policy: Option<String>,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    /// The least share of jobs within the objective, from 0 to 1.
    Attainment(f64),
    /// The largest cost, as a multiple of the upper bound.
    Cost(f64),
}

/// The figures of one run.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) trace: String,
    pub(super) policy: String,
    pub(super) attainment: f64,
    /// `None`: there is no upper bound.
    pub(super) cost: Option<f64>,
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (policy, figure) = match text.rsplit_once(':') {
            Some((policy, figure)) => (Some(policy.trim().to_owned()), figure),
            None => (None, text),
        };
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        let bound = if let Some((name, least)) = figure.split_once(">=") {
            number(least).filter(|share| name.trim() == "attainment" && *share <= 1.0).map(Bound::Attainment)
        } else if let Some((name, most)) = figure.split_once("<=") {
            number(most).filter(|_| name.trim() == "cost").map(Bound::Cost)
        } else {
            None
        };
        let rule = "is not attainment>=SHARE, with a share from 0 to 1, or cost<=FACTOR";
        bound.map(|bound| Self { policy, bound }).ok_or_else(|| format!("{text:?} {rule}"))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attainment(share) => write!(f, "attainment>={share}"),
            Self::Cost(factor) => write!(f, "cost<={factor}"),
        }
    }
}

/// An error that names every run that breaks a requirement.
pub(super) fn check(requirements: &[Requirement], runs: &[Figures]) -> anyhow::Result<()> {
    let mut broken = Vec::new();
    for Requirement { policy, bound } in requirements {
        let of_policy: Vec<&Figures> =
            runs.iter().filter(|run| policy.as_ref().is_none_or(|policy| *policy == run.policy)).collect();
        if let (Some(policy), true) = (policy, of_policy.is_empty()) {
            bail!("--require: no run has the policy {policy:?}");
        }
        for Figures { trace, policy, attainment, cost } in of_policy {
            let (holds, figure) = match bound {
                Bound::Attainment(least) => (attainment >= least, format!("{attainment:.4}")),
                Bound::Cost(most) => match cost {
                    Some(cost) => (cost <= most, format!("{cost:.2}")),
                    None => (false, "unknown without an upper bound".to_owned()),
                },
            };
            if !holds {
                broken.push(format!("{trace}, {policy}: {bound} does not hold: {figure}"));
            }
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(BadAnswer::Bad(broken.join("\n")).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(policy: &str, attainment: f64, cost: Option<f64>) -> Figures {
        Figures { trace: "steady".to_owned(), policy: policy.to_owned(), attainment, cost }
    }

    fn checked(requirement: &str, runs: &[Figures]) -> Result<(), String> {
        check(&[requirement.parse().unwrap()], runs).map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_that_breaks_a_requirement_is_named_with_its_figure() {
        let runs = [run("good", 0.96, Some(1.2)), run("bad", 0.9, None)];
        assert_eq!(checked("good:attainment>=0.95", &runs), Ok(()));
        assert_eq!(checked("good: cost<=1.25", &runs), Ok(()));
        let expected = "steady, bad: attainment>=0.95 does not hold: 0.9000";
        assert_eq!(checked("attainment>=0.95", &runs), Err(expected.to_owned()));
        let expected = "steady, bad: cost<=1.25 does not hold: unknown without an upper bound";
        assert_eq!(checked("cost <= 1.25", &runs), Err(expected.to_owned()));
        assert_eq!(checked("other:cost<=2", &runs), Err("--require: no run has the policy \"other\"".to_owned()));
    }

    #[test]
    fn a_requirement_that_is_none_is_refused() {
        for text in ["", "attainment", "attainment>=95", "attainment<=0.5", "cost>=1", "cost<=-1", "latency>=1"] {
            let error = text.parse::<Requirement>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?} is not attainment>=SHARE")), "{error}");
        }
    }
}
