//! Kernels of other languages than Python, by their kernelspecs.

use std::fs;

use protocol::event::{CellStatus, LogStream};
use protocol::outcome::{FailureKind, Owner};
use protocol::units::Span;
use serde_json::json;

use crate::support::{World, python};

/// A kernel for `sh`: each cell is a program of its own. It asks for input whatever it is told, where a cell is
/// `ask`, and says it is done without an answer where it is `mute`.
const KERNEL: &str = r#"
import os, subprocess, sys, threading
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
class Shell(Kernel):
    implementation, implementation_version, banner = 'shell', '1', 'sh'
    language_info = {'name': 'sh', 'mimetype': 'text/x-sh', 'file_extension': '.sh'}
    async def execute_request(self, stream, ident, parent):
        if parent['content']['code'] != 'mute':
            await super().execute_request(stream, ident, parent)
    def do_execute(self, code, silent, *args, **kwargs):
        if code == 'ask':
            self._allow_stdin = True
            self.raw_input('name? ')
        ran = subprocess.Popen(['sh', '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            said, _ = ran.communicate()
        except KeyboardInterrupt:
            return {'status': 'abort', 'execution_count': self.execution_count}
        self.send_response(self.iopub_socket, 'stream', {'name': 'stdout', 'text': said})
        answer = {'status': 'ok', 'execution_count': self.execution_count, 'payload': [], 'user_expressions': {}}
        if ran.returncode:
            raised = {'ename': 'exit', 'evalue': str(ran.returncode), 'traceback': []}
            self.send_response(self.iopub_socket, 'error', raised)
            answer |= {'status': 'error', **raised}
        return answer
    def do_shutdown(self, restart):
        # ipykernel's threads may wait for each other at the end, which is another story.
        threading.Timer(0.5, os._exit, (0,)).start()
        return {'status': 'ok', 'restart': restart}
IPKernelApp.launch_instance(kernel_class=Shell)
"#;

/// A notebook in the language of [`KERNEL`].
fn shell(cells: &[(&str, &[&str])]) -> World {
    let world = World::notebook(cells);
    let folder = world.path("home/.local/share/jupyter/kernels/Shell");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("kernel.py"), KERNEL).unwrap();
    let argv = json!([
        python(),
        "{resource_dir}/kernel.py",
        "-f",
        "{connection_file}"
    ]);
    let spec = json!({"argv": argv, "language": "sh", "display_name": "Shell", "env": {"GREETING": "hi $HOME"}});
    fs::write(folder.join("kernel.json"), spec.to_string()).unwrap();
    world.metadata(
        "kernelspec",
        json!({"name": "shell", "language": "sh", "display_name": "Shell"}),
    );
    world
}

#[test]
fn another_language_runs_like_python() {
    let told = shell(&[
        ("echo \"$GREETING\"; pwd", &[]),
        ("exit 7", &["raises-exception"]),
        ("echo last; exit 3", &[]),
        ("echo never", &[]),
    ])
    .run();
    let at = |name: &str| told.world.path(name).display().to_string();
    assert_eq!(
        told.stdout(0),
        format!("hi {}\n{}\n", at("home"), at("work"))
    );
    let failure = told.failure();
    assert_eq!(
        (failure.kind, failure.message.as_str()),
        (FailureKind::CellRaised, "exit: 3")
    );
    assert_eq!(failure.cell.as_ref().unwrap().index, 2);
    let statuses = [
        (0, CellStatus::Ok),
        (1, CellStatus::ErrorAllowed),
        (2, CellStatus::Error),
    ];
    assert_eq!(told.statuses(), statuses);
    assert_eq!(told.executed()["metadata"]["language_info"]["name"], "sh");
}

#[test]
fn a_kernel_that_asks_for_input_all_the_same_is_answered_with_a_failure() {
    let mut world = shell(&[("ask", &[]), ("echo never", &[])]);
    world.job.grace = Span::secs(1);
    let told = world.run();
    let failure = told.failure();
    assert_eq!(
        (failure.kind, failure.owner()),
        (FailureKind::CellRaised, Owner::User)
    );
    assert_eq!(
        failure.message,
        "The cell asks for input (\"name?\"), and nobody can answer here."
    );
    assert!(failure.hint.as_ref().unwrap().contains("parameter"));
    assert_eq!(failure.cell.as_ref().unwrap().index, 0);
    assert_eq!(told.statuses(), [(0, CellStatus::Interrupted)]);
}

#[test]
fn a_kernel_that_is_done_and_never_answers_is_given_up() {
    let told = shell(&[("mute", &[]), ("echo never", &[])]).run();
    let failure = told.failure();
    assert_eq!(failure.kind, FailureKind::KernelDied);
    assert_eq!(
        failure.message,
        "The kernel was done with the cell and did not answer within 10s."
    );
    assert_eq!(failure.cell.as_ref().unwrap().index, 0);
}

#[test]
fn a_cell_of_another_language_is_interrupted_too() {
    let mut world = shell(&[("echo $$; sleep 1000", &[])]);
    // A busy host has started the shell by then.
    world.job.limits.cell_timeout = Some(Span::secs(5));
    world.job.grace = Span::secs(60);
    let told = world.run();
    assert_eq!(told.failure().kind, FailureKind::CellTimeout);
    // By the interrupt, and not killed: there is a minute for that.
    assert_ne!(told.result.signal, Some(9));
}

#[test]
fn a_kernel_that_talks_much_before_it_answers_is_heard() {
    let mut world = World::cell("print('here')");
    let noise = "i=0; while [ $i -lt 4000 ]; do echo \"noise $i on standard output, more of it than a pipe holds\"; \
                 echo \"noise $i on standard error, more of it than a pipe holds\" >&2; i=$((i+1)); done";
    world.program(
        "python3",
        &format!("#!/bin/sh\n{noise}\nexec '{}' \"$@\"\n", python().display()),
    );
    let told = world.run();
    told.succeeded();
    assert_eq!(told.stdout(0), "here\n");
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        assert_eq!(
            told.log(stream)
                .lines()
                .filter(|line| line.starts_with("noise"))
                .count(),
            4_000
        );
    }
}

#[test]
fn a_kernel_that_is_not_there_is_answered_with_those_that_are() {
    let world = shell(&[("x", &[])]);
    world.metadata("kernelspec", json!({"name": "shel", "language": "sh"}));
    let told = world.run();
    let failure = told.failure();
    assert_eq!(failure.kind, FailureKind::NotebookInvalid);
    assert!(
        failure.message.contains("'shel'")
            && failure.message.contains("Shell")
            && failure.message.contains("python3"),
        "{}",
        failure.message
    );
    assert!(
        failure.hint.as_ref().unwrap().contains("'Shell'"),
        "{:?}",
        failure.hint
    );
}
