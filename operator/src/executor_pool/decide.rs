//! Step 3, pure and total: which pods to make and which to end. No clock, no client, no chance.
//!
//! Names are made from numbers, and the smallest free number is taken: two operators that see the same come to the same
//! names, and one whose cache lags tries to make what exists. Nothing is made or ended twice.

use std::collections::BTreeSet;

use super::member::{Member, Stage};

/// Pods that may be starting at the same time. A pool of sixty does not pull sixty images at once, and what cannot be
/// started is not tried sixtyfold.
pub const MAX_STARTING: usize = 8;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Pods.
    pub replicas: u32,
    /// Hash of the template that all of them have in the end.
    pub template: String,
    /// Whether stores outlive pods: then a number is not taken again before its pod is gone.
    pub persists: bool,
    /// Whether new pods may be made now; not after several have died at once.
    pub may_create: bool,
}

/// What to do with one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the pod with this number.
    Create {
        /// Number.
        ordinal: u32,
    },
    /// End this pod, with its grace.
    Delete {
        /// Name.
        name: String,
        /// UID: another pod of this name is left alone.
        uid: String,
        /// Why.
        why: Why,
    },
}

/// Why a pod is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It has ended by itself and is only a leftover.
    Over,
    /// There are more than are wanted.
    Surplus,
    /// It is not what the spec says any more.
    Outdated,
}

impl Why {
    /// Stable spelling, for metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Over => "Over",
            Self::Surplus => "Surplus",
            Self::Outdated => "Outdated",
        }
    }
}

/// What to do.
pub fn actions(wish: &Wish, members: &[Member]) -> Vec<Action> {
    let over = members.iter().filter(|member| member.stage == Stage::Over && member.deadline.is_none());
    let mut actions: Vec<Action> = over.map(|member| delete(member, Why::Over)).collect();
    let live: Vec<&Member> = members.iter().filter(|member| member.is_live()).collect();
    let wanted = usize::try_from(wish.replicas).unwrap_or(usize::MAX);
    if live.len() > wanted {
        actions.extend(surplus(wish, &live, live.len() - wanted));
    } else if live.len() < wanted {
        actions.extend(missing(wish, members, &live, wanted - live.len()));
    } else {
        actions.extend(outdated(wish, &live));
    }
    actions
}

/// Those that serve least go first, then those that would be replaced anyway, then the highest numbers.
fn surplus(wish: &Wish, live: &[&Member], count: usize) -> Vec<Action> {
    let mut order = live.to_vec();
    order.sort_by_key(|member| {
        (member.stage, member.template == wish.template, std::cmp::Reverse(member.ordinal))
    });
    order.into_iter().take(count).map(|member| delete(member, Why::Surplus)).collect()
}

fn missing(wish: &Wish, members: &[Member], live: &[&Member], count: usize) -> Vec<Action> {
    if !wish.may_create {
        return Vec::new();
    }
    let starting = live.iter().filter(|member| member.stage == Stage::Starting).count();
    let used: BTreeSet<u32> = members.iter().filter_map(|member| member.ordinal).collect();
    let end = if wish.persists { wish.replicas } else { u32::MAX };
    let free = (0..end).filter(|ordinal| !used.contains(ordinal));
    let room = count.min(MAX_STARTING.saturating_sub(starting));
    free.take(room).map(|ordinal| Action::Create { ordinal }).collect()
}

/// Pods that have not served yet are replaced at once; the others one after the other, while all others serve, so that
/// no replacement is ended before there is something to replace it.
fn outdated(wish: &Wish, live: &[&Member]) -> Vec<Action> {
    let old = |member: &&&Member| member.template != wish.template;
    let unborn: Vec<Action> = live
        .iter()
        .filter(old)
        .filter(|member| member.stage == Stage::Starting)
        .map(|member| delete(member, Why::Outdated))
        .collect();
    if !unborn.is_empty() || live.iter().any(|member| member.stage == Stage::Starting) {
        return unborn;
    }
    let next = live.iter().filter(old).min_by_key(|member| (member.stage, std::cmp::Reverse(member.ordinal)));
    let Some(next) = next else { return Vec::new() };
    let others_serve =
        live.iter().filter(|member| member.uid != next.uid).all(|member| member.stage == Stage::Serving);
    if others_serve || next.stage == Stage::Faltering {
        vec![delete(next, Why::Outdated)]
    } else {
        Vec::new()
    }
}

fn delete(member: &Member, why: Why) -> Action {
    Action::Delete { name: member.name.clone(), uid: member.uid.clone(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool in a few letters: `s` starting, `f` faltering, `R` ready, `L` leaving, `x` over; `'` of the old template; a
    /// dash leaves a number out.
    fn members(letters: &str) -> Vec<Member> {
        let mut found: Vec<Member> = Vec::new();
        let mut ordinal = 0;
        for letter in letters.chars() {
            let stage = match letter {
                '\'' => {
                    found.last_mut().unwrap().template = "old".into();
                    continue;
                }
                's' => Some(Stage::Starting),
                'f' => Some(Stage::Faltering),
                'R' => Some(Stage::Serving),
                'L' => Some(Stage::Leaving),
                'x' => Some(Stage::Over),
                _ => None,
            };
            found.extend(stage.map(|stage| Member {
                name: format!("p-executor-{ordinal}"),
                uid: format!("uid-{ordinal}"),
                ordinal: Some(ordinal),
                template: "new".into(),
                stage,
                established: stage != Stage::Starting,
                ip: None,
                node: None,
                deadline: None,
                created: None,
                trouble: None,
                last_word: None,
            }));
            ordinal += 1;
        }
        found
    }

    fn wish(replicas: u32) -> Wish {
        Wish { replicas, template: "new".into(), persists: false, may_create: true }
    }

    /// `+2` makes number 2, `-1` ends number 1.
    fn words(wish: &Wish, letters: &str) -> String {
        let word = |action: &Action| match action {
            Action::Create { ordinal } => format!("+{ordinal}"),
            Action::Delete { name, .. } => format!("-{}", name.rsplit('-').next().unwrap_or_default()),
        };
        actions(wish, &members(letters)).iter().map(word).collect::<Vec<_>>().join(" ")
    }

    fn check(replicas: u32, letters: &str, expect: &str) {
        assert_eq!(words(&wish(replicas), letters), expect, "{replicas} of {letters:?}");
    }

    #[test]
    fn what_is_missing_is_made_a_few_at_a_time() {
        check(2, "", "+0 +1");
        check(2, "RR", "");
        check(3, "R-R", "+1");
        check(64, "", "+0 +1 +2 +3 +4 +5 +6 +7");
        check(64, "ssssss", "+6 +7");
        check(64, "ssssssss", "");
        check(10, "RRRRRRRR", "+8 +9");
    }

    #[test]
    fn what_is_too_much_goes_the_least_useful_first() {
        check(2, "RRR", "-2");
        check(2, "sRR", "-0");
        check(1, "RfR", "-1 -2");
        check(1, "fsR", "-1 -0");
        check(2, "R'RR", "-0");
        check(0, "RR", "-1 -0");
        // One that leaves is not counted and not ended again.
        check(2, "RRL", "");
    }

    #[test]
    fn what_is_over_or_leaves_is_replaced() {
        check(2, "xR", "-0 +2");
        check(2, "LR", "+2");
        check(2, "LRR", "");
        let persists = Wish { persists: true, ..wish(2) };
        assert_eq!(words(&persists, "LR"), "", "its folder is still in use");
        assert_eq!(words(&persists, "-R"), "+0");
        assert_eq!(words(&persists, "xR"), "-0");
    }

    #[test]
    fn after_deaths_nothing_is_made_for_a_while() {
        let braked = Wish { may_create: false, ..wish(3) };
        assert_eq!(words(&braked, "xR"), "-0");
        assert_eq!(words(&braked, "RRRR"), "-3");
    }

    #[test]
    fn an_update_goes_one_by_one_and_never_ends_its_own_pods() {
        check(2, "R'R'", "-1");
        check(2, "R'L'", "+2");
        check(2, "R'L's", "");
        check(2, "R'L'R", "-0");
        check(2, "L'L'R", "+3");
        check(2, "L'L'Rs", "");
        check(2, "--RR", "");
        check(1, "R'", "-0");
        // A new pod that does not come up stops the update; the old one serves on.
        check(2, "R'f", "");
        check(3, "R'R'f", "");
    }

    #[test]
    fn an_update_mends_what_never_served() {
        check(3, "s's's'", "-0 -1 -2");
        check(2, "R's'", "-1");
        check(2, "f'f'", "-1");
        check(2, "f's", "");
        check(2, "f'R'", "-0");
    }

    #[test]
    fn every_wish_is_reached_and_then_nothing_happens() {
        for start in ["", "R'R'R'", "ff", "s's's's'", "xLR'f", "RRRRRR"] {
            for replicas in [0, 1, 3, 20] {
                let wish = wish(replicas);
                let mut pool = members(start);
                let mut rounds = 0;
                loop {
                    let actions = actions(&wish, &pool);
                    if actions.is_empty() && pool.iter().all(|one| one.stage == Stage::Serving) {
                        break;
                    }
                    // The world obeys: pods that leave are gone, pods that start serve.
                    pool.retain(|member| member.stage != Stage::Leaving);
                    pool.iter_mut().filter(|one| one.is_live()).for_each(|one| one.stage = Stage::Serving);
                    for action in actions {
                        match action {
                            Action::Create { ordinal } => {
                                let name = format!("p-executor-{ordinal}");
                                assert!(pool.iter().all(|one| one.name != name), "{name} is made twice");
                                pool.push(Member {
                                    name,
                                    uid: format!("uid-{ordinal}-{rounds}"),
                                    ordinal: Some(ordinal),
                                    stage: Stage::Starting,
                                    ..members("s").remove(0)
                                });
                            }
                            Action::Delete { name, .. } => {
                                pool.iter_mut()
                                    .filter(|one| one.name == name)
                                    .for_each(|one| one.stage = Stage::Leaving);
                            }
                        }
                    }
                    rounds += 1;
                    assert!(rounds < 100, "{replicas} of {start:?} is never reached");
                }
                assert_eq!(pool.len(), usize::try_from(replicas).unwrap(), "{start:?}");
                assert!(pool.iter().all(|one| one.template == "new"), "{start:?}");
            }
        }
    }
}
