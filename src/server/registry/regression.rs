//! Whether a metric became worse than its pipeline file allows. Pure.

use std::collections::BTreeMap;

use protocol::registry::Judged;
use protocol::report::MetricValue;
use protocol::spec::{Goal, MetricSpec};
use protocol::{Failure, FailureKind};

use crate::report::figure;

/// A metric that is worse than allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    /// Its name.
    pub metric: String,
    /// Its value in the last success on the base branch.
    pub base: f64,
    /// Its value now; none: the job did not report it any more.
    pub now: Option<f64>,
    /// How much worse it may be.
    pub allowed: f64,
}

impl Regression {
    /// The failure that it makes of a job that ran well otherwise.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let Self {
            metric,
            base,
            now,
            allowed,
        } = self;
        let (base, allowed) = (figure(*base), figure(*allowed));
        let message = match now {
            Some(now) => format!(
                "{metric} is {} and was {base} on the base branch; at most {allowed} worse is allowed",
                figure(*now)
            ),
            None => format!("{metric} was {base} on the base branch and is not reported any more"),
        };
        Failure::new(FailureKind::MetricRegressed, message)
            .hint("If that is meant, raise max_regression in .trainyard.yml or take it away")
    }
}

/// How `now` is to be seen beside `base`: NaN is worse than every number.
#[must_use]
pub fn judge(goal: Goal, base: f64, now: f64) -> Judged {
    match (base.is_nan(), now.is_nan()) {
        (true, true) => return Judged::Same,
        (true, false) => return Judged::Better,
        (false, true) => return Judged::Worse,
        (false, false) => {}
    }
    let better = match goal {
        Goal::Maximize => now > base,
        Goal::Minimize => now < base,
    };
    if better {
        Judged::Better
    } else if now == base {
        Judged::Same
    } else {
        Judged::Worse
    }
}

/// The first metric, by name, that is worse than its `max_regression` allows. `base` are the metrics of
/// the last success on the base branch: where it has none, or NaN, there is nothing to fall behind.
#[must_use]
pub fn regression(
    spec: &BTreeMap<String, MetricSpec>,
    base: &[MetricValue],
    now: &[MetricValue],
) -> Option<Regression> {
    let value =
        |list: &[MetricValue], name: &str| list.iter().find(|m| m.name == name).map(|m| m.value);
    spec.iter().find_map(|(name, spec)| {
        let allowed = spec.max_regression?;
        let base = value(base, name).filter(|base| !base.is_nan())?;
        let now = value(now, name);
        let worse = match now {
            None => true,
            Some(now) if judge(spec.goal, base, now) != Judged::Worse => false,
            // Rounding must not decide: 0.96 - 0.95 is a little more than 0.01.
            Some(now) => {
                let slack = f64::EPSILON * 4.0 * base.abs();
                now.is_nan() || (now - base).abs() > allowed + slack
            }
        };
        worse.then(|| Regression {
            metric: name.clone(),
            base,
            now,
            allowed,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(goal: Goal, allowed: Option<f64>) -> BTreeMap<String, MetricSpec> {
        let spec = MetricSpec {
            goal,
            max_regression: allowed,
        };
        BTreeMap::from([("m".to_owned(), spec)])
    }

    fn values(value: f64) -> Vec<MetricValue> {
        vec![MetricValue {
            name: "m".into(),
            value,
            step: 0,
        }]
    }

    fn regressed(goal: Goal, allowed: f64, base: f64, now: f64) -> bool {
        regression(&spec(goal, Some(allowed)), &values(base), &values(now)).is_some()
    }

    #[test]
    fn only_worse_than_allowed_counts() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for (goal, allowed, base, now, expected) in [
            (Goal::Maximize, 0.01, 0.96, 0.95, false),
            (Goal::Maximize, 0.01, 0.96, 0.9499, true),
            (Goal::Maximize, 0.0, 0.96, 0.96, false),
            (Goal::Maximize, 0.0, 0.96, 0.97, false),
            (Goal::Maximize, 0.0, 0.96, 0.959, true),
            (Goal::Minimize, 0.1, 1.0, 1.1, false),
            (Goal::Minimize, 0.1, 1.0, 1.2, true),
            (Goal::Minimize, 0.1, 1.0, 0.5, false),
            (Goal::Minimize, 0.1, 1.0, nan, true),
            (Goal::Minimize, 0.1, 1.0, inf, true),
            (Goal::Minimize, 0.1, nan, 5.0, false),
            (Goal::Minimize, 0.1, inf, inf, false),
            (Goal::Maximize, inf, 1.0, -9.0, false),
        ] {
            assert_eq!(
                regressed(goal, allowed, base, now),
                expected,
                "{goal:?} {base} {now}"
            );
        }
    }

    #[test]
    fn without_a_base_or_a_bound_nothing_regresses() {
        assert_eq!(
            regression(&spec(Goal::Maximize, Some(0.0)), &[], &values(0.0)),
            None
        );
        assert_eq!(
            regression(&spec(Goal::Maximize, None), &values(1.0), &values(0.0)),
            None
        );
    }

    #[test]
    fn the_failure_is_the_users_and_says_the_numbers() {
        let found = regression(
            &spec(Goal::Maximize, Some(0.01)),
            &values(0.962),
            &values(0.93),
        );
        let failure = found.unwrap().failure();
        assert_eq!(failure.owner(), protocol::Owner::User);
        assert_eq!(
            failure.message,
            "m is 0.93 and was 0.962 on the base branch; at most 0.01 worse is allowed"
        );
        let gone = regression(&spec(Goal::Maximize, Some(0.01)), &values(0.962), &[]).unwrap();
        assert_eq!(
            gone.failure().message,
            "m was 0.962 on the base branch and is not reported any more"
        );
    }
}
