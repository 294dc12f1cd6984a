//! A job under watch: samples of what it uses, and the limits that only the host can see.

use std::time::{Duration, Instant};

use protocol::driver::{BODIES_DIR, OUT_DIR};
use protocol::event::{EventKind, GpuSample, Sample};
use protocol::{ByteSize, Span};

use super::disk::DiskWatch;
use super::judge::{Cause, GpusIdle};
use super::measured::Measured;
use super::{Attempt, dir};
use crate::executor::{Meter, Reading, Running};

pub(super) struct Watch<'a> {
    pub(super) disk: DiskWatch<'a>,
    meter: Option<Meter>,
    pub(super) measured: Measured,
    /// The last sample: when it was, and the CPU time then.
    last: Option<(Instant, Option<Span>)>,
}

/// More than caches ever held: they have not grown.
const NOBODYS: ByteSize = ByteSize(u64::MAX);

impl Attempt<'_> {
    pub(super) async fn watch(&self, running: &Running) -> Watch<'_> {
        let dir = &self.dir;
        // In the last two lies what its code gives to the registry, until the server has it.
        let folders = vec![
            dir.workspace(),
            dir.tmp(),
            dir.home(),
            dir.contract().join(OUT_DIR).join(BODIES_DIR),
            dir.registry(),
        ];
        let checkpoints = (
            self.checkpoints().files(),
            self.order.spec.checkpoints.max_size,
        );
        let mut measured = self.measured();
        // An earlier agent did not note it.
        let before = *measured
            .cache_before
            .get_or_insert_with(|| self.cache_size());
        let cache = (self.cache(), before);
        let mut watch = Watch {
            disk: DiskWatch::new(folders, checkpoints, cache, &self.host.config.disk),
            meter: running.meter().await,
            measured,
            last: None,
        };
        self.note_sharers(&mut watch);
        watch
    }

    /// From when on another has the same caches, what they grow by is nobody's.
    fn note_sharers(&self, watch: &mut Watch<'_>) {
        if watch.measured.cache_before != Some(NOBODYS)
            && tokio::task::block_in_place(|| self.shares_cache())
        {
            watch.measured.cache_before = Some(NOBODYS);
            watch.disk.leave_cache(NOBODYS);
        }
    }

    /// What was measured before, by an earlier agent too.
    pub(super) fn measured(&self) -> Measured {
        dir::read_json(&self.dir.usage_file())
            .unwrap_or_else(|error| {
                tracing::warn!(attempt = %self.order.attempt, "usage.json is begun anew: {error}");
                None
            })
            .unwrap_or_default()
    }

    /// Looks at memory, processes and disk; says why the job must end, where it must.
    pub(super) fn look(&self, watch: &mut Watch<'_>) -> Option<Cause> {
        if let Some(meter) = watch.meter.as_ref().filter(|meter| meter.is_quick()) {
            watch.measured.peaks.add(&meter.read());
        }
        // It may walk a large tree; other attempts share this runtime.
        tokio::task::block_in_place(|| watch.disk.look()).map(Cause::DiskFull)
    }

    /// Takes a sample; says why the job must end, where its GPUs show that.
    pub(super) fn sample(&self, watch: &mut Watch<'_>, gpus: Vec<GpuSample>) -> Option<Cause> {
        let meter = watch.meter.as_ref();
        let reading = tokio::task::block_in_place(|| meter.map(Meter::read)).unwrap_or_default();
        watch.measured.peaks.add(&reading);
        let now = Instant::now();
        let (at, cpu_before) = watch.last.replace((now, reading.cpu_time))?;
        let passed = now.duration_since(at).max(Duration::from_millis(1));
        // Of a time in which the agent did not look nobody knows anything.
        let seen = Span::from(passed.min(2 * Duration::from(self.host.config.timing.sample)));
        let below = self.host.config.gpus.idle_below;
        watch.measured.add_gpus(&gpus, seen, below);
        if let Some((cpu_millis, memory)) = rate(&reading, cpu_before, passed) {
            watch.measured.add(cpu_millis, memory, seen);
            self.tell(EventKind::Sample(Sample {
                cpu_millis,
                memory,
                gpus,
            }));
        }
        self.note_sharers(watch);
        self.warn_of_idle_gpus(&mut watch.measured);
        let written = tokio::task::block_in_place(|| {
            dir::write_json(&self.dir.usage_file(), &watch.measured)
        });
        if let Err(error) = written {
            tracing::warn!(attempt = %self.order.attempt, "cannot write usage.json: {error}");
        }
        self.idle_too_long(&watch.measured).map(Cause::GpusIdle)
    }

    /// Once for each attempt, as a line of its log and as a note of its report.
    fn warn_of_idle_gpus(&self, measured: &mut Measured) {
        let config = &self.host.config.gpus;
        if config.idle_warning.0 == 0 || !measured.notes.is_empty() {
            return;
        }
        let idle = measured.idle(config.idle_warning);
        if idle.is_empty() {
            return;
        }
        let names: Vec<&str> = idle.iter().map(|(uuid, _)| *uuid).collect();
        let who = match self.order.gpus.len() {
            1 => "the job's GPU".to_owned(),
            all => format!("{} of the job's {all} GPUs", names.len()),
        };
        let note = format!(
            "{who} stayed under {} % of use for {} ({}); `gpu_idle_timeout` ends such a job",
            config.idle_below,
            config.idle_warning,
            names.join(", ")
        );
        self.log(format!("warning: {note}"));
        measured.notes.push(note);
    }

    /// Where the job says when it is to end, and all of its GPUs have been idle for so long.
    fn idle_too_long(&self, measured: &Measured) -> Option<GpusIdle> {
        let limit = self.order.spec.limits.gpu_idle_timeout?;
        let idle = measured.idle(limit);
        let count = self.order.gpus.len();
        if count == 0 || idle.len() < count {
            return None;
        }
        let most = |values: &mut dyn Iterator<Item = u64>| values.max().unwrap_or(0);
        Some(GpusIdle {
            limit,
            count,
            below: self.host.config.gpus.idle_below,
            utilization: most(&mut idle.iter().map(|(_, idle)| u64::from(idle.utilization))),
            memory: ByteSize(most(&mut idle.iter().map(|(_, idle)| idle.memory.0))),
        })
    }
}

/// CPUs in use since the sample before, in thousandths, and memory; none where the host tells neither.
fn rate(reading: &Reading, cpu_before: Option<Span>, passed: Duration) -> Option<(u64, ByteSize)> {
    let used = reading.cpu_time?.0.saturating_sub(cpu_before?.0);
    let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
    Some((used * 1_000 / passed.max(1), reading.memory?))
}
