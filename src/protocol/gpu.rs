//! What people call GPUs: models, memory, versions and MIG profiles as they write them, held against what
//! NVML says of a device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// Words that say who makes a GPU, or nothing.
const BRANDS: [&str; 6] = ["nvidia", "geforce", "tesla", "quadro", "gpu", "generation"];
/// Words that make another chip of a name: who does not say them does not mean them.
const VARIANTS: [&str; 4] = ["ti", "super", "laptop", "max"];
/// Prefixes that people glue to the number behind them.
const SERIES: [&str; 3] = ["rtx", "gtx", "titan"];
/// Models that NVML calls by their bare name on an SXM board, and by `PCIe` or `NVL` elsewhere.
const SXM_UNSAID: [&str; 7] = ["h100", "h200", "h800", "h20", "b100", "b200", "b300"];
/// Models that this version knows by name; others are taken as they are.
pub const KNOWN_MODELS: [&str; 76] = [
    "a2", "a10", "a10g", "a16", "a30", "a40", "a100", "a800", "h20", "h100", "h200", "h800",
    "gh200", "b100", "b200", "b300", "gb200", "gb300", "l2", "l4", "l20", "l40", "l40s", "t4",
    "t4g", "v100", "v100s", "p4", "p40", "p100", "k40", "k80", "m40", "m60", "a400", "a1000",
    "a2000", "a4000", "a4500", "a5000", "a5500", "a6000", "2000", "4000", "4500", "5000", "6000",
    "8000", "1050", "1060", "1070", "1080", "1650", "1660", "2060", "2070", "2080", "3050", "3060",
    "3070", "3080", "3090", "4050", "4060", "4070", "4080", "4090", "5050", "5060", "5070", "5080",
    "5090", "titan", "t400", "t1000", "p2000",
];
/// MIG profiles of today's GPUs, for those who misspell one.
pub const KNOWN_PROFILES: [&str; 26] = [
    "1g.5gb", "1g.6gb", "1g.10gb", "1g.12gb", "1g.18gb", "1g.20gb", "1g.23gb", "1g.24gb",
    "2g.10gb", "2g.12gb", "2g.20gb", "2g.24gb", "2g.35gb", "2g.45gb", "3g.20gb", "3g.40gb",
    "3g.47gb", "3g.71gb", "3g.90gb", "4g.20gb", "4g.24gb", "4g.40gb", "7g.40gb", "7g.80gb",
    "7g.141gb", "7g.180gb",
];
/// Sizes in GiB that GPUs and slices are sold with.
const SOLD_GIB: [u64; 23] = [
    4, 5, 6, 8, 10, 11, 12, 16, 18, 20, 24, 32, 40, 48, 64, 80, 94, 96, 141, 144, 180, 192, 288,
];

/// Text that is not what it should be; the message says what is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct InvalidGpuWord {
    text: String,
    wanted: &'static str,
}

impl InvalidGpuWord {
    fn new(text: &str, wanted: &'static str) -> Self {
        let text = text.chars().take(60).collect();
        Self { text, wanted }
    }
}

/// A model as a person writes it: `A100`, `a100-80gb`, `rtx 4090`, `H100 SXM`. It means every device whose
/// NVML name has all of its words; a size is memory that the device must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GpuModel(String);

impl GpuModel {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a device with this NVML name, such as `NVIDIA A100-SXM4-80GB`, and memory is meant.
    #[must_use]
    pub fn matches(&self, name: &str, memory: ByteSize) -> bool {
        let (asked, device) = (Words::of(&self.0), Words::of(name));
        let spoken = asked.words.iter().all(|word| device.has(word));
        let other = VARIANTS
            .iter()
            .any(|variant| device.is(variant) && !asked.is(variant));
        // A maker's gigabyte has nine zeros: an "80GB" card has 79.6 GiB.
        let enough = asked.gb.is_none_or(|gb| memory.0 >= gb * 1_000_000_000);
        spoken && !other && enough
    }

    /// A word that is nearly a known model's, and which: `a10o`, `a100`. None for a model that is written in
    /// full, as `nvidia-smi` says it: that is how one is named that this version does not know.
    #[must_use]
    pub fn unknown_word(&self) -> Option<String> {
        if self.0.to_lowercase().starts_with("nvidia ") {
            return None;
        }
        let mut words = Words::of(&self.0).words.into_iter();
        let odd = |word: &String| {
            let model = word.chars().any(|c| c.is_ascii_digit()) && !word.starts_with("sxm");
            model && !KNOWN_MODELS.contains(&word.as_str())
        };
        words.find(odd)
    }
}

impl FromStr for GpuModel {
    type Err = InvalidGpuWord;

    fn from_str(text: &str) -> Result<Self, InvalidGpuWord> {
        let names = |word: &String| {
            word.chars().any(|c| c.is_ascii_digit()) && !word.starts_with("sxm") || word == "titan"
        };
        let text = text.trim();
        if text.len() <= 60 && Words::of(text).words.iter().any(names) {
            Ok(Self(text.to_owned()))
        } else {
            let wanted = "a model of GPU such as A100, a100-80gb or 'RTX 4090'";
            Err(InvalidGpuWord::new(text, wanted))
        }
    }
}

impl TryFrom<String> for GpuModel {
    type Error = InvalidGpuWord;

    fn try_from(text: String) -> Result<Self, InvalidGpuWord> {
        text.parse()
    }
}

impl From<GpuModel> for String {
    fn from(model: GpuModel) -> String {
        model.0
    }
}

impl fmt::Display for GpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name taken apart.
#[derive(Debug, Default)]
struct Words {
    words: Vec<String>,
    /// The size in it, in a maker's gigabytes.
    gb: Option<u64>,
}

impl Words {
    fn of(name: &str) -> Self {
        let mut all = Self::default();
        let lower = name.to_lowercase();
        for part in lower.split(|c: char| !c.is_ascii_alphanumeric()) {
            match all.size(part) {
                Some(gb) => all.gb = all.gb.or(Some(gb)),
                None => all.push(part),
            }
        }
        all
    }

    /// The size that a part of a name says: `80gb`, or `80` behind a model, as in `a100-80`.
    fn size(&mut self, part: &str) -> Option<u64> {
        let mut units = ["gib", "gb", "g"].iter();
        match units.find_map(|unit| part.strip_suffix(unit)) {
            // `80 GB`: the number stood alone before.
            Some("") => match self.words.last().and_then(|word| word.parse().ok()) {
                Some(gb) => {
                    self.words.pop();
                    Some(gb)
                }
                None => self.gb,
            },
            Some(number) => number.parse().ok(),
            None => part.parse().ok().filter(|gb| {
                let model = |word: &String| {
                    word.starts_with(|c: char| c.is_ascii_alphabetic())
                        && word.contains(|c: char| c.is_ascii_digit())
                };
                SOLD_GIB.contains(gb) && self.words.iter().any(model)
            }),
        }
    }

    /// `rtx3080ti` is `rtx`, `3080`, `ti`.
    fn push(&mut self, part: &str) {
        let series = SERIES.iter().find(|series| part.starts_with(*series));
        let (first, rest) = part.split_at(series.map_or(0, |series| series.len()));
        let number = rest
            .strip_suffix("ti")
            .filter(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()));
        let tail = number.map(|_| "ti");
        let words = [Some(first), Some(number.unwrap_or(rest)), tail];
        for word in words.into_iter().flatten() {
            if !word.is_empty() && !BRANDS.contains(&word) {
                self.words.push(word.to_owned());
            }
        }
    }

    fn is(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }

    /// Whether a device of this name answers to a word.
    fn has(&self, word: &str) -> bool {
        if self.is(word) {
            return true;
        }
        let sxm = word == "sxm" || (word.starts_with("sxm") && word.len() == 4);
        let said = self.words.iter().any(|own| own.starts_with("sxm"));
        let unsaid = SXM_UNSAID.iter().any(|model| self.is(model));
        sxm && (said && word == "sxm" || !said && unsaid && !self.is("pcie") && !self.is("nvl"))
    }
}

/// Whether a GPU of `memory` is one of `wanted`: the size that it is sold with counts. What NVML reports is a
/// little less: 23.99 GiB of 24, and with ECC 15 of 16.
#[must_use]
pub fn memory_suffices(memory: ByteSize, wanted: ByteSize) -> bool {
    let sold = SOLD_GIB.iter().map(|gib| gib << 30);
    let sold = sold
        .into_iter()
        .find(|sold| *sold >= memory.0 && memory.0 >= sold / 100 * 93);
    sold.unwrap_or(memory.0).max(memory.0) >= wanted.0
}

/// A lower bound of a version, written `>=8.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AtLeast {
    major: u32,
    minor: u32,
}

impl AtLeast {
    /// Whether a version such as `9.0` or `12.8` is not below it. What cannot be read is.
    #[must_use]
    pub fn admits(&self, version: &str) -> bool {
        numbers(version).is_some_and(|found| found >= (self.major, self.minor))
    }

    /// The version itself: `8.0`.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next().map_or(Some(0), |minor| minor.parse().ok())?;
    Some((major, minor))
}

impl FromStr for AtLeast {
    type Err = InvalidGpuWord;

    fn from_str(text: &str) -> Result<Self, InvalidGpuWord> {
        let found = text.trim().strip_prefix(">=").and_then(numbers);
        match found.filter(|(major, _)| *major > 0) {
            Some((major, minor)) => Ok(Self { major, minor }),
            None => Err(InvalidGpuWord::new(
                text,
                "a lowest version such as \">=8.0\" (in quotes)",
            )),
        }
    }
}

impl TryFrom<String> for AtLeast {
    type Error = InvalidGpuWord;

    fn try_from(text: String) -> Result<Self, InvalidGpuWord> {
        text.parse()
    }
}

impl From<AtLeast> for String {
    fn from(bound: AtLeast) -> String {
        bound.to_string()
    }
}

impl fmt::Display for AtLeast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ">={}.{}", self.major, self.minor)
    }
}

/// Whether text has the shape of a MIG profile: `1g.10gb`, `1g.10gb+me`.
#[must_use]
pub fn is_profile(text: &str) -> bool {
    let number = |text: &str, unit: &str| {
        text.strip_suffix(unit)
            .is_some_and(|n| !n.is_empty() && n.len() <= 4 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let (size, extra) = text.split_once('+').unwrap_or((text, "me"));
    let known = extra
        .split('+')
        .all(|extra| matches!(extra, "me" | "me.all" | "gfx" | "no_me"));
    let shape = size
        .split_once('.')
        .is_some_and(|(slices, memory)| number(slices, "g") && number(memory, "gb"));
    shape && known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(asked: &str, name: &str, mib: u64) -> bool {
        let model: GpuModel = asked.parse().unwrap();
        model.matches(name, ByteSize::mib(mib))
    }

    #[test]
    fn a_model_is_known_by_the_words_that_people_use() {
        let a100 = ("NVIDIA A100-SXM4-80GB", 81_920);
        let h100 = ("NVIDIA H100 80GB HBM3", 81_559);
        let rtx = ("NVIDIA GeForce RTX 4090", 24_564);
        for (asked, (name, mib)) in [
            ("A100", a100),
            ("a100-80gb", a100),
            ("A100 80 GB", a100),
            ("a100-80", a100),
            ("A100-SXM4-80GB", a100),
            ("nvidia a100 sxm", a100),
            ("H100 SXM", h100),
            ("h100 sxm5", h100),
            ("rtx 4090", rtx),
            ("RTX4090", rtx),
            ("4090", rtx),
            ("GeForce RTX 4090", rtx),
            ("3080ti", ("NVIDIA GeForce RTX 3080 Ti", 12_288)),
            ("Tesla T4", ("Tesla T4", 15_360)),
            ("T4-16GB", ("Tesla T4", 15_360)),
            ("titan rtx", ("TITAN RTX", 24_576)),
            ("RTX A6000", ("NVIDIA RTX A6000", 49_140)),
        ] {
            assert!(matches(asked, name, mib), "{asked} is {name}");
        }
        for (asked, (name, mib)) in [
            ("A10", a100),
            ("A100-80GB", ("NVIDIA A100-SXM4-40GB", 40_960)),
            ("a100-80", ("NVIDIA A100-SXM4-40GB", 40_960)),
            ("H100 SXM", ("NVIDIA H100 PCIe", 81_559)),
            ("H100 SXM", ("NVIDIA H100 NVL", 95_830)),
            ("A100 PCIe", a100),
            ("A100 SXM2", a100),
            ("rtx 3080", ("NVIDIA GeForce RTX 3080 Ti", 12_288)),
            ("L40", ("NVIDIA L40S", 46_068)),
            ("rtx 3080", ("NVIDIA GeForce RTX 3080 Laptop GPU", 16_384)),
        ] {
            assert!(!matches(asked, name, mib), "{asked} is not {name}");
        }
    }

    #[test]
    fn what_names_no_model_is_refused() {
        for text in ["", "gpu", "nvidia", "fast", "80gb", "sxm4"] {
            assert!(text.parse::<GpuModel>().is_err(), "{text}");
        }
        let odd = |text: &str| text.parse::<GpuModel>().unwrap().unknown_word();
        assert_eq!(odd("A10O-80GB").as_deref(), Some("a10o"));
        assert_eq!(odd("NVIDIA H300"), None);
        assert_eq!(odd("RTX 4090"), None);
        assert_eq!(odd("a100-80"), None);
    }

    #[test]
    fn memory_counts_as_it_is_sold() {
        let of = |mib, gib| memory_suffices(ByteSize::mib(mib), ByteSize::gib(gib));
        assert!(of(24_564, 24) && of(15_360, 16) && of(46_068, 48) && of(9_728, 10));
        assert!(of(81_559, 80) && of(81_559, 79) && of(24_564, 20));
        assert!(!of(24_564, 25) && !of(40_960, 48) && !of(81_559, 94));
    }

    #[test]
    fn versions_are_numbers() {
        let bound: AtLeast = ">= 8.0".parse().unwrap();
        assert!(bound.admits("8.0") && bound.admits("10.0") && bound.admits("9"));
        assert!(!bound.admits("7.5") && !bound.admits("") && !bound.admits("sm_90"));
        assert_eq!(bound.to_string(), ">=8.0");
        for text in ["8.0", "sm_80", ">=", ">=x", "=>8"] {
            assert!(text.parse::<AtLeast>().is_err(), "{text}");
        }
        assert!(is_profile("1g.10gb") && is_profile("7g.80gb+me"));
        assert!(!is_profile("1g10gb") && !is_profile("g.10gb") && !is_profile("1g.10gb+x"));
    }
}
