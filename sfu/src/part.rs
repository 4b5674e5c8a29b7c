//! The parts of how a line is shared, which a simulation leaves out one by one to see what each is
//! worth. A program has them all, unless it was built with the feature `leave-out`: then it goes
//! without the part whose name the variable `LEAVE_OUT` has, for `cargo xtask bench parts`.

/// A part of the estimate, the ladder or the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Sound is paid before any picture.
    SoundFirst,
    /// The screen, the speaker and the pinned come before the others.
    Ranks,
    /// A step up leaves some of itself free.
    Room,
    /// After a step down nothing is raised for a while.
    Hold,
    /// Everybody's picture moves before anybody's becomes sharper.
    SmoothFirst,
    /// The most important picture is kept where it almost fits.
    LastPicture,
    /// Below the least sharp layer there are lower frame rates.
    FrameRates,
    /// What costs far more than it may is stopped before the lower layer's keyframe.
    FarOver,
    /// What is lost is taken to be sent twice.
    LossPaid,
    /// Feedback that says that the line carries less than is sent is acted on at once.
    GiveWay,
    /// While nothing is known of a line it gets the lowest layers.
    BeginLow,
    /// Lines are probed.
    Probes,
    /// Less is sent while a queue is long.
    QueueEmptied,
    /// The queue of a keyframe is not taken for overuse.
    KeyframeSettles,
    /// Loss that sending less does not lessen is the line's own.
    OwnLoss,
    /// Where a line loses much and has room, pictures are sent twice.
    Doubled,
}

#[cfg(test)]
thread_local! {
    static LEFT_OUT: std::cell::Cell<Option<Part>> = const { std::cell::Cell::new(None) };
}

#[cfg(any(test, feature = "leave-out"))]
impl Part {
    pub(crate) const ALL: [Part; 16] = [
        Part::SoundFirst,
        Part::Ranks,
        Part::Room,
        Part::Hold,
        Part::SmoothFirst,
        Part::LastPicture,
        Part::FrameRates,
        Part::FarOver,
        Part::LossPaid,
        Part::GiveWay,
        Part::BeginLow,
        Part::Probes,
        Part::QueueEmptied,
        Part::KeyframeSettles,
        Part::OwnLoss,
        Part::Doubled,
    ];

    /// Without which a row of the table is.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::SoundFirst => "sound first",
            Part::Ranks => "screen, speaker and pinned first",
            Part::Room => "room above a step up",
            Part::Hold => "the pause after a step down",
            Part::SmoothFirst => "all move before one is sharp",
            Part::LastPicture => "the last picture is kept",
            Part::FrameRates => "lower frame rates below the lowest layer",
            Part::FarOver => "a cut before the lower layer's keyframe",
            Part::LossPaid => "what is lost is paid twice",
            Part::GiveWay => "feedback is acted on at once",
            Part::BeginLow => "an unknown line gets the lowest layer",
            Part::Probes => "probes by padding",
            Part::QueueEmptied => "less while a queue is long",
            Part::KeyframeSettles => "a keyframe's queue is no overuse",
            Part::OwnLoss => "loss that is the line's own",
            Part::Doubled => "pictures sent twice over lossy lines with room",
        }
    }

    /// What the variable `LEAVE_OUT` names: nothing, if it is not there or empty.
    #[cfg(not(test))]
    fn left_out() -> Option<Part> {
        let name = std::env::var("LEAVE_OUT")
            .ok()
            .filter(|name| !name.is_empty())?;
        let part = Part::ALL.into_iter().find(|part| part.name() == name);
        Some(part.unwrap_or_else(|| panic!("LEAVE_OUT: there is no part {name:?}")))
    }
}

impl Part {
    /// From now on this thread goes without a part, or with all.
    #[cfg(test)]
    pub(crate) fn leave_out(part: Option<Part>) {
        LEFT_OUT.set(part);
    }

    #[cfg(test)]
    pub(crate) fn is_there(self) -> bool {
        LEFT_OUT.get() != Some(self)
    }

    #[cfg(all(not(test), feature = "leave-out"))]
    pub(crate) fn is_there(self) -> bool {
        static LEFT_OUT: std::sync::LazyLock<Option<Part>> =
            std::sync::LazyLock::new(Part::left_out);
        *LEFT_OUT != Some(self)
    }

    #[cfg(not(any(test, feature = "leave-out")))]
    #[inline(always)]
    pub(crate) const fn is_there(self) -> bool {
        true
    }
}
