//! GPUs for runs without a server, booked in the ledger of this host's agent, so that neither takes what the other has.
//! Where there is no agent, runs have a ledger of their own.

use std::collections::BTreeSet;

use protocol::hardware::Inventory;
use protocol::{AttemptId, Failure, FailureKind, Span, Timestamp};

use crate::config::Config;
use crate::gpus::{Containers, view};
use crate::hardware::GpuReading;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerError, NotBooked, Run, Runner};
use crate::leftover;

/// Where runs get their GPUs.
#[derive(Debug)]
pub struct Desk<'a> {
    host: &'a Host,
    ledger: Ledger,
    clean_grace: Span,
}

/// The GPUs at one moment.
#[derive(Debug)]
pub struct Look {
    /// The host, with its GPUs as the ledger judges them.
    pub inventory: Inventory,
    /// UUIDs of those that somebody has booked.
    pub taken: BTreeSet<String>,
    readings: Vec<GpuReading>,
}

/// What a run has of the host's GPUs. What is not given back when its process ends is taken back by whoever looks next.
#[derive(Debug)]
pub struct Held {
    pub(super) attempt: AttemptId,
    pub(super) uuids: Vec<String>,
    pub(super) readings: Vec<GpuReading>,
    run: Option<Run>,
}

impl Held {
    /// What a run has that wants no GPU.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            attempt: AttemptId::generate(),
            uuids: Vec::new(),
            readings: Vec::new(),
            run: None,
        }
    }
}

impl<'a> Desk<'a> {
    /// Opens the ledger of the agent with this configuration; where it has no data folder here, that of local runs. `by`
    /// is the person. What killed runs left is ended, and their GPUs are taken back.
    ///
    /// # Errors
    /// Where the ledger cannot be used: a person may have to be the agent's user.
    pub async fn open(host: &'a Host, agent: &Config, by: &str) -> Result<Self, LedgerError> {
        // Where nobody may look, there is one.
        let data = match agent.data.try_exists().unwrap_or(true) {
            true => &agent.data,
            false => &host.config.data,
        };
        let config = Config {
            data: data.clone(),
            gpus: agent.gpus.clone(),
            executors: host.config.executors.clone(),
            ..Config::default()
        };
        let run = Runner {
            by: by.to_owned(),
            engine: super::containers_in(host),
            attempts: host.data().join("attempts"),
        };
        let ledger = Ledger::for_run(&config, run)?;
        let clean_grace = agent.gpus.clean_grace;
        let look = || std::future::ready(host.hardware.gpus());
        leftover::take_back(&ledger, clean_grace, look).await;
        Ok(Self {
            host,
            ledger,
            clean_grace,
        })
    }

    /// Looks at the GPUs, through the ledger.
    ///
    /// # Errors
    /// The disk's.
    pub fn look(&self) -> Result<Look, LedgerError> {
        let readings = self.host.hardware.gpus();
        self.ledger.notice(&[], &readings)?;
        Ok(Look {
            inventory: Inventory {
                gpus: self.ledger.judged(&readings),
                ..self.host.inventory.clone()
            },
            taken: self.ledger.bookings().into_keys().collect(),
            readings,
        })
    }

    /// Who has these GPUs, or what else keeps a job off them, in words; those that are free are left out.
    #[must_use]
    pub fn who(&self, look: &Look, uuids: &[String]) -> String {
        let now = Timestamp::now();
        let kept = view(&look.readings, &self.ledger, &Containers::default())
            .into_iter()
            .filter(|gpu| uuids.contains(&gpu.gpu.uuid))
            .filter(|gpu| gpu.attempt.is_some() || gpu.gpu.health.hindrance(now).is_some())
            .map(|gpu| format!("GPU {}: {}", gpu.gpu.index, gpu.state(now)));
        kept.collect::<Vec<_>>().join("; ")
    }

    /// Books GPUs for a run.
    ///
    /// # Errors
    /// The failure of an attempt whose GPUs somebody took in between, or whose ledger cannot be written.
    pub fn book(&self, look: Look, uuids: Vec<String>) -> Result<Held, Failure> {
        let mut held = Held::nothing();
        if uuids.is_empty() {
            return Ok(held);
        }
        let run = self.ledger.begin_run(&held.attempt).map_err(|error| {
            let words = format!("GPUs could not be booked: {error}");
            Failure::new(FailureKind::ExecutorFailed, words)
        })?;
        let booked = self.ledger.book(&held.attempt, &uuids, &look.readings);
        booked.map_err(NotBooked::into_failure)?;
        held.uuids = uuids;
        held.readings = look.readings;
        held.run = Some(run);
        Ok(held)
    }

    /// Gives a run's GPUs back when they are clean or their grace is over. Answers with what is quarantined, and why.
    ///
    /// # Errors
    /// The disk's; what was not given back stays booked until somebody looks again.
    pub async fn give_back(&self, held: Held) -> Result<Vec<(String, String)>, LedgerError> {
        if held.run.is_none() {
            return Ok(Vec::new());
        }
        let hardware = &self.host.hardware;
        let look = || std::future::ready(hardware.gpus());
        let unclean = self
            .ledger
            .until_clean(&held.attempt, self.clean_grace, look)
            .await;
        // The agent beside this may have quarantined one meanwhile.
        self.ledger.refresh()?;
        self.ledger.give_back(&held.attempt, &unclean)?;
        Ok(unclean)
    }
}
