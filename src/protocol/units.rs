//! Quantities as people write them: `16GiB`, `24h`; and points in time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A quantity that cannot be read. The message says what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct InvalidQuantity {
    text: String,
    wanted: &'static str,
}

impl InvalidQuantity {
    fn new(text: &str, wanted: &'static str) -> Self {
        Self {
            text: text.chars().take(40).collect(),
            wanted,
        }
    }
}

/// Splits `12.5GiB` into number and unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number = text[..end].parse::<f64>().ok().filter(|n| n.is_finite())?;
    Some((number, text[end..].trim()))
}

/// A number of bytes. Read from `512MiB`, `16GiB`, `1.5TB` or a plain number of bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl ByteSize {
    const WANTED: &'static str = "a size such as 512MiB or 16GiB";

    /// `n` gibibytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// `n` mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

impl FromStr for ByteSize {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let wrong = || InvalidQuantity::new(text, Self::WANTED);
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let scale = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1_u64,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            "kib" | "k" | "ki" => 1 << 10,
            "mib" | "m" | "mi" => 1 << 20,
            "gib" | "g" | "gi" => 1 << 30,
            "tib" | "t" | "ti" => 1 << 40,
            _ => return Err(wrong()),
        };
        let bytes = number * scale as f64;
        if bytes > i64::MAX as f64 {
            return Err(wrong());
        }
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (1_u64 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        for (scale, unit) in units {
            if self.0 >= scale {
                let value = self.0 as f64 / scale as f64;
                return if value.fract() < 0.05 || value >= 100.0 {
                    write!(f, "{value:.0} {unit}")
                } else {
                    write!(f, "{value:.1} {unit}")
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A length of time in milliseconds. Read from `90s`, `15m`, `24h`, `2d`, `1h30m` or `250ms`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Span {
    const WANTED: &'static str = "a duration such as 90s, 15m, 24h or 1h30m";

    /// `n` seconds.
    #[must_use]
    pub const fn secs(n: u64) -> Self {
        Self(n * 1_000)
    }

    /// `n` hours.
    #[must_use]
    pub const fn hours(n: u64) -> Self {
        Self::secs(n * 3_600)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        Duration::from_millis(span.0)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Span {
        Span(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl FromStr for Span {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let wrong = || InvalidQuantity::new(text, Self::WANTED);
        let mut rest = text.trim();
        let mut total = 0.0_f64;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let (number, after) = split(rest).ok_or_else(wrong)?;
            let end = after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len());
            let scale = match &after[..end] {
                "ms" => 1.0,
                "s" | "sec" => 1_000.0,
                "m" | "min" => 60_000.0,
                "h" => 3_600_000.0,
                "d" => 86_400_000.0,
                _ => return Err(wrong()),
            };
            total += number * scale;
            rest = after[end..].trim_start();
        }
        // Ten years: longer is a slip of the pen, and sums of spans must not overflow.
        if total > 315_360_000_000.0 {
            return Err(wrong());
        }
        Ok(Self(total.round() as u64))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        let (d, h, m, s) = (
            ms / 86_400_000,
            ms / 3_600_000 % 24,
            ms / 60_000 % 60,
            ms / 1_000 % 60,
        );
        match (d, h, m) {
            (0, 0, 0) if ms < 1_000 => write!(f, "{ms}ms"),
            (0, 0, 0) if ms < 10_000 => write!(f, "{:.1}s", ms as f64 / 1_000.0),
            (0, 0, 0) => write!(f, "{s}s"),
            (0, 0, m) => write!(f, "{m}m{s:02}s"),
            (0, h, m) => write!(f, "{h}h{m:02}m"),
            (d, h, _) => write!(f, "{d}d{h:02}h"),
        }
    }
}

/// A point in time: milliseconds since 1970 (UTC), the same number in JSON and in the store.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock. Deadlines are never computed from it: those want `std::time::Instant`.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Time passed since `earlier`; zero where the clock went backwards.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Span {
        Span(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Time from `now` to this point as people count it: whole minutes, a begun one in full.
    #[must_use]
    pub fn minutes_from(self, now: Timestamp) -> Span {
        Span(self.since(now).0.div_ceil(60_000) * 60_000)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl std::ops::Add<Span> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Span) -> Timestamp {
        Timestamp(self.0.saturating_add_unsigned(span.0))
    }
}

impl std::ops::Sub<Span> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Span) -> Timestamp {
        Timestamp(self.0.saturating_sub_unsigned(span.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        assert_eq!("16GiB".parse(), Ok(ByteSize::gib(16)));
        assert_eq!("1.5 GiB".parse(), Ok(ByteSize::mib(1536)));
        assert_eq!("2GB".parse(), Ok(ByteSize(2_000_000_000)));
        for wrong in ["", "GiB", "16 gallons", "-1GiB", "99999999999999TiB", "1e9"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
        assert_eq!(ByteSize::gib(80).to_string(), "80 GiB");
        assert_eq!(ByteSize::mib(1536).to_string(), "1.5 GiB");
    }

    #[test]
    fn spans_as_people_write_them() {
        assert_eq!("1h30m".parse(), Ok(Span::secs(5_400)));
        assert_eq!("90s".parse(), Ok(Span::secs(90)));
        for wrong in ["", "24", "h", "3 weeks", "99999d"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
        assert_eq!(Span::secs(192).to_string(), "3m12s");
        assert_eq!(Span(1_234).to_string(), "1.2s");
    }

    #[test]
    fn a_clock_that_went_back_gives_no_negative_span() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Span(0));
    }

    #[test]
    fn eight_hours_are_eight_hours_a_moment_later() {
        let end = Timestamp(0) + Span::hours(8);
        let said = |now| end.minutes_from(Timestamp(now)).to_string();
        assert_eq!(said(17), "8h00m");
        assert_eq!(said(60_000), "7h59m");
        assert_eq!(said(end.0 - 1), "1m00s");
    }
}
