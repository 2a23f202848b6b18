//! Many coarse deadlines, in slots of a tick each. Time is an argument.
//!
//! An entry is in one slot, at or after its deadline, never before it. A deadline that moved further
//! away needs nothing: when its slot comes the owner looks, and places the entry again.

use std::collections::BTreeMap;

/// Where an entry is.
#[derive(Clone, Copy)]
struct Place {
    slot: i64,
    at: u32,
}

const NOWHERE: Place = Place { slot: i64::MAX, at: u32::MAX };

/// Entries are small numbers: the owner's own keys.
pub struct Wheel {
    tick_ns: i64,
    slots: BTreeMap<i64, Vec<u32>>,
    places: Vec<Place>,
}

impl Wheel {
    pub fn new(tick_ns: i64) -> Wheel {
        Wheel { tick_ns: tick_ns.max(1), slots: BTreeMap::new(), places: Vec::new() }
    }

    /// Have `entry` given out by the first `take` at or after `due_ns`, and not by an earlier one.
    pub fn place(&mut self, entry: u32, due_ns: i64) {
        self.remove(entry);
        let slot = self.slot(due_ns);
        let entries = self.slots.entry(slot).or_default();
        let at = entries.len() as u32;
        entries.push(entry);
        if self.places.len() <= entry as usize {
            self.places.resize(entry as usize + 1, NOWHERE);
        }
        self.places[entry as usize] = Place { slot, at };
    }

    /// Place it anew only where that is sooner.
    pub fn advance(&mut self, entry: u32, due_ns: i64) {
        let place = self.places.get(entry as usize).copied().unwrap_or(NOWHERE);
        if self.slot(due_ns) < place.slot {
            self.place(entry, due_ns);
        }
    }

    pub fn remove(&mut self, entry: u32) {
        let Some(place) = self.places.get_mut(entry as usize) else {
            return;
        };
        let Place { slot, at } = std::mem::replace(place, NOWHERE);
        let Some(entries) = self.slots.get_mut(&slot) else {
            return;
        };
        entries.swap_remove(at as usize);
        if let Some(&moved) = entries.get(at as usize) {
            self.places[moved as usize].at = at;
        }
        if entries.is_empty() {
            self.slots.remove(&slot);
        }
    }

    /// The instant before which `take` gives nothing; None where nothing waits.
    pub fn next_ns(&self) -> Option<i64> {
        self.slots.keys().next().map(|slot| slot.saturating_mul(self.tick_ns))
    }

    /// All whose slot has come; they are in no slot any more.
    pub fn take(&mut self, now_ns: i64) -> Vec<u32> {
        let past = now_ns.div_euclid(self.tick_ns);
        let mut taken = Vec::new();
        while let Some(slot) = self.slots.first_entry() {
            if *slot.key() > past {
                break;
            }
            taken.append(&mut slot.remove());
        }
        for &entry in &taken {
            self.places[entry as usize] = NOWHERE;
        }
        taken
    }

    fn slot(&self, due_ns: i64) -> i64 {
        due_ns.div_euclid(self.tick_ns) + i64::from(due_ns.rem_euclid(self.tick_ns) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_early_and_a_tick_late_at_most() {
        let mut wheel = Wheel::new(10);
        wheel.place(1, 15);
        wheel.place(2, 20);
        assert_eq!(wheel.next_ns(), Some(20));
        assert!(wheel.take(19).is_empty());
        assert_eq!(wheel.take(20), vec![1, 2]);
        assert_eq!(wheel.next_ns(), None);
    }

    #[test]
    fn an_entry_is_in_one_slot() {
        let mut wheel = Wheel::new(10);
        for entry in 0..4 {
            wheel.place(entry, 5);
        }
        wheel.remove(0);
        wheel.place(3, 45);
        wheel.advance(1, 100);
        wheel.advance(3, 30);
        assert_eq!(wheel.take(10), vec![2, 1]);
        assert!(wheel.take(29).is_empty());
        assert_eq!(wheel.take(30), vec![3]);
        wheel.remove(3);
        assert_eq!(wheel.next_ns(), None);
    }
}
