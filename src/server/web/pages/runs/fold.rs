//! A curve folded for a chart while it is read: points that lie side by side are one group with its least and its highest
//! value. Memory does not grow with the points. Pure.

use std::collections::BTreeMap;

use super::chart::Spot;
use crate::store::metrics::Point;

/// A curve has at most so many groups, each with two values.
const MOST: usize = 250;

/// Points side by side.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Group {
    /// The first and the last step or time in it.
    reach: (i64, i64),
    /// The least and the highest finite value.
    values: Option<(f64, f64)>,
}

impl Group {
    fn of(x: i64, value: f64) -> Self {
        Self {
            reach: (x, x),
            values: value.is_finite().then_some((value, value)),
        }
    }

    fn join(&mut self, other: &Self) {
        self.reach.0 = self.reach.0.min(other.reach.0);
        self.reach.1 = self.reach.1.max(other.reach.1);
        self.values = match (self.values, other.values) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (some, None) | (None, some) => some,
        };
    }
}

/// Groups along one axis, each of the same width, a power of two.
#[derive(Debug, Default)]
struct Along {
    /// The width's exponent.
    shift: u32,
    groups: BTreeMap<i64, Group>,
}

impl Along {
    fn add(&mut self, x: i64, value: f64) {
        Self::put(&mut self.groups, x >> self.shift, Group::of(x, value));
        while self.groups.len() > MOST {
            self.shift += 1;
            let narrow = std::mem::take(&mut self.groups);
            for (place, group) in narrow {
                Self::put(&mut self.groups, place >> 1, group);
            }
        }
    }

    fn put(groups: &mut BTreeMap<i64, Group>, place: i64, group: Group) {
        let there = groups.entry(place);
        there.and_modify(|g| g.join(&group)).or_insert(group);
    }

    fn reach(&self) -> Option<(i64, i64)> {
        let first = self.groups.first_key_value()?.1.reach.0;
        Some((first, self.groups.last_key_value()?.1.reach.1))
    }
}

/// What points are laid out by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Their step.
    Step,
    /// The time since the curve's first point, in milliseconds.
    Time,
}

/// A curve, folded along both axes.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// How many points it has.
    pub(super) points: u64,
    /// How many of them are no finite number.
    pub(super) odd: u64,
    steps: Along,
    times: Along,
}

impl Folded {
    pub(super) fn add(&mut self, point: &Point) {
        self.points += 1;
        self.odd += u64::from(!point.value.is_finite());
        self.steps.add(point.step, point.value);
        self.times.add(point.at, point.value);
    }

    fn along(&self, axis: Axis) -> &Along {
        match axis {
            Axis::Step => &self.steps,
            Axis::Time => &self.times,
        }
    }

    /// Whether an axis tells its points apart.
    pub(super) fn is_told_by(&self, axis: Axis) -> bool {
        self.along(axis)
            .reach()
            .is_some_and(|(low, high)| low < high)
    }

    /// The groups from left to right.
    pub(super) fn spots(&self, axis: Axis) -> Vec<Spot> {
        let along = self.along(axis);
        let start = match (axis, along.reach()) {
            (Axis::Time, Some((first, _))) => first as f64,
            (Axis::Step, _) | (Axis::Time, None) => 0.0,
        };
        let spot = |group: &Group| Spot {
            x: (group.reach.0 as f64 - start, group.reach.1 as f64 - start),
            values: group.values,
        };
        along.groups.values().map(spot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(points: impl IntoIterator<Item = (i64, i64, f64)>) -> Folded {
        let mut folded = Folded::default();
        for (at, step, value) in points {
            folded.add(&Point {
                name: String::new(),
                value,
                at,
                step,
            });
        }
        folded
    }

    #[test]
    fn a_long_curve_keeps_its_least_and_its_highest_in_few_groups() {
        let value = |n: i64| match n {
            12_345 => -7.0,
            54_321 => 1e300,
            n => (n as f64).sin(),
        };
        let curve = folded((0..100_000).map(|n| (1_700_000_000_000 + 7 * n, n, value(n))));
        assert_eq!(curve.points, 100_000);
        for (axis, end) in [(Axis::Step, 99_999.0), (Axis::Time, 699_993.0)] {
            let spots = curve.spots(axis);
            assert!((100..=MOST).contains(&spots.len()), "{}", spots.len());
            let values: Vec<(f64, f64)> = spots.iter().filter_map(|spot| spot.values).collect();
            assert_eq!(values.iter().map(|v| v.0).fold(f64::MAX, f64::min), -7.0);
            assert_eq!(values.iter().map(|v| v.1).fold(f64::MIN, f64::max), 1e300);
            assert_eq!((spots[0].x.0, spots[spots.len() - 1].x.1), (0.0, end));
            assert!(spots.windows(2).all(|two| two[0].x.1 < two[1].x.0));
        }
    }

    #[test]
    fn a_short_curve_is_as_it_is() {
        let curve = folded([
            (0, 3, 1.0),
            (5, 1, 2.0),
            (9, 2, f64::NAN),
            (9, 2, f64::INFINITY),
        ]);
        let spots = curve.spots(Axis::Step);
        let shown: Vec<_> = spots.iter().map(|spot| (spot.x.0, spot.values)).collect();
        assert_eq!(
            shown,
            [
                (1.0, Some((2.0, 2.0))),
                (2.0, None),
                (3.0, Some((1.0, 1.0)))
            ]
        );
        assert_eq!(curve.odd, 2);
    }

    #[test]
    fn whatever_a_client_says_has_a_place() {
        let ends = folded([(i64::MIN, i64::MIN, 1.0), (i64::MAX, i64::MAX, 2.0)]);
        assert_eq!(ends.spots(Axis::Step).len(), 2);
        let mut wide = folded((0..63).map(|n| (1 << n, -(1 << n), 0.5)));
        for n in 0..10_000 {
            wide.add(&Point {
                name: String::new(),
                value: 0.5,
                at: n * 1_000_000_007,
                step: n,
            });
        }
        for axis in [Axis::Step, Axis::Time] {
            assert!(wide.spots(axis).len() <= MOST);
        }
    }

    #[test]
    fn an_axis_that_says_nothing_is_known() {
        let stepless = folded([(1, 0, 1.0), (2, 0, 2.0)]);
        assert!(!stepless.is_told_by(Axis::Step) && stepless.is_told_by(Axis::Time));
        assert!(!Folded::default().is_told_by(Axis::Step));
    }
}
