//! The long form: many rounds, by hand. What each did is a line of a file, from which a run that was stopped goes on.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Instant;

use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::{Round, run};

fn number(name: &str) -> u64 {
    let value =
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/faults"));
    value.parse().unwrap()
}

/// Rounds of this seed that are in the file already.
fn done(file: &Path, seed: u64) -> Vec<u64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ours = rows.filter(|row| row["seed"] == seed);
    ours.map(|row| row["round"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: scripts/faults"]
async fn many_rounds() {
    let seed = number("TRAINYARD_FAULTS_SEED");
    let (first, end) = (
        number("TRAINYARD_FAULTS_FROM"),
        number("TRAINYARD_FAULTS_TO"),
    );
    let file = std::env::var("TRAINYARD_FAULTS_FILE").unwrap();
    let file = Path::new(&file);
    let done = done(file, seed);
    let mut failed = Vec::new();
    for number in (first..end).filter(|number| !done.contains(number)) {
        let round = Round::new(seed, u32::try_from(number).unwrap());
        eprintln!("{round}");
        let words = round.to_string();
        let began = Instant::now();
        let judged = AssertUnwindSafe(run(&round)).catch_unwind().await;
        let (done, problem) = match judged {
            Ok(done) => (done, None),
            Err(panic) => (Vec::new(), Some(panic)),
        };
        let done: Vec<_> = done.iter().map(|done| format!("{:?}", done.deed)).collect();
        let problem = problem.map(|panic| match panic.downcast::<String>() {
            Ok(words) => *words,
            Err(panic) => panic
                .downcast::<&str>()
                .map_or_else(|_| "it panicked".to_owned(), |words| (*words).to_owned()),
        });
        let row = json!({"seed": seed, "round": number, "seconds": began.elapsed().as_secs_f64(), "plan": words, "done": done, "problem": problem});
        let mut rows = OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .unwrap();
        writeln!(rows, "{row}").unwrap();
        failed.extend(problem.map(|problem| format!("{words}\n{problem}")));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
