//! `trainyard-driver run --dir /trainyard`: arguments and exit code; the work is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use trainyard_driver::run;

const HELP: &str = "\
Runs one job and writes what happens to a folder.

Usage: trainyard-driver run [--dir FOLDER]

  --dir FOLDER   reads FOLDER/job.json, writes FOLDER/out/ [default: /trainyard]
  --help         this text
  --version      the version

Exit codes: 0 a result was written, whatever it says; 1 none could be; 2 wrong arguments.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let folder = match arguments.as_slice() {
        ["--help" | "-h" | "help"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ["--version" | "-V"] => {
            println!("trainyard-driver {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        ["run"] => PathBuf::from(protocol::driver::MOUNT),
        ["run", "--dir", folder] => PathBuf::from(folder),
        other => {
            eprintln!("trainyard-driver: these arguments are not understood: {other:?}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&folder) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trainyard-driver: {error}");
            ExitCode::FAILURE
        }
    }
}
