//! Which settings of an agent make no sense, in words.

use protocol::agent_api::wrong_name;

use super::Config;

/// Most letters of a label.
const LABEL_LIMIT: usize = 64;
/// A notebook's kernel alone has 10 threads.
const FEWEST_PROCESSES: u64 = 16;

impl Config {
    /// What is wrong, and what to write.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_name()?;
        self.check_labels()?;
        if self.data.is_relative() {
            return Err(format!(
                "`data` is '{}'; it must be an absolute path",
                self.data.display()
            ));
        }
        let cpus = self.capacity.cpus;
        if cpus.is_some_and(|cpus| !cpus.is_finite() || cpus <= 0.0) {
            return Err("`capacity.cpus` must be above zero".into());
        }
        if self.jobs.uid == Some(0) {
            return Err(
                "`jobs.uid` is 0; jobs never run as root, name an ordinary user's id".into(),
            );
        }
        if self.jobs.processes < FEWEST_PROCESSES {
            return Err(format!(
                "`jobs.processes` must be at least {FEWEST_PROCESSES}; a notebook's kernel alone has 10 threads"
            ));
        }
        if self.gpus.idle_below > 100 {
            return Err(format!(
                "`gpus.idle_below` is {}; it is a use in percent, from 0 to 100",
                self.gpus.idle_below
            ));
        }
        for (name, volume) in &self.volumes {
            if volume.path.is_relative() {
                return Err(format!("the path of volume `{name}` must be absolute"));
            }
        }
        Ok(())
    }

    fn check_name(&self) -> Result<(), String> {
        let why = self.name.as_deref().and_then(wrong_name);
        match (&self.name, why) {
            (Some(name), Some(why)) => Err(format!(
                "`name` is '{}'; {why}. Left out, it is the host's",
                name.escape_debug()
            )),
            (Some(_), None) | (None, _) => Ok(()),
        }
    }

    fn check_labels(&self) -> Result<(), String> {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        let is_wrong = |label: &&String| {
            !(1..=LABEL_LIMIT).contains(&label.chars().count()) || label.contains(odd)
        };
        match self.labels.iter().find(is_wrong) {
            Some(label) => Err(format!(
                "`labels` has '{}'; a label is one word of 1 to {LABEL_LIMIT} letters, without blanks",
                label.escape_debug()
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_setting_that_makes_no_sense_is_refused_with_its_value() {
        for (text, words) in [
            ("name = \"\"", "`name` is ''"),
            ("name = \"a b\"", "`name` is 'a b'; an agent's name has"),
            ("labels = [\"fast\", \"\"]", "`labels` has ''"),
            ("labels = [\"a b\"]", "`labels` has 'a b'"),
            ("labels = [\"a\\n\"]", "`labels` has 'a\\n'"),
            ("data = \"var\"", "absolute"),
            ("[capacity]\ncpus = 0", "above zero"),
            ("[jobs]\nuid = 0", "root"),
            ("[jobs]\nprocesses = 3", "at least 16"),
            (
                "[gpus]\nidle_below = 500",
                "`gpus.idle_below` is 500; it is a use in percent",
            ),
            ("[volumes.a]\npath = \"data\"", "volume `a`"),
        ] {
            let said = Config::parse(text).unwrap_err();
            assert!(said.contains(words), "{text}: {said}");
        }
        Config::parse("labels = [\"datacenter-a\", \"gpu:a100\"]\n[gpus]\nidle_below = 100")
            .unwrap();
    }
}
