//! One subscriber of one track: what is sent to it now, and what it is waiting for.

use str0m::media::{Mid, Pt};

use crate::account::Reason;
use crate::command::{ConnectionId, Encoding, Quality, Selection};
use crate::encoding::Codecs;
use crate::layer_filter::LayerFilter;
use crate::rewrite::{Numbers, Rewrite};
use crate::track::Packet;

/// How a payload type of the publisher is sent to this subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) source: Pt,
    /// `None`: the subscriber's client does not take this codec.
    pub(crate) target: Option<Pt>,
    /// RED arrives and the subscriber takes none: only the newest block goes on.
    pub(crate) unwrap_red: bool,
    /// The subscriber's payload types of RED and of what is in it, where earlier packets may go along.
    pub(crate) red: Option<(Pt, Pt)>,
}

/// What is left of what is wanted, by the subscriber's line or by the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ceiling {
    #[default]
    None,
    /// No better layer than this, of either kind.
    Layer {
        quality: Quality,
        temporal: u8,
    },
    Nothing,
}

impl Ceiling {
    /// What is sent of what is wanted.
    pub(crate) fn of(self, selection: Selection) -> Selection {
        match self {
            Ceiling::None => selection,
            Ceiling::Layer { quality, .. } => Selection {
                quality: selection.quality.min(quality),
                ..selection
            },
            Ceiling::Nothing => Selection {
                is_enabled: false,
                ..selection
            },
        }
    }

    /// The uppermost temporal layer that is left.
    pub(crate) fn temporal(self) -> u8 {
        match self {
            Ceiling::Layer { temporal, .. } => temporal,
            Ceiling::None | Ceiling::Nothing => u8::MAX,
        }
    }
}

/// One subscriber of one track.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) connection: ConnectionId,
    pub(crate) selection: Selection,
    /// The subscriber's m-line, once agreed.
    pub(crate) mid: Option<Mid>,
    /// What was agreed for it.
    pub(crate) takes: Codecs,
    /// In which encoding the picture is to be sent.
    pub(crate) encoding: Encoding,
    /// The layer being sent.
    pub(crate) current: Option<usize>,
    /// The layer that shall be sent; reached at its next keyframe.
    pub(crate) target: Option<usize>,
    /// What is sent of the layers within it.
    pub(crate) filter: LayerFilter,
    pub(crate) rewrite: Rewrite,
    pub(crate) mapped: Option<Mapped>,
    /// What the processor leaves, and what the subscriber's line does.
    pub(crate) by_processor: Ceiling,
    pub(crate) by_line: Ceiling,
    /// Why the line leaves no more, where it leaves less than all.
    pub(crate) line_reason: Reason,
    /// The subscriber was told that nothing is sent.
    pub(crate) is_paused: bool,
}

impl Subscription {
    /// A subscription of which nothing is sent yet.
    pub(crate) fn new(connection: ConnectionId, selection: Selection, rewrite: Rewrite) -> Self {
        Subscription {
            connection,
            selection,
            mid: None,
            takes: Codecs::ALL,
            encoding: Encoding::Primary,
            current: None,
            target: None,
            filter: LayerFilter::new(),
            rewrite,
            mapped: None,
            by_processor: Ceiling::default(),
            by_line: Ceiling::default(),
            line_reason: Reason::Line,
            is_paused: false,
        }
    }

    /// The numbers of a packet of its current layer, and whether it is the last of its picture; `None`:
    /// it is not sent. What comes too late to be left out fills the gap that was kept for it.
    #[inline]
    pub(crate) fn take(&mut self, packet: &Packet) -> Option<(Numbers, bool)> {
        if !self.filter.admits(packet) && self.leave_out(packet) {
            return None;
        }
        let numbers = self.rewrite.number(packet)?;
        Some((numbers, self.filter.ends_picture(packet)))
    }

    fn leave_out(&mut self, packet: &Packet) -> bool {
        let picture = packet.vp8.and_then(|vp8| vp8.picture_id);
        self.rewrite.skip(packet.sequence, picture)
    }

    /// Whether a keyframe of the target layer is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        self.mid.is_some() && self.target.is_some() && self.target != self.current
    }
}
