//! What a GPU's counters and words mean for a job. Plain values, no NVML.

/// XIDs that the application itself caused and that say nothing of the GPU (the list of NVIDIA's k8s-device-plugin).
const OF_APPLICATIONS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// A GPU reported a fault as it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFault {
    /// The whole GPU: NVML cannot tie an event to a slice.
    pub uuid: String,
    /// What it was, and what to do.
    pub reason: String,
}

/// The words for an XID that makes a GPU unfit; none where it was the application's.
pub(super) fn xid(number: u64) -> Option<String> {
    if OF_APPLICATIONS.contains(&number) {
        return None;
    }
    let what = match number {
        48 => "a memory error that ECC could not correct",
        63 | 64 => "a memory page or row is retired",
        74 => "an error of NVLink",
        79 => "it fell off the bus",
        92 => "many memory errors that ECC corrected",
        94 | 95 => "a memory error that ECC could not correct",
        119 | 120 => "its system processor does not answer",
        _ => "see the kernel's log",
    };
    Some(format!(
        "XID {number} ({what}); reset the GPU, then `trainyard gpus clear`"
    ))
}

/// Counters that tell of a GPU's memory. None: it does not have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counters {
    /// Errors that ECC could not correct since the last reset.
    pub(super) uncorrected: Option<u64>,
    /// Rows that were remapped, for errors that ECC corrected and that it did not.
    pub(super) remapped: Option<u64>,
    /// Rows wait to be remapped until the GPU is reset.
    pub(super) remap_pending: Option<bool>,
    /// A row could not be remapped.
    pub(super) remap_failed: Option<bool>,
    /// Pages wait to be retired until the GPU is reset (before Ampere).
    pub(super) retire_pending: Option<bool>,
    /// What NVIDIA's driver wants to be done (`nvmlDeviceGpuRecoveryAction_t`).
    pub(super) recovery: Option<u64>,
    /// It is slowed down by its temperature.
    pub(super) hot: bool,
    /// It is slowed down by the host's power supply.
    pub(super) brake: bool,
}

impl Counters {
    /// The fault in words and what to do, where there is one.
    pub(super) fn fault(self) -> Option<String> {
        if self.remap_failed == Some(true) {
            return Some("a memory row could not be remapped; the GPU wants to be replaced".into());
        }
        if self.remap_pending == Some(true) {
            return Some("a memory row waits to be remapped; reset the GPU".into());
        }
        if self.retire_pending == Some(true) {
            return Some("a memory page waits to be retired; reset the GPU".into());
        }
        if let Some(n) = self.uncorrected.filter(|&n| n > 0) {
            return Some(format!(
                "{n} memory errors that ECC could not correct since its last reset; reset the GPU"
            ));
        }
        match self.recovery {
            None | Some(0) => None,
            Some(1) => Some("NVIDIA's driver asks for a reset of the GPU".into()),
            Some(2) => Some("NVIDIA's driver asks for a restart of the host".into()),
            Some(n) => Some(format!(
                "NVIDIA's driver asks for the GPU to be drained (recovery action {n})"
            )),
        }
    }

    /// What is worth knowing and no fault.
    pub(super) fn notes(self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.hot {
            notes.push("slowed down: it is too hot".to_owned());
        }
        if self.brake {
            notes.push("slowed down: the power supply brakes it".to_owned());
        }
        if let Some(n) = self.remapped.filter(|&n| n > 0) {
            let rows = if n == 1 { "row was" } else { "rows were" };
            notes.push(format!("{n} memory {rows} remapped"));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_harms_a_job_is_a_fault() {
        let fine = Counters {
            uncorrected: Some(0),
            remap_pending: Some(false),
            recovery: Some(0),
            ..Default::default()
        };
        assert_eq!(fine.fault(), None);
        assert_eq!(Counters::default().fault(), None, "a GPU without ECC");
        let sick = Counters {
            uncorrected: Some(2),
            ..fine
        };
        assert!(sick.fault().unwrap().starts_with("2 memory errors"));
        let worn = Counters {
            remap_failed: Some(true),
            ..sick
        };
        assert!(worn.fault().unwrap().contains("replaced"));
        let asked = Counters {
            recovery: Some(2),
            ..fine
        };
        assert!(asked.fault().unwrap().contains("restart of the host"));
    }

    #[test]
    fn heat_is_a_note_and_no_fault() {
        let hot = Counters {
            hot: true,
            remapped: Some(2),
            ..Default::default()
        };
        assert_eq!(hot.fault(), None);
        assert_eq!(
            hot.notes(),
            ["slowed down: it is too hot", "2 memory rows were remapped"]
        );
    }

    #[test]
    fn an_applications_own_xid_says_nothing_of_the_gpu() {
        for number in OF_APPLICATIONS {
            assert_eq!(xid(number), None);
        }
        assert!(xid(79).unwrap().contains("fell off the bus"));
        assert!(xid(200).unwrap().starts_with("XID 200"));
    }
}
