//! What people say to the ledger: a GPU is lent to somebody, given back, well again. It works beside a running agent,
//! which looks at the files again before each decision.

use chrono::{Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _};
use protocol::hardware::{Gpu, GpuHealth, GpuKind};
use protocol::{Span, Timestamp};

use super::Ledger;
use super::files::{self, Kind, LedgerError, Reservation};
use super::judge;

/// Most letters of a borrower's name.
const BORROWER_LIMIT: usize = 64;

/// A time that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no time ahead; write a duration from now (8h, 2d), a time of today (18:00), a day (2026-12-24) or both ('2026-12-24 18:00')"
)]
pub struct NoTime(String);

/// Until when: a duration from now, or a time of this host's clock. A day means its end.
///
/// # Errors
/// Where it is neither, or past.
pub fn until(text: &str, now: Timestamp) -> Result<Timestamp, NoTime> {
    let wrong = || NoTime(text.to_owned());
    let text_ = text.trim();
    let until = match text_.parse::<Span>() {
        Ok(span) => now + span,
        Err(_) => {
            let local = local(text_).ok_or_else(wrong)?;
            let at = Local
                .from_local_datetime(&local)
                .latest()
                .ok_or_else(wrong)?;
            Timestamp(at.timestamp_millis())
        }
    };
    if until <= now {
        return Err(wrong());
    }
    Ok(until)
}

fn local(text: &str) -> Option<NaiveDateTime> {
    let time = |text: &str| NaiveTime::parse_from_str(text, "%H:%M").ok();
    let day = |text: &str| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    if let Some(time) = time(text) {
        return Some(Local::now().date_naive().and_time(time));
    }
    if let Some(day) = day(text) {
        return day.succ_opt()?.and_hms_opt(0, 0, 0);
    }
    let (date, clock) = text.split_once(['T', ' '])?;
    Some(day(date)?.and_time(time(clock.trim())?))
}

/// The GPU that a person means: by its index, its UUID, or the beginning of one that no other begins with.
///
/// # Errors
/// In words, with what is there.
pub fn find<'a>(gpus: &'a [Gpu], text: &str) -> Result<&'a Gpu, String> {
    let is_slice = |gpu: &Gpu| matches!(gpu.kind, GpuKind::Slice { .. });
    let found: Vec<&Gpu> = match text.parse::<u32>() {
        Ok(index) => gpus
            .iter()
            .filter(|gpu| gpu.index == index && !is_slice(gpu))
            .collect(),
        Err(_) => gpus
            .iter()
            .filter(|gpu| gpu.uuid.starts_with(text))
            .collect(),
    };
    match found.as_slice() {
        [gpu] => Ok(gpu),
        [] => {
            let there: Vec<&str> = gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
            Err(format!(
                "there is no GPU '{text}' on this host; there are: {}",
                if there.is_empty() {
                    "none".into()
                } else {
                    there.join(", ")
                }
            ))
        }
        several => Err(format!(
            "'{text}' begins the UUIDs of {} GPUs; write more of it",
            several.len()
        )),
    }
}

/// The name of whom a GPU is lent to. It is shown in tables, on pages and in logs.
///
/// # Errors
/// In words, where it is none.
pub fn borrower(text: &str) -> Result<&str, String> {
    let name = text.trim();
    let is_short = (1..=BORROWER_LIMIT).contains(&name.chars().count());
    match is_short && !name.contains(char::is_control) {
        true => Ok(name),
        false => Err(format!(
            "'{}' is no name; write one of at most {BORROWER_LIMIT} letters in one line",
            name.chars()
                .take(BORROWER_LIMIT)
                .collect::<String>()
                .escape_debug()
        )),
    }
}

/// Why a GPU is not lent.
#[derive(Debug, thiserror::Error)]
pub enum NotLent {
    /// It does not answer.
    #[error("GPU {index} does not answer: {error}. It can be lent when it does")]
    Lost {
        /// NVML's number.
        index: u32,
        /// NVML's error.
        error: String,
    },
    /// Somebody else has it.
    #[error(
        "GPU {index} is lent to {by} until {clock}, {left} more; 'trainyard gpus release {index}' ends that, and --force puts the new loan in its place"
    )]
    Taken {
        /// NVML's number.
        index: u32,
        /// Who.
        by: String,
        /// Until when, by this host's clock.
        clock: String,
        /// How long that is.
        left: Span,
    },
    /// Nobody can tell whether somebody else has it.
    #[error("who has GPU {index} cannot be read: {why}. --force lends it all the same")]
    Unknown {
        /// NVML's number.
        index: u32,
        /// Which file, and why.
        why: String,
    },
    /// The disk says no.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A time of this host's clock.
fn clock(at: Timestamp) -> String {
    let local = Local.timestamp_millis_opt(at.0).single();
    local.map_or_else(String::new, |at| at.format("%Y-%m-%d %H:%M").to_string())
}

impl Ledger {
    /// Lends a GPU to a person: no new job gets it. One that has it keeps it to its end. Whom it is lent to already may
    /// have it for another time; the loan of somebody else is replaced by `force`.
    ///
    /// # Errors
    /// [`NotLent`].
    pub fn reserve(
        &self,
        gpu: &Gpu,
        by: &str,
        until: Timestamp,
        force: bool,
    ) -> Result<(), NotLent> {
        let index = gpu.index;
        if let GpuHealth::Lost { error } = &gpu.health {
            let error = error.clone();
            return Err(NotLent::Lost { index, error });
        }
        self.refresh()?;
        if !force {
            self.check_free(gpu, by)?;
        }
        std::fs::create_dir_all(&self.dir).map_err(files::at(&self.dir))?;
        let lent = Reservation {
            by: by.to_owned(),
            until,
        };
        files::write(&self.dir, &gpu.uuid, Kind::Reservation, &lent)?;
        Ok(self.refresh()?)
    }

    /// Nobody else has this GPU.
    fn check_free(&self, gpu: &Gpu, by: &str) -> Result<(), NotLent> {
        let (state, now, index) = (self.lock(), Timestamp::now(), gpu.index);
        if let Some(why) = judge::unreadable(&state, gpu) {
            let why = why.clone();
            return Err(NotLent::Unknown { index, why });
        }
        match judge::lent(&state, gpu, now).filter(|lent| lent.by != by) {
            Some(lent) => Err(NotLent::Taken {
                index,
                by: lent.by.clone(),
                clock: clock(lent.until),
                left: lent.until.minutes_from(now),
            }),
            None => Ok(()),
        }
    }

    /// Takes a GPU back from a person. Answers whether it was lent.
    ///
    /// # Errors
    /// The disk's.
    pub fn release(&self, uuid: &str) -> Result<bool, LedgerError> {
        let was = files::remove(&self.dir, uuid, Kind::Reservation)?;
        self.refresh()?;
        Ok(was)
    }

    /// Ends a quarantine because a person says that the GPU is well. Answers whether there was one.
    ///
    /// # Errors
    /// The disk's.
    pub fn clear(&self, uuid: &str) -> Result<bool, LedgerError> {
        let was = files::remove(&self.dir, uuid, Kind::Quarantine)?;
        self.refresh()?;
        Ok(was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::example;

    #[test]
    fn a_time_is_written_as_people_do() {
        let now = Timestamp::now();
        assert_eq!(until("8h", now), Ok(now + Span::hours(8)));
        let far = until("2199-12-24 18:00", now).unwrap();
        assert_eq!(until("2199-12-24T18:00", now), Ok(far));
        assert_eq!(until("2199-12-24", now).unwrap().since(far), Span::hours(6));
        for wrong in ["", "soon", "2001-01-01", "25:00", "2199-13-01"] {
            let said = until(wrong, now).unwrap_err().to_string();
            assert!(said.contains("write a duration"), "{said}");
        }
    }

    #[test]
    fn a_gpu_is_meant_by_index_or_uuid() {
        let mut gpus = ["GPU-aa1", "GPU-ab2", "MIG-1"].map(|uuid| example(uuid).gpu);
        gpus[1].index = 1;
        gpus[2].kind = GpuKind::Slice {
            parent: "GPU-aa1".into(),
            profile: "1g.10gb".into(),
        };
        assert_eq!(find(&gpus, "0").unwrap().uuid, "GPU-aa1");
        assert_eq!(find(&gpus, "GPU-ab").unwrap().uuid, "GPU-ab2");
        assert_eq!(find(&gpus, "MIG-1").unwrap().uuid, "MIG-1");
        assert!(find(&gpus, "GPU-a").unwrap_err().contains("2 GPUs"));
        assert!(find(&gpus, "7").unwrap_err().contains("GPU-ab2"));
    }
}
