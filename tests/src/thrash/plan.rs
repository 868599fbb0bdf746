//! What goes wrong in a round, and when: decided by the seed alone.

use crate::network::{Condition, Way};
use crate::work::Random;
use std::time::Duration;

/// Recovery sites of a round.
pub(super) const SITES: usize = 2;
/// An incident lasts this long at least and at most, in milliseconds: from what nobody notices to what every time limit of a
/// connection under test that is no longer than some seconds runs into.
const LASTS: (u64, u64) = (200, 5_000);
/// Steps of a server's clock, in seconds: a leap, what NTP steps, a wrong time zone, a wrong date.
const STEPS: [i64; 8] = [-86_400, -3_600, -90, -2, 2, 90, 3_600, 86_400];

/// Of the reasons of gaps, as the status has them: what was only in the memory of a process that was killed, or was half done.
const OF_KILLED_SMBD: [&str; 4] = [
    "vfsxd was not there",
    "killed in the middle",
    "events of a session are missing",
    "cannot be found on the share",
];
/// What could not be written.
const OF_FULL_DISK: [&str; 6] = [
    "the journal could not be written",
    "event buffer was full",
    "vfsxd was not there",
    "events of a session are missing",
    "cannot be found on the share",
    "unknown cause",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Server {
    Smbd,
    Vfsxd,
    /// From 1 on.
    Site(usize),
}

/// A disk that is small: what `vfsxd` keeps there, or a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Disk {
    State,
    Site(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action {
    /// SIGKILL, nothing when it does not run.
    Kill(Server),
    /// SIGTERM, as a restart begins.
    Stop(Server),
    /// Nothing when it runs.
    Start(Server),
    /// SIGKILL of the smbd process of one client; the number chooses which.
    KillProcess(u64),
    /// That, and vfsxd in the same moment: neither can say what the other was about to tell it.
    KillTogether(u64),
    Link(usize, Condition),
    /// Seconds that the server's clock is ahead.
    Clock(Server, i64),
    /// Not a byte is left.
    Fill(Disk),
    Free(Disk),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event {
    /// Since the phase's begin.
    pub(super) at: Duration,
    pub(super) action: Action,
}

/// Clients work, then they are quiet while incidents go on; then all is well again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Phase {
    pub(super) work: Duration,
    pub(super) quiet: Duration,
    /// In order of time.
    pub(super) events: Vec<Event>,
    /// In which order the servers are started afterwards.
    pub(super) order: Vec<Server>,
}

/// How much goes on in a round.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub phases: usize,
    pub work: Duration,
    pub quiet: Duration,
    /// Incidents of a phase.
    pub incidents: u64,
}

impl Scale {
    /// What every run of all tests can afford.
    pub const SHORT: Self = Self {
        phases: 1,
        work: Duration::from_secs(5),
        quiet: Duration::from_secs(5),
        incidents: 5,
    };
    pub const LONG: Self = Self {
        phases: 3,
        work: Duration::from_secs(8),
        quiet: Duration::from_secs(7),
        incidents: 6,
    };
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) phases: Vec<Phase>,
    /// Gaps are left to vfsxd; otherwise it is told to leave them open, and a sync is called.
    pub(super) heals_itself: bool,
}

impl Plan {
    pub(super) fn new(seed: u64, scale: Scale) -> Self {
        let mut random = Random(seed);
        let phases = (0..scale.phases).map(|_| phase(&mut random, scale));
        Self {
            phases: phases.collect(),
            heals_itself: seed.is_multiple_of(2),
        }
    }

    pub(super) fn actions(&self) -> impl Iterator<Item = Action> {
        let events = self.phases.iter().flat_map(|phase| &phase.events);
        events.map(|event| event.action)
    }

    /// Whether an smbd process ends, with a client's request half done perhaps.
    pub(super) fn ends_smbd(&self) -> bool {
        self.actions().any(Action::ends_smbd)
    }
}

impl Action {
    pub(super) fn ends_smbd(self) -> bool {
        matches!(
            self,
            Self::Kill(Server::Smbd)
                | Self::Stop(Server::Smbd)
                | Self::KillProcess(_)
                | Self::KillTogether(_)
        )
    }

    /// Whether a gap with this `reason` may come of it: something that happened on the share may be known to nobody.
    pub(super) fn explains_gap(self, reason: &str) -> bool {
        let reasons: &[&str] = match self {
            Self::Kill(Server::Smbd) | Self::KillProcess(_) | Self::KillTogether(_) => &OF_KILLED_SMBD,
            Self::Fill(Disk::State) => &OF_FULL_DISK,
            _ => &[],
        };
        reasons.iter().any(|known| reason.contains(known))
    }
}

impl Phase {
    /// How long of the time in which clients work there is an smbd.
    pub(super) fn served(&self) -> Duration {
        let mut served = Duration::ZERO;
        let (mut since, mut runs) = (Duration::ZERO, true);
        let end = Event {
            at: self.work,
            action: Action::Stop(Server::Smbd),
        };
        for event in self
            .events
            .iter()
            .filter(|event| event.at < self.work)
            .chain([&end])
        {
            match event.action {
                Action::Kill(Server::Smbd) | Action::Stop(Server::Smbd) if runs => {
                    served += event.at - since;
                    runs = false;
                }
                Action::Start(Server::Smbd) if !runs => {
                    since = event.at;
                    runs = true;
                }
                _ => {}
            }
        }
        served
    }
}

fn phase(random: &mut Random, scale: Scale) -> Phase {
    let total = scale.work + scale.quiet;
    let mut events: Vec<_> = (0..scale.incidents)
        .flat_map(|_| incident(random, total))
        .collect();
    events.sort_by_key(|event| event.at);
    Phase {
        work: scale.work,
        quiet: scale.quiet,
        events,
        order: order(random),
    }
}

/// Servers in a random order.
fn order(random: &mut Random) -> Vec<Server> {
    let mut left: Vec<_> = [Server::Smbd, Server::Vfsxd]
        .into_iter()
        .chain((1..=SITES).map(Server::Site))
        .collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        order.push(left.swap_remove(random.below(left.len() as u64) as usize));
    }
    order
}

/// Something goes wrong and, if the phase is long enough, is right again.
fn incident(random: &mut Random, within: Duration) -> Vec<Event> {
    let begin = random.below(within.as_millis() as u64);
    let lasts = LASTS.0 + random.below(LASTS.1 - LASTS.0);
    let site = 1 + random.below(SITES as u64) as usize;
    let actions = choose(random, site);
    // What happens between begin and end is spread evenly.
    let steps = actions.len().saturating_sub(1).max(1) as u64;
    let event = |(number, action)| Event {
        at: Duration::from_millis(begin + lasts * number as u64 / steps),
        action,
    };
    actions.into_iter().enumerate().map(event).collect()
}

fn choose(random: &mut Random, site: usize) -> Vec<Action> {
    let good = Action::Link(site, Condition::default());
    let link = |condition| vec![Action::Link(site, condition), good];
    let down = |server| vec![Action::Kill(server), Action::Start(server)];
    match random.below(20) {
        0..=2 => down(Server::Vfsxd),
        3 => vec![Action::KillTogether(random.next()), Action::Start(Server::Vfsxd)],
        4..=6 => down(Server::Site(site)),
        7 => down(Server::Smbd),
        8..=9 => vec![Action::KillProcess(random.next())],
        10 => {
            let server = order(random).pop().unwrap_or(Server::Vfsxd);
            vec![Action::Stop(server), Action::Start(server)]
        }
        11..=12 => link(cut(random.below(3))),
        13 => link(Condition {
            slow: true,
            ..Condition::default()
        }),
        14 => link(bad(random)),
        15..=16 => half_open(random.below(2) == 0, site),
        17 => {
            let server = match random.below(2) {
                0 => Server::Vfsxd,
                _ => Server::Site(site),
            };
            let step = STEPS
                .get(random.below(STEPS.len() as u64) as usize)
                .copied()
                .unwrap_or_default();
            vec![Action::Clock(server, step), Action::Clock(server, 0)]
        }
        18 => vec![Action::Fill(Disk::State), Action::Free(Disk::State)],
        _ => vec![Action::Fill(Disk::Site(site)), Action::Free(Disk::Site(site))],
    }
}

fn cut(which: u64) -> Condition {
    let (there, back) = (Way::CUT, Way::CUT);
    match which {
        0 => Condition {
            there,
            ..Condition::default()
        },
        1 => Condition {
            back,
            ..Condition::default()
        },
        _ => Condition {
            there,
            back,
            slow: false,
        },
    }
}

/// Late and lossy in both directions, not the same.
fn bad(random: &mut Random) -> Condition {
    let mut way = || Way {
        cut: false,
        delay_ms: random.below(300) as u32,
        loss: random.below(20) as f64 / 100.0,
    };
    Condition {
        there: way(),
        back: way(),
        slow: false,
    }
}

/// One end of a connection dies while the line is cut, so that the other end is not told.
fn half_open(of_site: bool, site: usize) -> Vec<Action> {
    let server = if of_site {
        Server::Site(site)
    } else {
        Server::Vfsxd
    };
    vec![
        Action::Link(site, cut(2)),
        Action::Kill(server),
        Action::Start(server),
        Action::Link(site, Condition::default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_replays_its_plan_and_another_one_is_another_plan() {
        assert_eq!(Plan::new(7, Scale::LONG), Plan::new(7, Scale::LONG));
        assert_ne!(Plan::new(7, Scale::LONG), Plan::new(8, Scale::LONG));
    }

    #[test]
    fn in_some_rounds_everything_happens_to_everybody() {
        let kind = |action| match action {
            Action::Kill(server) => format!("kill {server:?}"),
            Action::Stop(server) => format!("stop {server:?}"),
            Action::Start(server) => format!("start {server:?}"),
            Action::KillProcess(_) => "kill a process".to_owned(),
            Action::KillTogether(_) => "kill a process and vfsxd".to_owned(),
            Action::Link(site, condition) => format!(
                "{site} {} {} {} {}",
                condition.there.cut,
                condition.back.cut,
                condition.slow,
                condition.there.delay_ms > 0
            ),
            Action::Clock(server, step) => format!("clock {server:?} {}", step.signum()),
            Action::Fill(disk) => format!("fill {disk:?}"),
            Action::Free(disk) => format!("free {disk:?}"),
        };
        let seen: BTreeSet<_> = (0..50)
            .flat_map(|seed| {
                Plan::new(seed, Scale::LONG)
                    .actions()
                    .map(kind)
                    .collect::<Vec<_>>()
            })
            .collect();
        // Servers: 4 killed, stopped, started; links of 2 sites: 6 each; 3 clocks of 3 kinds; 3 disks, both ways; a process, alone and with vfsxd.
        assert_eq!(seen.len(), 4 * 3 + 2 * 6 + 3 * 3 + 3 * 2 + 2, "{seen:#?}");
    }

    #[test]
    fn events_are_in_order() {
        for phase in Plan::new(3, Scale::LONG).phases {
            assert!(phase.events.is_sorted_by_key(|event| event.at));
        }
    }
}
