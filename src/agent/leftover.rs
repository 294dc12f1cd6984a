//! What runs of people leave that were killed (`trainyard run`): nobody will hear the end of their jobs, which run on all
//! the same. The agent and the next run end them; until that is done their GPUs stay booked.

use std::time::Duration;

use protocol::{AttemptId, Span};

use crate::attempt::ATTEMPT_LABEL;
use crate::config::Config;
use crate::executor::{Engine, Process};
use crate::hardware::GpuReading;
use crate::ledger::Ledger;
use crate::local;

/// How long an engine may take to end what one run left.
const WITHIN: Duration = Duration::from_secs(60);

/// Ends all that goes on of a run's attempt: containers with its label in the engine at that address; without one,
/// processes with its mark.
///
/// # Errors
/// Why something may go on.
pub(crate) async fn end(attempt: &AttemptId, engine: Option<&str>) -> Result<(), String> {
    let Some(address) = engine else {
        let process = Process::known(0, 0, attempt.as_str());
        return match tokio::task::block_in_place(|| process.sweep()) {
            true => Ok(()),
            false => Err("some of its processes do not end".to_owned()),
        };
    };
    let ended = tokio::time::timeout(WITHIN, end_containers(attempt, address));
    ended
        .await
        .unwrap_or_else(|_| Err(format!("the container engine took longer than {WITHIN:?}")))
}

async fn end_containers(attempt: &AttemptId, address: &str) -> Result<(), String> {
    let mut config = Config::default();
    config.executors.docker_host = Some(address.to_owned());
    let words = |error: crate::executor::EngineError| error.to_string();
    let engine = Engine::connect(&config).await.map_err(words)?;
    let label = [(ATTEMPT_LABEL.to_owned(), attempt.to_string())];
    for found in engine.find(&label.into()).await.map_err(words)? {
        if !found.container.remove().await {
            return Err(format!("its container {} stays", found.container.id));
        }
    }
    Ok(())
}

/// Ends what killed runs left that had GPUs in this ledger, and gives the GPUs back when they are clean or their grace is
/// over. What cannot be ended keeps its GPUs until the next call.
pub(crate) async fn take_back<Look: Future<Output = Vec<GpuReading>>>(
    ledger: &Ledger,
    grace: Span,
    look: impl Fn() -> Look,
) {
    let left = match ledger.left() {
        Ok(left) => left,
        Err(error) => return tracing::error!("{error}; the next look tries again"),
    };
    for (attempt, booking) in left {
        if let Err(why) = end(&attempt, booking.engine.as_deref()).await {
            tracing::warn!(%attempt, "{} was killed and its GPUs stay booked: {why}; the next look tries again", booking.holder());
            continue;
        }
        if let Some(folder) = &booking.folder {
            local::remove_left(folder, &attempt);
        }
        let unclean = ledger.until_clean(&attempt, grace, &look).await;
        match ledger.take_back_left(&attempt, &unclean) {
            Ok(()) => {
                tracing::warn!(%attempt, "{} was killed; what it left was ended, its GPUs are given back", booking.holder());
            }
            Err(error) => tracing::error!("{error}; the next look tries again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use protocol::Timestamp;

    use super::*;
    use crate::executor::ATTEMPT_VARIABLE;
    use crate::hardware::example;
    use crate::ledger::Runner;

    /// A ledger in which a run has a GPU, and a process of its job.
    fn world(folder: &std::path::Path, engine: Option<String>) -> (Config, AttemptId, Child) {
        let config = Config {
            data: folder.to_owned(),
            ..Config::default()
        };
        let attempt = AttemptId::generate();
        let run = Runner {
            by: "ada".to_owned(),
            engine,
            attempts: folder.join("runs"),
        };
        let ledger = Ledger::for_run(&config, run).unwrap();
        let run = ledger.begin_run(&attempt).unwrap();
        let readings = [example("GPU-1")];
        ledger.book(&attempt, &["GPU-1".into()], &readings).unwrap();
        let job = Command::new("sleep")
            .arg("600")
            .env(ATTEMPT_VARIABLE, attempt.as_str())
            .spawn()
            .unwrap();
        // A process that is killed gives its lock up.
        drop(run);
        (config, attempt, job)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_runs_job_is_ended_before_its_gpu_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let (config, attempt, mut job) = world(folder.path(), None);
        let ledger = Ledger::open(&config).unwrap();
        let look = || std::future::ready(vec![example("GPU-1")]);
        let other = AttemptId::generate();
        let left = folder.path().join("runs").join(attempt.as_str());
        std::fs::create_dir_all(left.join("workspace")).unwrap();
        std::fs::write(left.join("run.lock"), "").unwrap();
        let booked = ledger.book(&other, &["GPU-1".into()], &look().await);
        assert!(booked.is_err(), "the job of the run still has it");
        assert!(job.try_wait().unwrap().is_none(), "it runs on");
        // A process that begins elsewhere has copies of this one's locks for a moment.
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while job.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < until, "it is never ended");
            take_back(&ledger, Span::secs(1), look).await;
        }
        let booked = ledger.book(&other, &["GPU-1".into()], &look().await);
        assert_eq!(booked, Ok(()));
        assert!(!left.exists(), "its folder went too");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_nobody_can_tell_whether_a_job_goes_on_its_gpu_stays_booked() {
        let folder = tempfile::tempdir().unwrap();
        let away = format!("unix://{}/engine.sock", folder.path().display());
        let (config, attempt, mut job) = world(folder.path(), Some(away));
        let ledger = Ledger::open(&config).unwrap();
        let look = || std::future::ready(vec![example("GPU-1")]);
        take_back(&ledger, Span::secs(1), look).await;
        assert_eq!(ledger.bookings()["GPU-1"].attempt, attempt);
        let told = ledger.judged(&look().await)[0]
            .health
            .hindrance(Timestamp::now());
        assert!(told.is_some_and(|why| why.contains("`trainyard run` of ada")));
        job.kill().unwrap();
        job.wait().unwrap();
    }
}
