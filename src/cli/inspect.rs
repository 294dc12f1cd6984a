//! `trainyard inspect`: what a notebook is, and the parameters that it offers.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use notebook::parameters::{Parameter, defaults, offered};
use notebook::{Notebook, fingerprint};
use serde_json::{Value, json};

use super::out::{drawn, json as say_json, say};
use super::{Exit, notebooks};

/// Most characters of a default or a help text in the table; --json has all.
const MAX_CHARS: usize = 60;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  trainyard inspect train.ipynb
  trainyard inspect train.ipynb --json | jq '.parameters[].name'")]
pub(crate) struct Args {
    /// A notebook; - is standard input
    notebook: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let notebook = notebooks::read(&args.notebook)?;
    if args.json {
        say_json(&report(args, &notebook))?;
    } else {
        say(&words(args, &notebook))?;
    }
    Ok(Exit::Done)
}

fn report(args: &Args, notebook: &Notebook) -> Value {
    let parameter = |one: &Parameter| {
        json!({
            "name": one.name, "type": one.type_name, "default": one.default, "help": one.help, "line": one.line,
        })
    };
    let offered = offered(notebook);
    let tagged = tagged(notebook).into_iter();
    json!({
        "notebook": args.notebook,
        "kernel": notebook.kernel_name(),
        "language": notebook.language(),
        "cells": notebook.cells.len(),
        "code_cells": notebook.code_cells().count(),
        "fingerprint": fingerprint::hex(notebook),
        "tags": tagged.map(|(cell, tags)| json!({"cell": cell, "tags": tags})).collect::<Vec<_>>(),
        "problems": notebooks::problems(notebook),
        "parameters_cell": defaults(notebook).map(|(index, _)| index + 1),
        "parameters": offered.as_ref().map(|all| all.iter().map(parameter).collect::<Vec<_>>()),
    })
}

fn words(args: &Args, notebook: &Notebook) -> String {
    let language = notebook.language();
    let tags = tagged(notebook)
        .into_iter()
        .map(|(cell, tags)| format!("cell {cell}: {}", tags.join(", ")));
    let tags: Vec<String> = tags.collect();
    let kernel = notebook
        .kernel_name()
        .unwrap_or("not said: the default, python3");
    let mut rows = vec![
        ["notebook".to_owned(), args.notebook.display().to_string()],
        ["kernel".to_owned(), kernel.to_owned()],
        [
            "language".to_owned(),
            language.clone().unwrap_or_else(|| "not said".to_owned()),
        ],
        [
            "cells".to_owned(),
            format!(
                "{}, {} of code",
                notebook.cells.len(),
                notebook.code_cells().count()
            ),
        ],
        ["fingerprint".to_owned(), fingerprint::hex(notebook)],
    ];
    if !tags.is_empty() {
        rows.push(["tags".to_owned(), tags.join("; ")]);
    }
    rows.extend(
        notebooks::problems(notebook)
            .iter()
            .map(|problem| ["problem".to_owned(), problem.to_string()]),
    );
    let width = rows
        .iter()
        .map(|[name, _]| name.len())
        .max()
        .unwrap_or_default();
    let lines = rows.iter().map(|[name, value]| {
        let value = render::terminal::clean(value, false).replace(['\n', '\r'], " ");
        format!("{name:width$}  {value}\n")
    });
    let about: String = lines.collect();
    format!("{about}\n{}", parameters(notebook, language.as_deref()))
}

fn parameters(notebook: &Notebook, language: Option<&str>) -> String {
    let Some((index, _)) = defaults(notebook) else {
        return "no code cell is tagged 'parameters': values that are given are set in a cell at the top".to_owned();
    };
    let cell = index + 1;
    let Some(offered) = offered(notebook) else {
        let language =
            render::terminal::clean(language.unwrap_or("a language that is not said"), false);
        return format!(
            "cell {cell} is tagged 'parameters'; what it assigns is not looked at: it is in {language}, or has more than 64 KiB or 1,000 parameters"
        );
    };
    if offered.is_empty() {
        return format!(
            "cell {cell} is tagged 'parameters' and assigns nothing at its left margin"
        );
    }
    let rows = offered.into_iter().map(|one| {
        let type_name = one.type_name.unwrap_or_else(|| "?".to_owned());
        [one.name, type_name, short(&one.default), short(&one.help)]
    });
    let table = drawn(["PARAMETER", "TYPE", "DEFAULT", "HELP"], rows);
    let lines = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// On one line, and not too long.
fn short(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    match text.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Code cells with tags that change what is executed; cells count from 1.
fn tagged(notebook: &Notebook) -> Vec<(usize, Vec<&'static str>)> {
    let cells = notebook.code_cells().map(|(index, cell)| {
        let tags = fingerprint::TAGS
            .into_iter()
            .filter(|tag| cell.has_tag(tag));
        (index + 1, tags.collect::<Vec<_>>())
    });
    cells.filter(|(_, tags)| !tags.is_empty()).collect()
}
