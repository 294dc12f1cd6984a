//! Where an axis has its marks, and what they say. Pure.

use protocol::Span;

/// How an axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// In equal steps.
    Linear,
    /// In equal steps with nothing between whole numbers.
    Whole,
    /// In powers of ten; only what is above zero has a place.
    Log,
    /// In milliseconds since the start.
    Elapsed,
}

/// An axis from `low` to `high`, which differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) scale: Scale,
}

/// Nothing further out is drawn: differences would be infinite.
const FURTHEST: f64 = 1e300;
/// Lengths of time between marks, in milliseconds.
const SPANS: [f64; 20] = [
    1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5, 1728e5,
    6048e5, 25_920e5, 77_760e5, 315_360e5,
];

impl Axis {
    /// An axis that has room for all from `low` to `high`.
    pub(super) fn new(low: f64, high: f64, scale: Scale) -> Self {
        let low = low.clamp(-FURTHEST, FURTHEST);
        let high = high.clamp(-FURTHEST, FURTHEST);
        if low < high {
            return Self { low, high, scale };
        }
        let (low, high) = match scale {
            Scale::Linear | Scale::Whole => {
                let room = (low.abs() * 0.1).max(0.5);
                (low - room, high + room)
            }
            Scale::Log => (low / 2.0, high * 2.0),
            Scale::Elapsed => (low, high + 1_000.0),
        };
        Self { low, high, scale }
    }

    /// Where a value lies: 0 at the low end, 1 at the high one; none where it has no place.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let value = value.clamp(-FURTHEST, FURTHEST);
        let along = |low: f64, high: f64, value: f64| (value - low) / (high - low);
        match self.scale {
            Scale::Linear | Scale::Whole | Scale::Elapsed => {
                Some(along(self.low, self.high, value))
            }
            Scale::Log if value > 0.0 => {
                Some(along(self.low.log10(), self.high.log10(), value.log10()))
            }
            Scale::Log => None,
        }
    }

    /// Three marks or more within it, where they fit: where each lies, and its words.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let (marks, step) = match self.scale {
            Scale::Linear => self.even(round_step),
            Scale::Whole => self.even(|rough| round_step(rough).max(1.0)),
            Scale::Elapsed => self.even(span_step),
            Scale::Log => match self.powers() {
                // Within one power of ten there are too few of them.
                few if few.len() < 3 => self.even(round_step),
                powers => (powers, 0.0),
            },
        };
        let words = |value: f64| match self.scale {
            Scale::Log if step == 0.0 => number(value, value),
            Scale::Linear | Scale::Whole | Scale::Log => number(value, step),
            Scale::Elapsed => elapsed(value),
        };
        marks
            .into_iter()
            .filter_map(|value| Some((self.place(value)?, words(value))))
            .collect()
    }

    /// Marks, and how far they are from each other; `round` makes a step of a rough one.
    fn even(&self, round: impl Fn(f64) -> f64) -> (Vec<f64>, f64) {
        let mut found = (Vec::new(), 0.0);
        for count in [4.0, 6.0, 8.0] {
            let step = round((self.high - self.low) / count);
            let (first, last) = ((self.low / step).ceil(), (self.high / step).floor());
            // Far from zero a step may be smaller than what a float tells apart.
            let more = (last - first).clamp(-1.0, 20.0);
            let all = (0..=20).map(f64::from).take_while(|n| *n <= more);
            found = (all.map(|n| (first + n) * step).collect(), step);
            if found.0.len() > 2 {
                break;
            }
        }
        found
    }

    /// Powers of ten; within one or two of them also 2 and 5 times that.
    fn powers(&self) -> Vec<f64> {
        let (first, last) = (
            self.low.log10().floor() as i32,
            self.high.log10().ceil() as i32,
        );
        let decades = usize::try_from(last - first).unwrap_or(1).max(1);
        let every = decades.div_ceil(5);
        let within: &[f64] = if decades <= 2 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        (first..=last)
            .step_by(every)
            .flat_map(|power| within.iter().map(move |times| times * 10_f64.powi(power)))
            .filter(|value| (self.low..=self.high).contains(value))
            .collect()
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0];
    let enough = times.into_iter().find(|times| times * power >= rough);
    enough.unwrap_or(10.0) * power
}

fn span_step(rough: f64) -> f64 {
    if rough < SPANS[0] {
        return round_step(rough.max(1.0));
    }
    let enough = SPANS.into_iter().find(|span| *span >= rough);
    enough.unwrap_or_else(|| round_step(rough))
}

/// A number with as many digits as tell it from its neighbours, `step` away.
fn number(value: f64, step: f64) -> String {
    let size = value.abs().max(step.abs());
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        let digits = if step == 0.0 || value == 0.0 {
            0
        } else {
            (value.abs().log10().floor() - step.abs().log10().floor()).clamp(0.0, 6.0) as usize
        };
        return match value == 0.0 {
            true => "0".to_owned(),
            false => format!("{value:.digits$e}"),
        };
    }
    let digits = if step == 0.0 {
        3
    } else {
        (-step.abs().log10().floor()).clamp(0.0, 9.0) as usize
    };
    let text = format!("{value:.digits$}");
    if text.trim_start_matches(['-', '0', '.']).is_empty() {
        return "0".to_owned();
    }
    text
}

/// A length of time: `0`, `90s` as `1m30s`.
pub(super) fn elapsed(ms: f64) -> String {
    if ms < 1.0 {
        return "0".to_owned();
    }
    Span(ms as u64).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(low: f64, high: f64, scale: Scale) -> Vec<String> {
        let axis = Axis::new(low, high, scale);
        axis.ticks().into_iter().map(|(_, words)| words).collect()
    }

    #[test]
    fn marks_are_round_numbers() {
        assert_eq!(words(0.0, 1.0, Scale::Linear), ["0", "0.5", "1.0"]);
        assert_eq!(
            words(1.21e10, 1.29e10, Scale::Linear),
            ["1.22e10", "1.24e10", "1.26e10", "1.28e10"]
        );
        assert_eq!(words(0.0, 2.0, Scale::Whole), ["0", "1", "2"]);
        assert_eq!(
            words(0.0, 900.0, Scale::Whole),
            ["0", "200", "400", "600", "800"]
        );
        assert_eq!(
            words(3.0, 997.0, Scale::Linear),
            ["200", "400", "600", "800"]
        );
        assert_eq!(words(-0.02, 0.03, Scale::Linear), ["-0.02", "0", "0.02"]);
        assert_eq!(words(0.0, 5e9, Scale::Linear), ["0", "2e9", "4e9"]);
    }

    #[test]
    fn powers_of_ten_have_their_marks() {
        assert_eq!(
            words(1e-4, 1.0, Scale::Log),
            ["1e-4", "0.001", "0.01", "0.1", "1"]
        );
        assert_eq!(words(0.3, 4.0, Scale::Log), ["0.5", "1", "2"]);
        assert_eq!(words(0.52, 0.97, Scale::Log), ["0.6", "0.7", "0.8", "0.9"]);
        let far = words(1e-300, 1e300, Scale::Log);
        assert!(far.len() >= 3 && far.len() <= 8, "{far:?}");
    }

    #[test]
    fn time_is_counted_as_clocks_do() {
        assert_eq!(
            words(0.0, 3_600_000.0, Scale::Elapsed),
            ["0", "30m00s", "1h00m"]
        );
        assert_eq!(words(0.0, 25_000.0, Scale::Elapsed), ["0", "10s", "20s"]);
    }

    #[test]
    fn every_axis_has_marks_and_places() {
        for (low, high) in [
            (0.0, 0.0),
            (5.0, 5.0),
            (-1e-12, 1e-12),
            (f64::MIN, f64::MAX),
            (1e15, 1e15 + 1.0),
            (123.456, 123.457),
        ] {
            let axis = Axis::new(low, high, Scale::Linear);
            let ticks = axis.ticks();
            assert!(!ticks.is_empty() && ticks.len() <= 21, "{low} to {high}");
            for value in [low, high] {
                let place = axis.place(value).unwrap();
                assert!(
                    (-0.001..=1.001).contains(&place),
                    "{low} to {high}: {place}"
                );
            }
        }
        let log = Axis::new(0.5, 0.5, Scale::Log);
        assert_eq!(log.place(0.0), None);
        assert!(
            log.place(0.5)
                .is_some_and(|place| (place - 0.5).abs() < 1e-9)
        );
    }
}
