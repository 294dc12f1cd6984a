//! What is kept for a job that does not fit yet: a host from the time when it will, so that those who pass it
//! in the meantime do not make it wait longer.

use protocol::{Span, Timestamp};

use super::fleet::{Class, Fleet};
use super::room::{Amount, Mask, Room};
use super::{MOST_RESERVED, Reservation};

/// Something that comes back.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) at: Timestamp,
    pub(super) amount: Amount,
    pub(super) gpus: Mask,
}

/// A room that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    /// From when.
    pub(super) at: Timestamp,
    /// These devices.
    pub(super) gpus: Mask,
    /// What will be left then beside what is kept.
    pub(super) spare: Amount,
}

impl Fleet<'_> {
    /// Keeps the room that will fit first for a job, while few are kept.
    pub(super) fn reserve(&mut self, class: &mut Class, job: usize) {
        if self.held.len() >= MOST_RESERVED {
            return;
        }
        let mut best: Option<(Timestamp, usize, Hold)> = None;
        for rank in class.view.open.iter().copied() {
            let room = &self.rooms[rank];
            if room.hold.is_some() {
                continue;
            }
            let before = best.as_ref().map(|(at, ..)| *at);
            if let Some(hold) = room.earliest(class, self.now, before) {
                best = Some((hold.at, rank, hold));
            }
        }
        if let Some((at, rank, hold)) = best {
            self.rooms[rank].hold = Some(hold);
            self.held.push((rank, job));
            class.room_at.get_or_insert(at);
        }
    }

    /// When a job of the class that waits will probably start: when there is room for the first of it, and
    /// those before it have gone through.
    pub(super) fn expected_start(
        &self,
        class: &mut Class,
        job: usize,
        expected: Span,
    ) -> Option<Timestamp> {
        if class.slots == 0 {
            return None;
        }
        let room_at = match class.room_at {
            Some(at) => at,
            None => self.room_at(class)?,
        };
        class.room_at = Some(room_at);
        let wait = Span(class.ahead.0 / class.slots);
        class.ahead = Span(class.ahead.0.saturating_add(expected.0));
        let held = self.held.last().filter(|(_, of)| *of == job);
        let held = held.and_then(|(rank, _)| self.rooms[*rank].hold);
        Some(held.map_or(room_at + wait, |hold| hold.at))
    }

    /// When a room for the class comes back, what is kept for others counted as taken until its time. Of classes that
    /// want as many of the same devices it is found once: it is an estimate.
    fn room_at(&self, class: &Class) -> Option<Timestamp> {
        let amounts = match class.count {
            0 => (class.need.cpu, class.need.memory),
            _ => (0, 0),
        };
        let ask = (class.count, class.nvlink, amounts.0, amounts.1);
        if let Some(known) = class.view.room_at.borrow().get(&ask) {
            return *known;
        }
        let mut best: Option<Timestamp> = None;
        for room in class.view.open.iter().map(|rank| &self.rooms[*rank]) {
            let held = room.hold.map_or(self.now, |hold| hold.at);
            if best.is_some_and(|best| best <= held) {
                continue;
            }
            let at = room.earliest(class, self.now, best);
            let at = at.map(|hold| hold.at.max(held));
            best = best.into_iter().chain(at).min();
        }
        class.view.room_at.borrow_mut().insert(ask, best);
        best
    }

    /// What is kept.
    pub(super) fn reservations(&self) -> Vec<Reservation> {
        let reservation = |(rank, job): &(usize, usize)| {
            let room = &self.rooms[*rank];
            let hold = room.hold?;
            let place = room.placement(*job, hold.gpus);
            Some(Reservation { at: hold.at, place })
        };
        self.held.iter().filter_map(reservation).collect()
    }
}

impl Room<'_> {
    /// From when it has room for a job of the class, and what is to be kept for it. None: not before `before`,
    /// or never.
    fn earliest(&self, class: &Class, now: Timestamp, before: Option<Timestamp>) -> Option<Hold> {
        let (mut free, mut gpus, mut at) = (self.free, self.free_gpus, now);
        let mut owed = self.owed;
        let mut ends = self.ends.iter().peekable();
        loop {
            if class.need.within(&free)
                && let Some(picked) = self.pick(class.gang(), gpus)
            {
                free.take(&class.need);
                return Some(Hold {
                    at,
                    gpus: picked,
                    spare: free,
                });
            }
            at = ends.peek()?.at;
            if before.is_some_and(|before| at >= before) {
                return None;
            }
            while let Some(end) = ends.next_if(|end| end.at == at) {
                let mut back = end.amount;
                back.take(&owed);
                owed.take(&end.amount);
                free.give(&back);
                gpus |= end.gpus & self.healthy;
            }
        }
    }
}
