//! The `trainyard` command: arguments, telemetry, dispatch; nothing else.

mod cli;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    start_telemetry();
    let runtime = tokio::runtime::Runtime::new().expect("a thread for the runtime");
    match runtime.block_on(cli::dispatch(arguments.command)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // The terminal may be gone, and the exit code says it too.
            let _ = writeln!(std::io::stderr(), "error: {}", cli::words(&error));
            cli::Exit::of(&error).into()
        }
    }
}

/// Logs go to standard error: `TRAINYARD_LOG=debug` for more, `TRAINYARD_LOG_FORMAT=json` for machines.
fn start_telemetry() {
    let filter = EnvFilter::try_from_env("TRAINYARD_LOG").unwrap_or_else(|_| {
        EnvFilter::new("warn,trainyard=info,trainyard_agent=info,trainyard_server=info")
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if std::env::var("TRAINYARD_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().init();
    } else {
        builder.with_target(false).init();
    }
}
