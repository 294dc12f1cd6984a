//! What is run again when jobs are asked for again: they and what they need, each of the plan that it was made in.

use std::collections::{BTreeSet, HashMap};

use protocol::{JobId, Work};

use crate::store::jobs::Job;

/// Where jobs are chosen from.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// All jobs of each pipeline of which one is asked for.
    pub(super) own: &'a [Vec<Job>],
    /// The newest job of each name.
    pub(super) newest: &'a [Job],
    /// Those that succeeded, and left what is gone.
    pub(super) gone: &'a BTreeSet<JobId>,
}

/// A job that stands in the new pipeline.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) job: Job,
    /// Whether it runs again; else its result stays.
    pub(super) runs: bool,
}

impl Known<'_> {
    /// What is asked for and all that it needs, each name once, in the order of the newest. What is needed is taken from the
    /// pipeline of what needs it: another one may have run it with other values, or looked at other notebooks.
    pub(super) fn choose(self, asked: &[&JobId]) -> Vec<Chosen> {
        let is_asked = |job: &Job| asked.contains(&&job.id);
        let all = self.own.iter().flatten().filter(|job| is_asked(job));
        let mut chosen: Vec<Chosen> = all.cloned().map(|job| self.chosen(job, true)).collect();
        for siblings in self.own {
            for job in needed(siblings, asked) {
                if !is_asked(job) {
                    self.add(&mut chosen, self.best(job), asked);
                }
            }
        }
        self.make_again(&mut chosen);
        let names = self
            .newest
            .iter()
            .map(|job| job.spec.name.as_str())
            .zip(0..);
        let places: HashMap<&str, usize> = names.collect();
        chosen.sort_by_key(|one| places.get(one.job.spec.name.as_str()).copied());
        chosen
    }

    fn chosen(self, job: Job, asked: bool) -> Chosen {
        let runs = asked || !succeeded(&job);
        Chosen { job, runs }
    }

    /// Whether a job's result can be built on.
    fn is_there(self, job: &Job) -> bool {
        succeeded(job) && !self.gone.contains(&job.id)
    }

    /// A job that is needed, or in its place the newest of its name that has its key and can be built on.
    fn best<'b>(self, own: &'b Job) -> &'b Job
    where
        Self: 'b,
    {
        let mut newest = self.newest.iter();
        let other = newest.find(|job| job.spec.name == own.spec.name && are_equal(job, own));
        match other {
            Some(other) if !self.is_there(own) && self.is_there(other) => other,
            Some(_) | None => own,
        }
    }

    /// Adds what is needed, unless it is there. Of two that are not equal, what is asked for stays, else the newer one; lint
    /// looks at the notebooks of both.
    fn add(self, chosen: &mut Vec<Chosen>, job: &Job, asked: &[&JobId]) {
        let new = self.chosen(job.clone(), false);
        let same = |one: &&mut Chosen| one.job.spec.name == job.spec.name;
        let Some(there) = chosen.iter_mut().find(same) else {
            chosen.push(new);
            return;
        };
        if are_equal(&there.job, job) {
            return;
        }
        if let Work::Lint { notebooks, .. } = &job.spec.work {
            look_at_too(there, notebooks);
        } else if !asked.contains(&&there.job.id) && there.job.id < job.id {
            *there = new;
        }
    }

    /// What is gone runs again where something that runs would look for it.
    fn make_again(self, chosen: &mut [Chosen]) {
        loop {
            let running = chosen.iter().filter(|one| one.runs);
            let needs = running.flat_map(|one| one.job.spec.needs.iter().cloned());
            let needs: BTreeSet<String> = needs.collect();
            let misses = |one: &&mut Chosen| {
                let is_gone = !one.runs && self.gone.contains(&one.job.id);
                is_gone && needs.contains(&one.job.spec.definition)
            };
            let mut again = 0;
            for one in chosen.iter_mut().filter(misses) {
                one.runs = true;
                again += 1;
            }
            if again == 0 {
                return;
            }
        }
    }
}

/// Lint looks at these notebooks too, which it has not yet.
fn look_at_too(lint: &mut Chosen, more: &[String]) {
    if let Work::Lint { notebooks, .. } = &mut lint.job.spec.work {
        let before = notebooks.len();
        notebooks.extend(more.iter().cloned());
        notebooks.sort();
        notebooks.dedup();
        if notebooks.len() > before {
            lint.job.key = None;
            lint.runs = true;
        }
    }
}

fn succeeded(job: &Job) -> bool {
    let outcome = job.state.outcome();
    outcome.is_some_and(protocol::Outcome::is_success)
}

/// Whether one's result is the other's.
fn are_equal(one: &Job, other: &Job) -> bool {
    one.id == other.id || one.key.is_some() && one.key == other.key
}

/// What is asked for and all that it needs, in their order, each once.
pub(super) fn needed<'a>(from: &'a [Job], asked: &[&JobId]) -> Vec<&'a Job> {
    let is_asked = |job: &Job| asked.contains(&&job.id);
    let mut needs: BTreeSet<&str> = BTreeSet::new();
    let mut open: Vec<&Job> = from.iter().filter(|job| is_asked(job)).collect();
    while let Some(job) = open.pop() {
        for need in &job.spec.needs {
            if needs.insert(need) {
                open.extend(from.iter().filter(|other| other.spec.definition == *need));
            }
        }
    }
    from.iter()
        .filter(|job| is_asked(job) || needs.contains(job.spec.definition.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use protocol::job::State;
    use protocol::{Digest, Failure, FailureKind, Outcome};

    use super::*;
    use crate::store::pipelines::Pipeline;
    use crate::store::testing;

    const RED: FailureKind = FailureKind::CommandFailed;

    fn pipeline(number: u64) -> Pipeline {
        testing::pipeline(&testing::project("p"), number)
    }

    /// A job that ended, well or not, with the key of a text.
    fn job(of: &Pipeline, name: &str, needs: &[&str], key: &str, well: bool) -> Job {
        let mut job = testing::job(of, name);
        name.clone_into(&mut job.spec.definition);
        job.spec.needs = needs.iter().map(|need| (*need).to_owned()).collect();
        job.key = Some(Digest::of(key));
        let outcome = match well {
            true => Outcome::Succeeded,
            false => Outcome::Failed(Failure::new(RED, "exit code 1")),
        };
        job.state = State::Finished { outcome };
        job
    }

    fn lint(of: &Pipeline, notebooks: &[&str], well: bool) -> Job {
        let mut job = job(of, "lint", &[], &notebooks.join(" "), well);
        job.spec.work = Work::Lint {
            tools: Vec::new(),
            notebooks: notebooks.iter().map(|path| (*path).to_owned()).collect(),
        };
        job
    }

    fn choose(own: &[&[&Job]], newest: &[&Job], gone: &[&Job], asked: &[&Job]) -> Vec<Chosen> {
        let owned = |jobs: &[&Job]| jobs.iter().copied().cloned().collect::<Vec<_>>();
        let own: Vec<Vec<Job>> = own.iter().map(|jobs| owned(jobs)).collect();
        let gone = gone.iter().map(|job| job.id.clone()).collect();
        let known = Known {
            own: &own,
            newest: &owned(newest),
            gone: &gone,
        };
        let asked: Vec<&JobId> = asked.iter().map(|job| &job.id).collect();
        known.choose(&asked)
    }

    fn ids(chosen: &[Chosen]) -> Vec<(&JobId, bool)> {
        chosen.iter().map(|one| (&one.job.id, one.runs)).collect()
    }

    #[test]
    fn what_is_needed_is_of_the_plan_of_what_needs_it() {
        let (one, two) = (pipeline(1), pipeline(2));
        let train = job(&one, "train", &["prepare"], "t", false);
        let (well, failed) = (
            job(&one, "prepare", &[], "p", true),
            job(&one, "prepare", &[], "p", false),
        );
        let other = job(&two, "prepare", &[], "rows=1000", true);
        let again = job(&two, "prepare", &[], "p", true);
        // Its own, of a newer one with other values.
        let chosen = choose(&[&[&well, &train]], &[&other, &train], &[], &[&train]);
        assert_eq!(ids(&chosen), [(&well.id, false), (&train.id, true)]);
        // One that failed, though another succeeded with other values.
        let chosen = choose(&[&[&failed, &train]], &[&other, &train], &[], &[&train]);
        assert_eq!(ids(&chosen), [(&failed.id, true), (&train.id, true)]);
        // With the same it stands in.
        let chosen = choose(&[&[&failed, &train]], &[&again, &train], &[], &[&train]);
        assert_eq!(ids(&chosen), [(&again.id, false), (&train.id, true)]);
    }

    #[test]
    fn what_is_gone_is_made_again_for_what_looks_for_it() {
        let one = pipeline(1);
        let data = job(&one, "data", &[], "d", true);
        let base = job(&one, "base", &["data"], "b", true);
        let train = job(&one, "train", &["base"], "t", false);
        let all: &[&Job] = &[&data, &base, &train];
        let chosen = choose(&[all], all, &[&data], &[&train]);
        let runs = |chosen: &[Chosen]| chosen.iter().map(|one| one.runs).collect::<Vec<_>>();
        assert_eq!(runs(&chosen), [false, false, true], "base has what it was");
        let chosen = choose(&[all], all, &[&data, &base], &[&train]);
        assert_eq!(runs(&chosen), [true, true, true]);
    }

    #[test]
    fn lint_looks_at_the_notebooks_of_all_that_runs() {
        let (one, two) = (pipeline(1), pipeline(2));
        let both = lint(&one, &["a", "b"], false);
        let eval = job(&one, "eval", &["lint"], "e", false);
        let alone = lint(&two, &["a"], true);
        let train = job(&two, "train", &["lint"], "t", false);
        // It looked at another notebook than eval's.
        let chosen = choose(&[&[&both, &eval]], &[&alone, &eval], &[], &[&eval]);
        assert_eq!(ids(&chosen), [(&both.id, true), (&eval.id, true)]);
        let other = lint(&one, &["b"], true);
        let own: [&[&Job]; 2] = [&[&other, &eval], &[&alone, &train]];
        let chosen = choose(&own, &[&alone, &eval, &train], &[], &[&eval, &train]);
        let Work::Lint { notebooks, .. } = &chosen[0].job.spec.work else {
            panic!("{chosen:?}")
        };
        assert_eq!(notebooks, &["a", "b"]);
        assert!(chosen[0].runs && chosen[0].job.key.is_none());
        assert_eq!(chosen.len(), 3);
    }

    #[test]
    fn of_two_that_differ_what_is_asked_for_stays_else_the_newer() {
        let (one, two) = (pipeline(1), pipeline(2));
        let old = job(&one, "prepare", &[], "p", true);
        let train = job(&one, "train", &["prepare"], "t", false);
        let new = job(&two, "prepare", &[], "rows=1000", true);
        let test = job(&two, "test", &["prepare"], "s", false);
        let own: [&[&Job]; 2] = [&[&old, &train], &[&new, &test]];
        let newest: &[&Job] = &[&new, &train, &test];
        let chosen = choose(&own, newest, &[], &[&train, &test]);
        assert_eq!(ids(&chosen)[0], (&new.id, false));
        let chosen = choose(&own, newest, &[], &[&train, &test, &old]);
        assert_eq!(ids(&chosen)[0], (&old.id, true));
        assert_eq!(chosen.len(), 3);
    }
}
