//! The election as a pure machine: what was seen and written, by our own clock, and what follows from it.

use std::time::{Duration, Instant};

use super::{LOOK, Standing};

/// The Lease as somebody sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Whose it is.
    pub(super) by: Option<String>,
    /// How long it lasts without a renewal.
    pub(super) term: Option<Duration>,
    /// Changes with every write.
    pub(super) version: String,
    /// How often it went from one to another.
    pub(super) transitions: i32,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Read the Lease.
    Look,
    /// Make it, ours.
    Create,
    /// Make it ours, if it is still of this version; it has changed hands so often.
    Take(String, i32),
    /// Renew it, if it is still of this version.
    Renew(String),
    /// Do nothing for so long.
    Wait(Duration),
    /// End.
    Lost(String),
}

/// One candidate's view.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    term: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was seen yet.
    New,
    /// It is somebody else's: this version of it, first seen then.
    By { version: String, since: Instant },
    /// It is ours: this version, by a write that was sent then.
    Leads { version: String, sent: Instant },
}

impl Election {
    pub(super) const fn new(identity: String, term: Duration) -> Self {
        Self { identity, term, state: State::New }
    }

    pub(super) const fn standing(&self) -> Standing {
        match self.state {
            State::New => Standing::Unknown,
            State::By { .. } => Standing::By,
            State::Leads { .. } => Standing::Leads,
        }
    }

    /// The version that is ours, while we lead.
    pub(super) fn version(&self) -> Option<&str> {
        match &self.state {
            State::Leads { version, .. } => Some(version),
            State::New | State::By { .. } => None,
        }
    }

    /// How long we may still lead.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Leads { sent, .. } => Some((sent + self.fence()).saturating_duration_since(now)),
            State::New | State::By { .. } => None,
        }
    }

    /// A wait is over.
    pub(super) fn next(&self, now: Instant) -> Step {
        match &self.state {
            State::New | State::By { .. } => Step::Look,
            State::Leads { .. } if self.is_over(now) => self.over("it was not renewed in time"),
            State::Leads { version, .. } => Step::Renew(version.clone()),
        }
    }

    /// The Lease was read.
    pub(super) fn seen(&mut self, lease: Option<Held>, now: Instant) -> Step {
        if self.is_over(now) {
            return self.over("it was not renewed in time");
        }
        let leads = self.version().is_some();
        match lease {
            None if leads => Step::Lost("it was deleted".to_owned()),
            None => Step::Create,
            // Changed by somebody who left it ours: a label, say. Or ours by a write whose answer never came.
            Some(lease) if lease.by.as_ref() == Some(&self.identity) => Step::Renew(lease.version),
            Some(lease) if leads => {
                let by = lease.by.unwrap_or_else(|| "nobody".to_owned());
                Step::Lost(format!("{by} holds it"))
            }
            Some(lease) => self.stand_by(lease, now),
        }
    }

    /// A write succeeded that was sent at `sent`.
    pub(super) fn wrote(&mut self, lease: Option<Held>, sent: Instant, now: Instant) -> Step {
        let ours = lease.filter(|lease| lease.by.as_ref() == Some(&self.identity));
        let Some(lease) = ours else { return Step::Look };
        self.state = State::Leads { version: lease.version, sent };
        if self.is_over(now) {
            return self.over("the answer to its renewal came too late");
        }
        Step::Wait((sent + self.term / 3).saturating_duration_since(now))
    }

    /// A call had no answer that tells anything.
    pub(super) fn unanswered(&self, why: &str, now: Instant) -> Step {
        match self.time_left(now) {
            Some(left) if left.is_zero() => self.over(why),
            Some(left) => {
                tracing::warn!(why, ?left, "the Lease could not be renewed and is tried again");
                Step::Wait(LOOK.min(left))
            }
            None => {
                tracing::warn!(why, "the Lease cannot be read or taken");
                Step::Wait(LOOK)
            }
        }
    }

    fn stand_by(&mut self, lease: Held, now: Instant) -> Step {
        let since = match &self.state {
            State::By { version, since } if *version == lease.version => *since,
            State::By { .. } | State::New | State::Leads { .. } => now,
        };
        self.state = State::By { version: lease.version.clone(), since };
        // A holder that says nothing of its term is given ours.
        let left = (since + lease.term.unwrap_or(self.term)).saturating_duration_since(now);
        if lease.by.is_none() || left.is_zero() {
            return Step::Take(lease.version, lease.transitions);
        }
        Step::Wait(LOOK.min(left))
    }

    /// We stop a third of a term before others may begin.
    fn fence(&self) -> Duration {
        self.term / 3 * 2
    }

    fn is_over(&self, now: Instant) -> bool {
        self.time_left(now).is_some_and(|left| left.is_zero())
    }

    fn over(&self, why: &str) -> Step {
        Step::Lost(format!("{why} (it must be renewed within {} s)", self.fence().as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(15);

    fn lease(by: Option<&str>, version: &str) -> Held {
        Held { by: by.map(str::to_owned), term: Some(TERM), version: version.to_owned(), transitions: 4 }
    }

    fn standing_by() -> (Election, Instant) {
        (Election::new("me".to_owned(), TERM), Instant::now())
    }

    fn leading() -> (Election, Instant) {
        let (mut election, start) = standing_by();
        let step = election.wrote(Some(lease(Some("me"), "7")), start, start + Duration::from_millis(3));
        assert_eq!(step, Step::Wait(Duration::from_millis(4997)));
        (election, start)
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_nobodys_is_taken_at_once() {
        let (mut election, start) = standing_by();
        assert_eq!(election.seen(None, start), Step::Create);
        assert_eq!(election.seen(Some(lease(None, "3")), start), Step::Take("3".into(), 4));
        assert_eq!(election.standing(), Standing::By);
    }

    #[test]
    fn what_is_somebodys_is_taken_when_it_was_seen_unchanged_for_its_whole_term() {
        let (mut election, start) = standing_by();
        let see = |election: &mut Election, version, seconds| {
            election.seen(Some(lease(Some("other"), version)), at(start, seconds))
        };
        assert_eq!(see(&mut election, "3", 0), Step::Wait(LOOK));
        assert_eq!(see(&mut election, "3", 14), Step::Wait(LOOK));
        // Renewed: the wait begins anew, whatever times stand in it.
        assert_eq!(see(&mut election, "4", 16), Step::Wait(LOOK));
        assert_eq!(see(&mut election, "4", 30), Step::Wait(LOOK));
        assert_eq!(see(&mut election, "4", 31), Step::Take("4".into(), 4));
    }

    #[test]
    fn the_term_that_counts_is_the_holders() {
        let (mut election, start) = standing_by();
        let long = Held { term: Some(Duration::from_secs(60)), ..lease(Some("other"), "3") };
        assert_eq!(election.seen(Some(long.clone()), start), Step::Wait(LOOK));
        assert_eq!(election.seen(Some(long.clone()), at(start, 59)), Step::Wait(LOOK));
        assert_eq!(election.seen(Some(long), at(start, 60)), Step::Take("3".into(), 4));
        let silent = Held { term: None, ..lease(Some("other"), "5") };
        assert_eq!(election.seen(Some(silent.clone()), at(start, 61)), Step::Wait(LOOK));
        assert_eq!(election.seen(Some(silent), at(start, 76)), Step::Take("5".into(), 4));
    }

    #[test]
    fn one_that_leads_renews_every_third_of_the_term() {
        let (mut election, start) = leading();
        assert_eq!(election.next(at(start, 5)), Step::Renew("7".into()));
        let step = election.wrote(Some(lease(Some("me"), "8")), at(start, 5), at(start, 6));
        assert_eq!(step, Step::Wait(Duration::from_secs(4)));
        assert_eq!(election.version(), Some("8"));
        assert_eq!(election.time_left(at(start, 6)), Some(Duration::from_secs(9)));
    }

    #[test]
    fn one_that_cannot_renew_ends_before_anybody_else_may_begin() {
        let (election, start) = leading();
        assert_eq!(election.unanswered("away", at(start, 5)), Step::Wait(LOOK));
        assert_eq!(
            election.unanswered("away", start + Duration::from_millis(9900)),
            Step::Wait(Duration::from_millis(100))
        );
        let Step::Lost(why) = election.unanswered("away", at(start, 10)) else { panic!("it goes on") };
        assert_eq!(why, "away (it must be renewed within 10 s)");
        // Waking up late, from a pause of the whole process say, is the same.
        assert!(matches!(election.next(at(start, 11)), Step::Lost(_)));
    }

    #[test]
    fn an_answer_that_comes_too_late_does_not_count() {
        let (mut election, start) = leading();
        let step = election.wrote(Some(lease(Some("me"), "8")), at(start, 5), at(start, 15));
        assert!(matches!(step, Step::Lost(_)), "{step:?}");
        let (mut election, start) = leading();
        assert!(matches!(election.seen(Some(lease(Some("me"), "7")), at(start, 10)), Step::Lost(_)));
    }

    #[test]
    fn one_that_is_not_the_holder_any_more_ends() {
        for (lease, why) in [
            (None, "it was deleted"),
            (Some(lease(Some("other"), "9")), "other holds it"),
            (Some(lease(None, "9")), "nobody holds it"),
        ] {
            let (mut election, start) = leading();
            assert_eq!(election.seen(lease, at(start, 1)), Step::Lost(why.to_owned()));
        }
    }

    #[test]
    fn what_is_still_ours_is_renewed_in_its_new_version() {
        let (mut election, start) = leading();
        assert_eq!(election.seen(Some(lease(Some("me"), "9")), at(start, 1)), Step::Renew("9".into()));
        // And so is what became ours by a write whose answer was lost; it counts from that renewal on.
        let (mut election, start) = standing_by();
        assert_eq!(election.seen(Some(lease(Some("me"), "9")), start), Step::Renew("9".into()));
        assert_ne!(election.standing(), Standing::Leads);
    }
}
