//! Known ways out of a container, by the versions of the programs that have them. It gets versions as text.

use super::Check;

/// A version as a program says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    /// Number of a release candidate; a release comes after all of its candidates.
    candidate: u64,
}

const RELEASE: u64 = u64::MAX;

const fn release(major: u64, minor: u64, patch: u64) -> Version {
    Version {
        major,
        minor,
        patch,
        candidate: RELEASE,
    }
}

/// A flaw, and the versions that end it: one for each line of releases that got it, in order.
struct Flaw {
    cve: &'static str,
    fixed: &'static [Version],
}

/// The fixes of November 2025, for each line of runc.
const NOVEMBER_2025: &[Version] = &[
    release(1, 2, 8),
    release(1, 3, 3),
    Version {
        major: 1,
        minor: 4,
        patch: 0,
        candidate: 3,
    },
];

/// Of runc; advisories of github.com/opencontainers/runc.
const RUNC: &[Flaw] = &[
    Flaw {
        cve: "CVE-2024-21626",
        fixed: &[release(1, 1, 12)],
    },
    Flaw {
        cve: "CVE-2025-31133",
        fixed: NOVEMBER_2025,
    },
    Flaw {
        cve: "CVE-2025-52565",
        fixed: NOVEMBER_2025,
    },
    Flaw {
        cve: "CVE-2025-52881",
        fixed: NOVEMBER_2025,
    },
];

/// Of NVIDIA's container toolkit; NVIDIA's security bulletins.
const TOOLKIT: &[Flaw] = &[
    Flaw {
        cve: "CVE-2024-0132",
        fixed: &[release(1, 16, 2)],
    },
    Flaw {
        cve: "CVE-2025-23359",
        fixed: &[release(1, 17, 4)],
    },
    Flaw {
        cve: "CVE-2025-23266",
        fixed: &[release(1, 17, 8)],
    },
];

impl Flaw {
    /// Whether a version has it: its own line's fix decides; lines behind the last that was fixed never had it, and
    /// lines before the first were not repaired.
    fn is_in(&self, version: Version) -> bool {
        let line = |v: &Version| (v.major, v.minor);
        match self.fixed.iter().find(|fix| line(fix) == line(&version)) {
            Some(fix) => version < *fix,
            None => self.fixed.iter().any(|fix| version < *fix),
        }
    }
}

/// Reads `1.2.5`, `1.4.0-rc.2`, `1.1.5+ds1`, `1.1.12-0ubuntu2`: the version, and whether somebody else than its makers
/// built it, who may have repaired an old version.
fn parse(text: &str) -> Option<(Version, bool)> {
    let text = text.trim().trim_start_matches('v');
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (numbers, rest) = text.split_at(end.unwrap_or(text.len()));
    let mut numbers = numbers.trim_end_matches('.').split('.').map(str::parse);
    let mut next = || numbers.next().transpose().ok();
    let (major, minor) = (next()??, next()??);
    let patch = next()?.unwrap_or(0);
    let digits = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit());
        text.split_at(end.unwrap_or(text.len())).0.parse().ok()
    };
    let candidate: Option<u64> = rest
        .strip_prefix("-rc")
        .and_then(|rest| digits(rest.trim_start_matches('.')));
    let version = Version {
        major,
        minor,
        patch,
        candidate: candidate.unwrap_or(RELEASE),
    };
    Some((version, candidate.is_none() && !rest.is_empty()))
}

/// The flaws of a version: refused where its makers built it, said where a distribution did.
fn judge(name: &'static str, version: &str, flaws: &[Flaw], update: &str) -> Option<Check> {
    let (parsed, rebuilt) = parse(version)?;
    let found: Vec<&str> = flaws
        .iter()
        .filter(|flaw| flaw.is_in(parsed))
        .map(|flaw| flaw.cve)
        .collect();
    if found.is_empty() {
        return None;
    }
    let cves = found.join(", ");
    Some(if rebuilt {
        Check::warn(
            name,
            format!(
                "{version} is a distribution's build of a version that lets jobs out of their containers ({cves}); it may be repaired"
            ),
            format!(
                "keep it up to date, and look these up in your distribution's security tracker; or {update}"
            ),
        )
    } else {
        Check::fail(
            name,
            format!("{version} lets jobs out of their containers: {cves}"),
            format!("{update}; until then this agent takes no job"),
        )
    })
}

/// What is wrong with a version of runc.
pub(super) fn runc(version: &str) -> Option<Check> {
    judge(
        "runc",
        version,
        RUNC,
        "upgrade runc (or the engine that brings it) to 1.2.8, 1.3.3 or newer",
    )
}

/// What is wrong with a version of NVIDIA's container toolkit.
pub(super) fn toolkit(version: &str) -> Option<Check> {
    judge(
        "nvidia toolkit",
        version,
        TOOLKIT,
        "upgrade NVIDIA's container toolkit to 1.17.8 or newer",
    )
}

/// The version in what `nvidia-ctk --version` says first: `NVIDIA Container Toolkit CLI version 1.17.8`.
pub(super) fn toolkit_version(line: &str) -> Option<&str> {
    let last = line.split_whitespace().next_back()?;
    parse(last).map(|_| last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn each_line_of_releases_has_its_own_fix() {
        for (version, cves) in [
            ("1.1.11", 4),
            ("1.1.12", 3),
            ("1.1.15", 3),
            ("1.2.7", 3),
            ("1.2.8", 0),
            ("1.3.0", 3),
            ("1.3.3", 0),
            ("1.4.0-rc.2", 3),
            ("1.4.0-rc.3", 0),
            ("1.4.0", 0),
            ("1.0.0-rc93", 4),
            ("2.0.0", 0),
        ] {
            let check = runc(version);
            let found = check
                .as_ref()
                .map_or(0, |c| c.found.matches("CVE-").count());
            assert_eq!(found, cves, "{version}");
            assert!(check.is_none_or(|c| c.level == Level::Fail), "{version}");
        }
    }

    #[test]
    fn what_a_distribution_built_is_said_and_not_refused() {
        for version in [
            "1.1.5+ds1",
            "1.1.12-0ubuntu2~22.04.1",
            "1.1.5+ds1-1+deb12u1",
        ] {
            let check = runc(version).unwrap();
            assert_eq!(check.level, Level::Warn, "{version}");
            assert!(check.found.contains("CVE-2025-31133"), "{}", check.found);
        }
        assert_eq!(runc("1.3.3-0ubuntu1"), None);
        assert_eq!(runc("unknown"), None);
    }

    #[test]
    fn the_toolkit_says_its_version_in_a_line() {
        let line = "NVIDIA Container Toolkit CLI version 1.17.4";
        let version = toolkit_version(line).unwrap();
        let check = toolkit(version).unwrap();
        assert!(check.found.contains("CVE-2025-23266"), "{}", check.found);
        assert!(!check.found.contains("CVE-2024-0132"), "{}", check.found);
        assert_eq!(toolkit("1.17.8"), None);
        assert_eq!(toolkit("1.18.0-rc.1"), None);
        assert!(toolkit("1.16.1").unwrap().found.contains("CVE-2024-0132"));
        assert_eq!(toolkit_version("command not found"), None);
    }
}
