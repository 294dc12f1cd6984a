//! `trainyard gpus`: the GPUs of this host as Trainyard sees them.

use std::path::PathBuf;

use agent::hardware::{GpuProcess, GpuReading, Hardware};
use agent::ledger::{Booking, Ledger};
use clap::Args as ClapArgs;
use comfy_table::{Table, presets};
use protocol::ByteSize;
use protocol::hardware::{Gpu, GpuHealth};
use serde::Serialize;

use super::Exit;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The agent's configuration
    #[arg(long, value_name = "FILE", env = "TRAINYARD_AGENT_CONFIG")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    gpu: Gpu,
    used: ByteSize,
    utilization_percent: Option<u32>,
    processes: Vec<String>,
    booked_by: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let config = super::agent::config(args.config.as_deref())?;
    let hardware = Hardware::open(&config);
    let readings = hardware.gpus();
    let bookings = config.data.join("bookings");
    let ledger = Ledger::look(&bookings, &config.gpus.ignore).or_else(|error| {
        eprintln!("note: {error}: bookings are not shown");
        Ledger::look(&bookings.join("none"), &config.gpus.ignore)
    })?;
    let booked = ledger.bookings();
    let judged = ledger.judged(&readings);
    let rows: Vec<Row> = readings
        .iter()
        .zip(judged)
        .map(|(reading, gpu)| row(reading, booked.get(&gpu.uuid), gpu))
        .collect();

    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else if rows.is_empty() {
        let why = hardware
            .absent()
            .map_or_else(|| "NVML counts none".to_owned(), ToString::to_string);
        println!("no GPUs: {why}");
    } else {
        println!("{}", table(&rows).trim_fmt());
    }
    Ok(Exit::Done)
}

fn row(reading: &GpuReading, booking: Option<&Booking>, gpu: Gpu) -> Row {
    Row {
        gpu,
        used: reading.used,
        utilization_percent: reading.utilization,
        processes: reading.processes.iter().map(GpuProcess::words).collect(),
        booked_by: booking.map(|booking| booking.attempt.to_string()),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["GPU", "MODEL", "MEMORY", "USED", "USE", "STATE", "UUID"]);
    for row in rows {
        let state = match (&row.booked_by, &row.gpu.health) {
            (Some(attempt), GpuHealth::Healthy) => format!("attempt {attempt}"),
            (None, GpuHealth::Healthy) => "free".to_owned(),
            (_, GpuHealth::InUseOutside { by }) => format!("in use outside Trainyard: {by}"),
            (_, GpuHealth::Quarantined { reason }) => format!("quarantined: {reason}"),
            (_, GpuHealth::Lost { error }) => format!("lost: {error}"),
        };
        table.add_row([
            row.gpu.index.to_string(),
            row.gpu.model.clone(),
            row.gpu.memory.to_string(),
            row.used.to_string(),
            row.utilization_percent
                .map_or_else(String::new, |percent| format!("{percent} %")),
            state,
            row.gpu.uuid.clone(),
        ]);
    }
    table
}
