//! Which tracks are wanted, and what is sent on for it.

use super::*;

impl Conference {
    pub(super) fn upstream(&self, ctx: &Context<'_>, track: TrackId) -> Upstream {
        let home = track.session.node;
        if home == ctx.me() {
            let identity = self.sessions.get(&track.session.number);
            let one = identity.and_then(|identity| self.local(ctx.me(), identity));
            let is_there = one.is_some_and(|one| {
                one.session == track.session && one.track_ids().any(|(id, _)| id == track)
            });
            return if is_there {
                Upstream::Here
            } else {
                Upstream::Nowhere
            };
        }
        let down = ctx.topology.way_down(home, ctx.lines);
        let is_child = |node: &NodeId| {
            self.channels
                .get(node)
                .is_some_and(|one| one.role == Role::Down)
        };
        let up = self.up.filter(|up| ctx.is_up(*up));
        match down.filter(is_child).or(up) {
            Some(node) => Upstream::Neighbour(node),
            None => Upstream::Nowhere,
        }
    }

    /// Whether a track of this node is sound of somebody who may not be heard.
    pub(super) fn is_silenced(&self, ctx: &Context<'_>, track: TrackId) -> bool {
        let identity = self.sessions.get(&track.session.number);
        let Some(one) = identity.and_then(|identity| self.local(ctx.me(), identity)) else {
            return false;
        };
        let is_sound = |(id, source)| id == track && source == Source::Microphone;
        track.session == one.session
            && one.track_ids().any(is_sound)
            && !(one.rights.may_be_heard() && self.rights(&one.identity).may_be_heard())
    }

    /// Whether a track is known to have ended: its node is here or below and does not have it, or is
    /// nowhere in the tree.
    fn is_gone(&self, ctx: &Context<'_>, track: TrackId, upstream: Upstream) -> bool {
        let home = track.session.node;
        if home == ctx.me() {
            return upstream == Upstream::Nowhere;
        }
        if ctx.moment.now < ctx.started + RESYNC_TIME {
            return false;
        }
        let Some(way) = ctx.topology.way_down(home, ctx.lines) else {
            return self.root == ctx.me() && !ctx.topology.is_known(home);
        };
        let line = ctx.lines.get(&way);
        let is_below = line.is_some_and(|line| line.is_way(ctx.me()));
        let channel = self.channels.get(&way);
        is_below && channel.is_none_or(|channel| channel.role != Role::Down)
    }

    /// Nobody gets a track any more that has ended; all who wanted it hear of it.
    pub(super) fn track_ended(&mut self, ctx: &mut Context<'_>, track: TrackId) {
        let (was_local, beyond) = self.wishes.ended(track);
        if was_local {
            self.heard_wanted.remove(&track);
            self.tell(ctx, Event::TrackEnded(track));
        }
        for node in beyond {
            if let Some(channel) = self.channels.get_mut(&node) {
                channel.push(Item::NoTrack(track));
                self.touch(node);
            }
        }
    }

    pub(super) fn refresh_track(&mut self, ctx: &mut Context<'_>, track: TrackId) {
        let upstream = self.upstream(ctx, track);
        if self.is_gone(ctx, track, upstream) {
            self.track_ended(ctx, track);
        }
        let is_silenced = self.is_silenced(ctx, track);
        let mut changes = Vec::new();
        self.wishes
            .refresh(track, upstream, is_silenced, &mut changes);
        for change in changes {
            match change {
                Change::Tell(node, track) => self.mark(node, Key::Wish(track)),
                Change::Forward(to, track, layer) => {
                    ctx.out.push_back(Out::Forward(self.id, track, to, layer));
                    if let Some(layer) = layer {
                        // Who begins to get a track, or another layer, needs a picture to begin with.
                        self.keyframe_asked(ctx, track, layer);
                    }
                }
                Change::Layers(track, layer) => {
                    ctx.out.push_back(Out::Layers(self.id, track, layer));
                }
            }
        }
    }

    pub(crate) fn refresh_all(&mut self, ctx: &mut Context<'_>) {
        for track in self.wishes.tracks() {
            self.refresh_track(ctx, track);
        }
    }

    /// The people of this node hear whoever is heard.
    pub(super) fn refresh_heard(&mut self, ctx: &mut Context<'_>) {
        let mut wanted = BTreeSet::new();
        if !self.sessions.is_empty() {
            let heard = self
                .speakers
                .heard
                .iter()
                .filter_map(|one| self.stage.get(one));
            let heard = heard.filter(|one| one.rights.may_be_heard());
            let heard = heard.filter(|one| one.session.node != ctx.me());
            wanted.extend(heard.filter_map(|one| one.microphone()));
        }
        let before = std::mem::replace(&mut self.heard_wanted, wanted.clone());
        for track in before.difference(&wanted) {
            self.wishes.want(*track, EVERYBODY, None);
            self.refresh_track(ctx, *track);
        }
        for track in wanted.difference(&before) {
            self.wishes.want(*track, EVERYBODY, Some(Quality::High));
            self.refresh_track(ctx, *track);
        }
    }

    pub(crate) fn want(
        &mut self,
        ctx: &mut Context<'_>,
        session: Session,
        track: TrackId,
        quality: Option<Quality>,
    ) -> Result<(), Denied> {
        self.own_participant(ctx.me(), session)?;
        self.wishes.want(track, session.number, quality);
        self.refresh_track(ctx, track);
        if let Some(quality) = quality {
            self.keyframe_asked(ctx, track, quality);
        }
        self.flush(ctx);
        Ok(())
    }

    pub(crate) fn want_here(
        &mut self,
        ctx: &mut Context<'_>,
        track: TrackId,
        quality: Option<Quality>,
    ) {
        if quality.is_some() && (self.is_ended || self.sessions.is_empty()) {
            return;
        }
        self.wishes.want(track, ROOM, quality);
        self.refresh_track(ctx, track);
        self.flush(ctx);
    }

    /// The neighbour from which a track comes.
    pub(crate) fn source(&self, ctx: &Context<'_>, track: TrackId) -> Option<NodeId> {
        match self.upstream(ctx, track) {
            Upstream::Neighbour(node) => Some(node),
            Upstream::Here | Upstream::Nowhere => None,
        }
    }

    /// Somebody here or beyond a line needs a keyframe.
    pub(crate) fn keyframe_asked(&mut self, ctx: &mut Context<'_>, track: TrackId, layer: Quality) {
        if track.is_sound() {
            return;
        }
        let is_here = track.session.node == ctx.me();
        let layer = self.wishes.coming(track).unwrap_or(layer);
        if self
            .wishes
            .ask_keyframe(ctx.moment.now, track, layer, is_here)
        {
            self.send_keyframe(ctx, track, layer);
        }
        if !std::mem::replace(&mut self.is_watching_keyframes, true) {
            let at = ctx.moment.now + KEYFRAME_REPEAT;
            ctx.timers.push(at, Timer::Keyframes(self.id));
        }
    }

    pub(super) fn send_keyframe(&mut self, ctx: &mut Context<'_>, track: TrackId, layer: Quality) {
        let conference = self.id;
        match self.upstream(ctx, track) {
            Upstream::Here => ctx
                .out
                .push_back(Out::AskKeyframe(conference, track, layer)),
            Upstream::Neighbour(node) => ctx.send(
                node,
                Message::Keyframe {
                    conference,
                    track,
                    layer,
                },
            ),
            Upstream::Nowhere => {}
        }
    }

    pub(crate) fn repeat_keyframes(&mut self, ctx: &mut Context<'_>) {
        self.is_watching_keyframes = false;
        let me = ctx.me();
        let is_here = |track: TrackId| track.session.node == me;
        let (due, next) = self.wishes.repeat_keyframes(ctx.moment.now, is_here);
        for (track, layer) in due {
            self.send_keyframe(ctx, track, layer);
        }
        if let Some(next) = next {
            self.is_watching_keyframes = true;
            ctx.timers.push(next, Timer::Keyframes(self.id));
        }
    }
}
