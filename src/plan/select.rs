//! Which definitions a trigger starts, and why not the others.

use std::collections::BTreeSet;

use protocol::{Trigger, TriggerKind, Trust};

use crate::PlanError;
use crate::file::{Branches, Job, On, PipelineFile, unknown};
use crate::globs::Globs;
use crate::planned::Ignored;

/// What a trigger starts.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    /// Each after those that it needs.
    pub(crate) definitions: Vec<&'a str>,
    pub(crate) ignored: Vec<Ignored>,
    pub(crate) notes: Vec<String>,
}

/// Chooses among the definitions. `only`, where not empty, chooses for re-runs.
pub(crate) fn select<'a>(
    file: &'a PipelineFile,
    trigger: &Trigger,
    only: &[String],
) -> Result<Selection<'a>, PlanError> {
    let mut selection = Selection {
        definitions: Vec::new(),
        ignored: Vec::new(),
        notes: Vec::new(),
    };
    let mut chosen: BTreeSet<&str> = BTreeSet::new();
    let asked = asked_for(trigger, only);
    if let Some(asked) = asked {
        let scheduled = matches!(trigger.kind, TriggerKind::Schedule { .. });
        // The file of the branch that a fork's commit goes to moves on while the commit stays.
        let moved = trigger.trust == Trust::Untrusted && asked.len() > 1;
        for name in asked {
            match file.jobs.names().find(|known| known == name) {
                Some(known) => {
                    chosen.insert(known);
                }
                // The file may have changed since the time table was read.
                None if scheduled => {
                    selection
                        .notes
                        .push(format!("'{name}' was due and is not defined any more"));
                }
                None if moved => {
                    let note = format!("'{name}' ran here and is not defined any more");
                    selection.notes.push(note);
                }
                None => {
                    let known: Vec<&str> = file.jobs.names().collect();
                    return Err(PlanError::Definition(unknown("job", name, &known)));
                }
            }
        }
    }
    for (name, job) in file.jobs.iter() {
        match (asked, refusal(file.on(job), trigger)) {
            (Some(_), _) if chosen.contains(name) => {}
            (Some(_), _) => selection.ignored.push(ignored(name, "was not asked for")),
            (None, None) => {
                chosen.insert(name);
            }
            (None, Some(why)) => selection.ignored.push(ignored(name, &why)),
        }
    }
    let mut order = Vec::new();
    for name in file.jobs.names().filter(|name| chosen.contains(name)) {
        with_needs(file, name, &mut order);
    }
    selection
        .ignored
        .retain(|ignored| !order.contains(&ignored.definition.as_str()));
    selection.definitions = order;
    Ok(selection)
}

/// The definitions that a trigger names; none: those whose `on` matches.
fn asked_for<'a>(trigger: &'a Trigger, only: &'a [String]) -> Option<&'a [String]> {
    let some = |list: &'a [String]| (!list.is_empty()).then_some(list);
    match &trigger.kind {
        TriggerKind::Push | TriggerKind::PullRequest { .. } => None,
        TriggerKind::Schedule { definitions } => Some(definitions),
        TriggerKind::Rerun { .. } | TriggerKind::Reproduction { .. } => some(only),
        TriggerKind::Person { definitions, .. } => some(definitions),
    }
}

/// Why a trigger does not start a definition.
fn refusal(on: Option<&On>, trigger: &Trigger) -> Option<String> {
    let default = On {
        push: Some(Branches::All(true)),
        pull_request: true,
        schedule: None,
    };
    let on = on.unwrap_or(&default);
    match &trigger.kind {
        TriggerKind::Push => push_refusal(on, trigger),
        TriggerKind::PullRequest { .. } if on.pull_request => None,
        TriggerKind::PullRequest { .. } => Some("its 'on' names no pull requests".to_owned()),
        TriggerKind::Schedule { .. } => Some("it is not due".to_owned()),
        TriggerKind::Rerun { .. }
        | TriggerKind::Reproduction { .. }
        | TriggerKind::Person { .. } => None,
    }
}

fn push_refusal(on: &On, trigger: &Trigger) -> Option<String> {
    let tag = trigger
        .reference
        .as_deref()
        .is_some_and(|r| r.starts_with("refs/tags/"));
    match (&on.push, trigger.branch()) {
        (None | Some(Branches::All(false)), _) => Some("its 'on' names no pushes".to_owned()),
        (Some(_), _) if tag => Some("tags start nothing".to_owned()),
        (Some(Branches::All(true)), _) => None,
        (Some(Branches::Some(globs)), branch) => {
            let list = Globs::new(globs.iter().map(String::as_str)).ok();
            let matches = branch
                .zip(list)
                .is_some_and(|(branch, list)| list.matches(branch));
            (!matches).then(|| format!("it runs on pushes to {}", globs.join(", ")))
        }
    }
}

/// Puts a definition after those that it needs. The file has been checked: there are no circles.
fn with_needs<'a>(file: &'a PipelineFile, name: &'a str, order: &mut Vec<&'a str>) {
    if order.contains(&name) {
        return;
    }
    for need in file
        .job(name)
        .map_or(&[][..], |job: &Job| job.needs.as_slice())
    {
        with_needs(file, &need.value.0, order);
    }
    order.push(name);
}

fn ignored(name: &str, why: &str) -> Ignored {
    Ignored {
        definition: name.to_owned(),
        why: why.to_owned(),
    }
}
