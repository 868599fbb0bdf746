//! smbd's modules call back into the top of the stack: what belongs to an operation that was asked about is not asked about.

/// The calls of one tree connect that are under way.
#[derive(Debug, Default)]
pub struct Nesting {
    depth: u32,
    /// Depth of the call that the handler has let go on.
    covered: Option<u32>,
    group: Option<Group>,
}

/// A call that does nothing by itself, and whose parts are one operation to the client.
#[derive(Debug, Clone, Copy)]
struct Group {
    depth: u32,
    truncates: bool,
}

impl Nesting {
    /// An operation begins. Gives whether it is to be asked about.
    pub fn enter(&mut self) -> bool {
        self.depth += 1;
        self.covered.is_none()
    }

    /// A group begins: the first answer inside holds for all of it. `truncates`: the client wants the file emptied.
    pub fn enter_group(&mut self, truncates: bool) {
        self.depth += 1;
        let depth = self.depth;
        self.group.get_or_insert(Group { depth, truncates });
    }

    /// The operation that has just begun may go on, and all inside it.
    pub fn allowed(&mut self) {
        self.covered = Some(self.group.map_or(self.depth, |group| group.depth));
    }

    /// The newest operation or group ends.
    pub fn leave(&mut self) {
        if self.covered == Some(self.depth) {
            self.covered = None;
        }
        if self.group.is_some_and(|group| group.depth == self.depth) {
            self.group = None;
        }
        self.depth = self.depth.saturating_sub(1);
    }

    /// Whether the open that is under way empties the file.
    pub fn truncates(&self) -> bool {
        self.group.is_some_and(|group| group.truncates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks if needed, and is let go on.
    fn begin(nesting: &mut Nesting) -> bool {
        let asks = nesting.enter();
        if asks {
            nesting.allowed();
        }
        asks
    }

    #[test]
    fn parts_of_an_operation_are_not_asked_about_and_the_next_operation_is() {
        let mut nesting = Nesting::default();
        for _ in 0..3 {
            assert!(begin(&mut nesting), "fset_nt_acl");
            for _ in 0..2 {
                assert!(!begin(&mut nesting), "an ACL call inside");
                assert!(!begin(&mut nesting), "and one inside that");
                nesting.leave();
                nesting.leave();
            }
            nesting.leave();
        }
    }

    #[test]
    fn the_first_answer_inside_a_group_holds_to_its_end() {
        let mut nesting = Nesting::default();
        nesting.enter_group(false);
        nesting.enter_group(true);
        assert!(
            !nesting.truncates(),
            "the outer group is what the client asked for"
        );
        assert!(begin(&mut nesting), "openat");
        nesting.leave();
        nesting.leave();
        assert!(!begin(&mut nesting), "fset_dos_attributes");
        nesting.leave();
        nesting.leave();
        assert!(begin(&mut nesting), "after the group");
    }

    #[test]
    fn a_refusal_covers_nothing() {
        let mut nesting = Nesting::default();
        nesting.enter_group(true);
        assert!(nesting.enter() && nesting.truncates());
        nesting.leave();
        assert!(nesting.enter(), "asked again: smbd may try another way");
        nesting.leave();
        nesting.leave();
        assert!(!nesting.truncates());
    }
}
