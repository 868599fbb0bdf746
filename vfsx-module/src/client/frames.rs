//! Frames in a row, taken away in the order in which they came. In large pieces of memory: one for each frame would cost smbd more than the frame.

use std::collections::VecDeque;

/// Bytes of a piece, but for a frame that is longer.
const PIECE: usize = 16 * 1024;

/// Where a frame is, as long as it has not been taken away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Counts the pieces since the beginning.
    piece: u64,
    start: usize,
    length: usize,
}

impl Place {
    pub(super) fn length(self) -> usize {
        self.length
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pieces: VecDeque<Vec<u8>>,
    /// Number of the first piece.
    first: u64,
}

impl Frames {
    pub(super) fn push(&mut self, frame: &[u8]) -> Place {
        let has_room = |piece: &Vec<u8>| piece.capacity() - piece.len() >= frame.len();
        if !self.pieces.back().is_some_and(has_room) {
            self.pieces.push_back(Vec::with_capacity(frame.len().max(PIECE)));
        }
        let piece = self.first + (self.pieces.len() as u64).saturating_sub(1);
        let mut place = Place {
            piece,
            start: 0,
            length: frame.len(),
        };
        if let Some(bytes) = self.pieces.back_mut() {
            place.start = bytes.len();
            bytes.extend_from_slice(frame);
        }
        place
    }

    pub(super) fn get(&self, place: Place) -> Option<&[u8]> {
        let at = usize::try_from(place.piece.checked_sub(self.first)?).ok()?;
        let end = place.start.checked_add(place.length)?;
        self.pieces.get(at)?.get(place.start..end)
    }

    /// Those before `place` are not wanted any more; none at all when there is no place.
    pub(super) fn drop_before(&mut self, place: Option<Place>) {
        match place {
            Some(place) => {
                while self.first < place.piece && self.pieces.pop_front().is_some() {
                    self.first += 1;
                }
            }
            // The last piece stays for what comes next.
            None => {
                while self.pieces.len() > 1 && self.pieces.pop_front().is_some() {
                    self.first += 1;
                }
                if let Some(piece) = self.pieces.back_mut() {
                    piece.clear();
                    piece.shrink_to(PIECE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_stay_as_they_were_until_they_are_taken_away(
            steps in prop::collection::vec((1usize..9000, any::<prop::sample::Index>()), 0..200)
        ) {
            let mut frames = Frames::default();
            let mut model: VecDeque<(Place, Vec<u8>)> = VecDeque::new();
            for (number, (length, drop)) in steps.into_iter().enumerate() {
                let frame = vec![number as u8; length];
                model.push_back((frames.push(&frame), frame));
                if number % 3 == 0 {
                    model.drain(..drop.index(model.len() + 1));
                    frames.drop_before(model.front().map(|(place, _)| *place));
                }
                for (place, frame) in &model {
                    prop_assert_eq!(frames.get(*place), Some(&frame[..]));
                }
                let kept: usize = model.iter().map(|(place, _)| place.length()).sum();
                let taken: usize = frames.pieces.iter().map(Vec::capacity).sum();
                prop_assert!(taken <= 2 * kept + 4 * PIECE, "{taken} for {kept}");
            }
        }
    }
}
