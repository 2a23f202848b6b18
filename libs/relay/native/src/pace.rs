//! A limit in bytes per second, shared by everything that draws on it. Time is an argument.
//!
//! Integer arithmetic: the level is held in billionths of a byte, so no fraction is ever lost and
//! the bytes that pass in any span are at most `rate * span + burst`.

const BILLION: i128 = 1_000_000_000;
const BURSTS_PER_SECOND: u64 = 4;

#[derive(Debug)]
pub struct Pace {
    /// Bytes per second, 1 or more; a quarter of a second's worth may pass at once.
    pub rate: u64,
    /// What tunnels share it by; empty: one tunnel has it alone.
    pub key: String,
    /// How many readers wait for it. The owner counts.
    pub waiting: u32,
    filled_ns: i64,
    level: i128,
}

impl Pace {
    pub fn new(rate: u64, key: String, now_ns: i64) -> Pace {
        Pace { rate, key, waiting: 0, filled_ns: now_ns, level: full(rate) }
    }

    /// From now on at another rate.
    pub fn change(&mut self, rate: u64, now_ns: i64) {
        self.available(now_ns);
        self.rate = rate;
        self.level = self.level.min(full(rate));
    }

    /// Bytes that may pass now; 0 or less: none.
    pub fn available(&mut self, now_ns: i64) -> i128 {
        let grown = self.level + i128::from(now_ns - self.filled_ns) * i128::from(self.rate);
        self.level = grown.min(full(self.rate));
        self.filled_ns = now_ns;
        self.level.div_euclid(BILLION)
    }

    /// Bytes that one reader may take now, leaving as much to each that waits; 0: none.
    pub fn share(&mut self, now_ns: i64) -> usize {
        let available = self.available(now_ns);
        if available <= 0 {
            return 0;
        }
        let share = (available / (1 + i128::from(self.waiting))).max(1);
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    /// `size` bytes passed; more than were available make a debt.
    pub fn spend(&mut self, size: usize) {
        self.level -= size as i128 * BILLION;
    }
}

fn full(rate: u64) -> i128 {
    i128::from((rate / BURSTS_PER_SECOND).max(1)) * BILLION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_lets_more_pass_than_rate_and_burst() {
        let mut pace = Pace::new(1000, String::new(), 0);
        let mut passed = 0;
        for ms in 0..10_000_i64 {
            let share = pace.share(ms * 1_000_000).min(7);
            pace.spend(share);
            passed += share;
            assert!(passed as i64 <= 250 + ms);
        }
        assert!(passed >= 9_990);
    }

    #[test]
    fn a_debt_is_paid_before_anything_passes() {
        let mut pace = Pace::new(10, String::new(), 0);
        pace.spend(12);
        assert_eq!(pace.share(900_000_000), 0);
        assert_eq!(pace.share(1_200_000_000), 2);
    }
}
