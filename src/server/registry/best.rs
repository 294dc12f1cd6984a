//! The best of several that compete for a name. Pure.

use protocol::registry::Judged;
use protocol::spec::Goal;

use super::judge;

/// Of those that were measured the best by a goal, its value, and how many there are; none of fewer than two. Of equal ones
/// it is the first, and what is no number is never the best.
pub(crate) fn best<T>(
    goal: Goal,
    measured: impl IntoIterator<Item = (T, f64)>,
) -> Option<(T, f64, u64)> {
    let mut best: Option<(T, f64)> = None;
    let mut count = 0;
    for (one, value) in measured.into_iter().filter(|(_, value)| !value.is_nan()) {
        count += 1;
        let better = best
            .as_ref()
            .is_none_or(|(_, so_far)| judge(goal, *so_far, value) == Judged::Better);
        if better {
            best = Some((one, value));
        }
    }
    let (one, value) = best.filter(|_| count > 1)?;
    Some((one, value, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_told_of_several_numbers_only() {
        let (max, min) = (Goal::Maximize, Goal::Minimize);
        let of = [("a", 0.9), ("b", f64::NAN), ("c", 0.95), ("d", 0.95)];
        assert_eq!(best(max, of), Some(("c", 0.95, 3)));
        assert_eq!(best(min, of), Some(("a", 0.9, 3)));
        assert_eq!(best(max, [("a", 0.9), ("b", f64::NAN)]), None);
        let endless = [("a", f64::INFINITY), ("b", 1.0)];
        assert_eq!(best(max, endless), Some(("a", f64::INFINITY, 2)));
    }
}
