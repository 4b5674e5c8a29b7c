//! The rules that keep the cascade's promises, which a simulation leaves out one by one to see that
//! it finds out. A program has them all.

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A wish below is withdrawn when the last who had it has gone.
    WishWithdrawn,
    /// The wishes of a neighbour end with the line to it.
    WishExpires,
    /// The layer asked for is the best that anybody below wants, and not that of who came last.
    LayerMaximum,
    /// A way that leads back is not taken.
    NoLoop,
    /// Who closed a microphone without having been seen by who opened it wins.
    MuteWins,
    /// What changed while a line was cut is told when it is back.
    DifferenceTold,
    /// What a node said before it restarted is not believed.
    RestartExposed,
    /// A node that knows nothing says nothing.
    SilentUntilKnown,
    /// Off-stage people are told upwards only.
    CrowdCounted,
    /// A message is applied once.
    AppliedOnce,
    /// Keyframe requests are merged.
    KeyframesMerged,
    /// Keyframe requests are repeated until the picture comes.
    KeyframesRepeated,
    /// Only the loudest are heard.
    LoudestHeard,
    /// One speaker is agreed on, decided at the root of the epoch.
    OneSpeaker,
    /// A neighbour that does not hear is a lost one.
    DeafnessNoticed,
    /// A line without media is a lost one.
    MediaWatched,
    /// The newer of two sessions of one identity wins everywhere.
    NewestSession,
    /// The stage is bounded.
    StageBounded,
    /// Expiry keeps to the path that has expired.
    ExpiryByPath,
}

#[cfg(test)]
thread_local! {
    static LEFT_OUT: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
impl Rule {
    /// From now on this thread goes without a rule, or with all.
    pub(crate) fn leave_out(rule: Option<Rule>) {
        LEFT_OUT.set(rule);
    }
}

impl Rule {
    #[cfg(test)]
    pub(crate) fn holds(self) -> bool {
        LEFT_OUT.get() != Some(self)
    }

    #[cfg(not(test))]
    #[inline(always)]
    pub(crate) const fn holds(self) -> bool {
        true
    }
}
