//! The files that people copy: each is read by the parser that will read the copy.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of one kind, never none.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("runner-configs")
        .join(folder);
    let mut found: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|have| have == extension))
        .collect();
    assert!(!found.is_empty(), "{} is empty", folder.display());
    found.sort();
    found
}

#[test]
fn every_agent_file_is_a_configuration() {
    for path in files("agent", "toml") {
        if let Err(error) = agent::config::Config::read(&path) {
            panic!("{error}");
        }
    }
}

#[test]
fn every_server_file_is_a_configuration() {
    for path in files("server", "toml") {
        let config = server::config::Config::read(&path).unwrap_or_else(|error| panic!("{error}"));
        if let Err(error) = config.address() {
            panic!("{}: {error}", path.display());
        }
    }
}

#[test]
fn every_pipeline_file_is_one() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits/.trainyard.yml");
    for path in files("pipeline", "yml").into_iter().chain([example]) {
        if let Err(error) = plan::PipelineFile::parse(&fs::read(&path).unwrap()) {
            panic!("{}: {error}", path.display());
        }
    }
}

/// A unit starts the program that a release unpacks, as an ordinary user, and comes back after a fault.
#[test]
fn every_unit_starts_the_packed_program_as_an_ordinary_user() {
    for path in files("systemd", "service") {
        let text = fs::read_to_string(&path).unwrap();
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .unwrap_or_else(|| panic!("{} has no {key}=", path.display()))
        };
        assert!(
            value("ExecStart").starts_with("/opt/trainyard/bin/trainyard "),
            "{}",
            path.display()
        );
        assert_ne!(value("User"), "root", "{}", path.display());
        let restarts = ["always", "on-failure"].contains(&value("Restart"));
        assert!(restarts, "{}", path.display());
    }
}

/// An agent that is told to stop leaves its jobs running.
#[test]
fn the_agents_unit_stops_the_agent_alone() {
    let unit = fs::read_to_string(
        files("systemd", "service")
            .into_iter()
            .find(|path| path.ends_with("trainyard-agent.service"))
            .expect("a unit for the agent"),
    )
    .unwrap();
    assert!(unit.lines().any(|line| line == "KillMode=process"));
    assert!(!unit.lines().any(|line| line.starts_with("Requires=")));
}
