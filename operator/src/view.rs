//! Whether what a watch has brought can be believed. Pure.

/// The state of a cache that a watch fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// It was not filled yet.
    Empty,
    /// It follows the cluster.
    Live,
    /// It does not, and this is why.
    Blind(String),
}

impl View {
    /// The cache was filled, again or for the first time. Says whether that is news.
    pub fn filled(&mut self) -> bool {
        self.turn(Self::Live)
    }

    /// The watch has failed. What the cache holds counts on through an outage, and not when it is `void`: when the right to see the
    /// objects is gone, or their definition. Says whether that is news.
    pub fn failed(&mut self, void: bool, why: impl FnOnce() -> String) -> bool {
        if !void && *self == Self::Live {
            return false;
        }
        self.turn(Self::Blind(why()))
    }

    fn turn(&mut self, to: Self) -> bool {
        let news = *self != to;
        *self = to;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_blinds_nobody_who_has_seen() {
        let mut view = View::Empty;
        assert!(view.failed(false, || "away".into()), "it has never seen anything");
        assert!(!view.failed(false, || "away".into()));
        assert!(view.filled() && !view.filled());
        assert!(!view.failed(false, || panic!("nobody asks why")));
        assert_eq!(view, View::Live);
        assert!(view.failed(true, || "forbidden".into()));
        assert_eq!(view, View::Blind("forbidden".into()));
    }
}
