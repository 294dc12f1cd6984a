//! How pages say times, sizes, values and changes. Pure: the clock is an argument.

use chrono::{DateTime, SecondsFormat};
use protocol::Timestamp;
use protocol::spec::Goal;

/// `2026-11-23T08:15:41Z`, for `datetime` attributes.
pub(super) fn iso(at: Timestamp) -> String {
    DateTime::from_timestamp_millis(at.0)
        .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
        .unwrap_or_default()
}

/// `just now`, `12 min ago`, `3 h ago`, and from two days on the date.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    let minutes = now.since(at).0 / 60_000;
    match minutes {
        0 => "just now".to_owned(),
        1..60 => format!("{minutes} min ago"),
        60..2_880 => format!("{} h ago", minutes / 60),
        _ => iso(at).chars().take(10).collect(),
    }
}

/// Time between two moments, to now while the second is open; empty before the first.
pub(super) fn took(from: Option<Timestamp>, to: Option<Timestamp>, now: Timestamp) -> String {
    from.map(|from| to.unwrap_or(now).since(from).to_string())
        .unwrap_or_default()
}

/// A metric's value with four significant digits: `0.9624`, `1234`, `1.2e-9`.
pub(super) fn value(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e9).contains(&size) {
        return format!("{value:.3e}");
    }
    let digits = if size == 0.0 {
        0
    } else {
        3 - size.log10().floor() as i32
    };
    let text = format!(
        "{value:.*}",
        usize::try_from(digits.clamp(0, 8)).unwrap_or(0)
    );
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A change, and whether it is `better`, `worse` or neither by the metric's goal.
pub(super) fn change(now: f64, before: f64, goal: Option<Goal>) -> Option<(String, &'static str)> {
    let difference = now - before;
    if !difference.is_finite() {
        return None;
    }
    if difference == 0.0 {
        return Some(("unchanged".to_owned(), ""));
    }
    let sign = if difference > 0.0 { "+" } else { "−" };
    let text = format!("{sign}{} from {}", value(difference.abs()), value(before));
    let judged = match goal {
        Some(Goal::Maximize) if difference > 0.0 => "better",
        Some(Goal::Minimize) if difference < 0.0 => "better",
        Some(Goal::Maximize | Goal::Minimize) => "worse",
        None => "",
    };
    Some((text, judged))
}

/// `1 cell`, `2 cells`.
pub(super) fn count(number: u64, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_show_four_digits() {
        for (number, text) in [
            (0.962_37, "0.9624"),
            (1.0, "1"),
            (0.0, "0"),
            (1234.56, "1235"),
            (1.2e-9, "1.200e-9"),
            (-0.5, "-0.5"),
        ] {
            assert_eq!(value(number), text);
        }
        assert_eq!(value(f64::NAN), "NaN");
    }

    #[test]
    fn a_change_is_judged_by_the_goal() {
        assert_eq!(
            change(0.97, 0.96, Some(Goal::Maximize)),
            Some(("+0.01 from 0.96".into(), "better"))
        );
        assert_eq!(change(0.97, 0.96, Some(Goal::Minimize)).unwrap().1, "worse");
        assert_eq!(change(1.0, 1.0, None), Some(("unchanged".into(), "")));
        assert_eq!(change(f64::NAN, 1.0, None), None);
    }

    #[test]
    fn times_are_said_from_now() {
        let now = Timestamp(1_700_000_000_000);
        assert_eq!(ago(Timestamp(now.0 - 5_000), now), "just now");
        assert_eq!(ago(Timestamp(now.0 - 300_000), now), "5 min ago");
        assert_eq!(ago(Timestamp(now.0 - 7_200_000), now), "2 h ago");
        assert_eq!(ago(Timestamp(now.0 - 400_000_000), now), "2023-11-10");
        assert_eq!(took(None, None, now), "");
    }
}
