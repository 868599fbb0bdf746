//! Times as file systems keep them.

const NS: i128 = 1_000_000_000;

/// Seconds and nanoseconds since the epoch; before it, seconds are negative and nanoseconds count up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Time {
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Time {
    /// `None` when the nanoseconds are a second or more.
    pub fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        (nanoseconds < NS as u32).then_some(Self { seconds, nanoseconds })
    }

    /// Nanoseconds since the epoch.
    pub fn ns(self) -> i128 {
        i128::from(self.seconds) * NS + i128::from(self.nanoseconds)
    }

    /// Nanoseconds since the epoch; beyond what 64 bit seconds can say, the nearest time that they can.
    pub fn from_ns(ns: i128) -> Self {
        match i64::try_from(ns.div_euclid(NS)) {
            Ok(seconds) => Self {
                seconds,
                nanoseconds: ns.rem_euclid(NS) as u32,
            },
            Err(_) if ns < 0 => Self {
                seconds: i64::MIN,
                nanoseconds: 0,
            },
            Err(_) => Self {
                seconds: i64::MAX,
                nanoseconds: NS as u32 - 1,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_a_second_before_the_epoch_counts_up_from_minus_one() {
        let time = Time {
            seconds: -1,
            nanoseconds: 500_000_000,
        };
        assert_eq!(time.ns(), -500_000_000);
        assert_eq!(Time::from_ns(-500_000_000), time);
        assert_eq!(Time::new(0, 1_000_000_000), None);
        assert_eq!(Time::from_ns(i128::MAX).seconds, i64::MAX);
        assert_eq!(Time::from_ns(i128::MIN).seconds, i64::MIN);
    }

    proptest! {
        #[test]
        fn every_time_comes_back(seconds: i64, nanoseconds in 0u32..1_000_000_000) {
            let time = Time { seconds, nanoseconds };
            prop_assert_eq!(Time::from_ns(time.ns()), time);
        }
    }
}
