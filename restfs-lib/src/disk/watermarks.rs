//! Watermarks of a disk: where a program warns, and where it no longer takes what can be left out.

/// Without an option the reserve is this part of the file system.
const PART: u64 = 20;
/// Above a mark again is only who is above it by this part of it: what comes and goes around it is one crossing.
const BACK_PART: u64 = 16;

/// As configured, in bytes; `None`: by the file system's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    pub warn: Option<u64>,
    pub reserve: Option<u64>,
}

/// Of a file system, in bytes that are free. `reserve <= warn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    pub warn: u64,
    pub reserve: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    #[default]
    Roomy,
    /// Below the mark to warn at.
    Low,
    /// Below the reserve.
    Full,
}

impl Watermarks {
    /// The marks of a file system of this size; a reserve by the size is `most` at most. The mark to warn at is twice the reserve
    /// when nothing is said of it.
    pub fn on(&self, size: u64, most: u64) -> Marks {
        let reserve = match (self.reserve, self.warn) {
            (Some(reserve), _) => reserve,
            (None, warn) => (size / PART).min(most).min(warn.unwrap_or(u64::MAX)),
        };
        let warn = self.warn.unwrap_or(reserve.saturating_mul(2)).max(reserve);
        Marks { warn, reserve }
    }
}

impl Marks {
    /// Where so many free bytes are, for who was at `before`.
    pub fn level(&self, before: Level, free: u64) -> Level {
        let is_below = |mark: u64, at: Level| {
            let back = if before >= at { mark / BACK_PART } else { 0 };
            free < mark.saturating_add(back)
        };
        match () {
            () if is_below(self.reserve, Level::Full) => Level::Full,
            () if is_below(self.warn, Level::Low) => Level::Low,
            () => Level::Roomy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{Full, Low, Roomy};

    #[test]
    fn what_is_not_said_follows_from_the_size_and_from_what_is_said() {
        let on = |warn, reserve| {
            let marks = Watermarks { warn, reserve }.on(1000, 40);
            (marks.warn, marks.reserve)
        };
        assert_eq!(on(None, None), (80, 40), "a twentieth is more than 40");
        assert_eq!(
            Watermarks::default().on(600, 40),
            Marks {
                warn: 60,
                reserve: 30
            }
        );
        assert_eq!(on(None, Some(7)), (14, 7));
        assert_eq!(on(Some(500), None), (500, 40));
        assert_eq!(on(Some(9), None), (9, 9), "the reserve is not above it");
        assert_eq!(on(Some(0), Some(0)), (0, 0), "nothing is said, nothing kept");
    }

    #[test]
    fn a_mark_is_crossed_once_however_often_the_space_comes_and_goes_around_it() {
        let marks = Marks {
            warn: 320,
            reserve: 160,
        };
        let mut level = Roomy;
        let mut told = Vec::new();
        for free in [
            500, 320, 319, 321, 310, 339, 340, 319, 100, 159, 160, 169, 170, 1, 0, 500,
        ] {
            let now = marks.level(level, free);
            if now != level {
                told.push((free, now));
            }
            level = now;
        }
        let expected = [
            (319, Low),
            (340, Roomy),
            (319, Low),
            (100, Full),
            (170, Low),
            (1, Full),
            (500, Roomy),
        ];
        assert_eq!(told, expected);
    }
}
