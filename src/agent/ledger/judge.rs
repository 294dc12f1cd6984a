//! What a reading means, given the ledger's files. Pure.

use protocol::hardware::{Gpu, GpuHealth, GpuKind};
use protocol::{ByteSize, Timestamp};

use super::files::{Quarantine, Reservation, State};
use super::runs::Runner;
use crate::hardware::{GpuProcess, GpuReading};

/// More memory than before in use, and nobody there: what a dead process left behind.
const LEFT_BEHIND: u64 = 256 << 20;
/// An idle GPU may have this much in use: contexts of services, the driver's own.
const IDLE: u64 = 1 << 30;
/// The kernel keeps this much of a process's name.
const COMM: usize = 15;

/// What the agent's configuration says of processes.
#[derive(Debug, Clone)]
pub(super) struct Manners {
    /// Names of processes that may be on a GPU beside a job.
    pub(super) ignore: Vec<String>,
    /// Jobs may run without a container: then any process may be a job's.
    pub(super) shell: bool,
    /// Of a person's run beside the agent.
    pub(super) run: Option<Runner>,
}

/// The GPU itself, and for a slice the GPU that it is cut from.
fn names(gpu: &Gpu) -> impl Iterator<Item = &str> {
    let parent = match &gpu.kind {
        GpuKind::Whole | GpuKind::Sliced => None,
        GpuKind::Slice { parent, .. } => Some(parent.as_str()),
    };
    std::iter::once(gpu.uuid.as_str()).chain(parent)
}

/// The quarantine of a GPU, or of the one that a slice is cut from.
pub(super) fn quarantine<'a>(state: &'a State, gpu: &Gpu) -> Option<&'a Quarantine> {
    names(gpu).find_map(|uuid| state.quarantines.get(uuid))
}

/// Why nobody can tell who has a GPU.
pub(super) fn unreadable<'a>(state: &'a State, gpu: &Gpu) -> Option<&'a String> {
    let of_it = names(gpu).find_map(|uuid| state.unreadable.get(uuid));
    of_it.or(state.blind.as_ref())
}

/// The loan of a GPU, or of the one that a slice is cut from, that is not over.
pub(super) fn lent<'a>(state: &'a State, gpu: &Gpu, now: Timestamp) -> Option<&'a Reservation> {
    names(gpu)
        .filter_map(|uuid| state.reservations.get(uuid))
        .find(|lent| lent.until > now)
}

impl Manners {
    /// How a GPU is to a new job.
    pub(super) fn judge(&self, state: &State, reading: &GpuReading, now: Timestamp) -> GpuHealth {
        let gpu = &reading.gpu;
        let free = gpu.kind != GpuKind::Sliced && !state.bookings.contains_key(&gpu.uuid);
        match (
            self.by_itself(state, reading, now),
            self.refused(state).filter(|_| free),
        ) {
            (GpuHealth::Healthy, Some(reason)) => GpuHealth::Quarantined {
                reason: reason.clone(),
            },
            (health, _) => health,
        }
    }

    /// How it is, whatever the container engine does with it.
    pub(super) fn by_itself(
        &self,
        state: &State,
        reading: &GpuReading,
        now: Timestamp,
    ) -> GpuHealth {
        let gpu = &reading.gpu;
        if let GpuHealth::Lost { error } = &gpu.health {
            return GpuHealth::Lost {
                error: error.clone(),
            };
        }
        if let Some(why) = unreadable(state, gpu) {
            return GpuHealth::Quarantined {
                reason: why.clone(),
            };
        }
        if let Some(quarantine) = quarantine(state, gpu) {
            return GpuHealth::Quarantined {
                reason: quarantine.reason.clone(),
            };
        }
        if let Some(fault) = &reading.fault {
            return GpuHealth::Quarantined {
                reason: fault.clone(),
            };
        }
        match state.bookings.get(&gpu.uuid) {
            // What runs on a booked GPU is its attempt's.
            Some(booking) if booking.run.is_none() => return GpuHealth::Healthy,
            // The server knows nothing of it.
            Some(booking) => {
                return GpuHealth::InUseOutside {
                    by: booking.holder(),
                };
            }
            None => {}
        }
        let lent = lent(state, gpu, now)
            .filter(|lent| self.run.as_ref().is_none_or(|run| run.by != lent.by));
        if let Some(lent) = lent {
            return GpuHealth::Reserved {
                by: lent.by.clone(),
                until: lent.until,
            };
        }
        // The slices of a GPU in MIG mode say who is on them.
        if gpu.kind == GpuKind::Sliced {
            return GpuHealth::Healthy;
        }
        self.in_use(reading)
            .map_or(GpuHealth::Healthy, |by| GpuHealth::InUseOutside { by })
    }

    /// Why the container engine gives no GPU, where jobs run in containers.
    fn refused<'a>(&self, state: &'a State) -> Option<&'a String> {
        let tried = state.tried.as_ref().filter(|_| !self.shell)?;
        tried.refused.as_ref()
    }

    /// Who is on a GPU that nobody has booked.
    fn in_use(&self, reading: &GpuReading) -> Option<String> {
        let foreign = self.words(reading, |_| true);
        if !foreign.is_empty() {
            return Some(foreign);
        }
        // Without the amount: it changes at every look, and the server is told of each change.
        (reading.processes.is_empty() && reading.used.0 > IDLE)
            .then(|| "processes that cannot be seen from here".to_owned())
    }

    /// Why a GPU is not clean after a job. A person's process beside it is none of the job's dirt: it makes the GPU
    /// *in use outside Trainyard*.
    pub(super) fn dirt(&self, reading: &GpuReading, used_before: ByteSize) -> Option<String> {
        if let GpuHealth::Lost { error } = &reading.gpu.health {
            return Some(format!("it does not answer: {error}"));
        }
        if let Some(fault) = &reading.fault {
            return Some(fault.clone());
        }
        // One that cannot be seen may be anybody's.
        let ours = |process: &GpuProcess| {
            self.shell || process.container.is_some() || process.name.is_empty()
        };
        let left = self.words(reading, ours);
        if !left.is_empty() {
            return Some(format!("{left} is still on it"));
        }
        let most = used_before.0.max(IDLE - LEFT_BEHIND) + LEFT_BEHIND;
        (reading.used.0 > most && reading.processes.is_empty()).then(|| {
            format!(
                "{} of its memory stay in use without a process; reset the GPU",
                reading.used
            )
        })
    }

    /// Who is on a booked GPU and cannot be its attempt's; empty where nobody is, or where nobody can tell.
    pub(super) fn beside(&self, reading: &GpuReading) -> String {
        let strange =
            |process: &GpuProcess| !process.name.is_empty() && process.container.is_none();
        self.words(reading, |process| !self.shell && strange(process))
    }

    /// Processes that are not on the list of known ones, in words.
    fn words(&self, reading: &GpuReading, which: impl Fn(&GpuProcess) -> bool) -> String {
        let unknown = |process: &&GpuProcess| !self.ignore.iter().any(|n| is(&process.name, n));
        let found: Vec<String> = reading
            .processes
            .iter()
            .filter(unknown)
            .filter(|process| which(process))
            .map(GpuProcess::words)
            .collect();
        found.join(", ")
    }
}

/// Whether a process has this name, of which the kernel may have kept the beginning only.
fn is(process: &str, name: &str) -> bool {
    process == name || (name.len() > COMM && name.get(..COMM) == Some(process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_known_by_its_beginning() {
        assert!(is("nvidia-persiste", "nvidia-persistenced"));
        assert!(is("Xorg", "Xorg"));
        assert!(!is("Xorg2", "Xorg") && !is("Xor", "Xorg"));
    }
}
