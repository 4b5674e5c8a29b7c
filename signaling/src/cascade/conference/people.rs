//! Who is there, here and below, and what was taken from whom.

use super::*;

impl Conference {
    pub(super) fn participant(
        &mut self,
        ctx: &mut Context<'_>,
        from: NodeId,
        mut one: Arc<Participant>,
    ) {
        let identity = one.identity.clone();
        if self.roster.len() >= PEOPLE_BOUND && self.roster.get(&identity).is_none() {
            ctx.refuse(from, Refusal::TooMuch);
            return;
        }
        let claims = self.roster.claims(&identity);
        let same = claims
            .iter()
            .find(|claim| claim.from == from && claim.participant.session == one.session);
        let replaces = match same {
            Some(same) => same.participant.replaces,
            None => {
                // Who comes while the other is known to be there, or away, is the later one, whatever
                // the clocks say. Where a branch tells what happened while it was cut off, they decide.
                let others = claims.iter().filter(|claim| claim.from != from);
                let is_clear = |claim: &&Claim| {
                    claim.participant.session != one.session
                        && claim.participant.replaces != Some(one.session)
                        && (self.steady.contains(&from) || self.away.contains_key(&claim.from))
                };
                others
                    .filter(is_clear)
                    .map(|claim| claim.participant.session)
                    .next()
            }
        };
        if one.replaces.is_none() && replaces.is_some() {
            let stamped = Participant {
                replaces,
                ..(*one).clone()
            };
            one = Arc::new(stamped);
        }
        let rights = one.rights.clone();
        let session = one.session;
        let generation = self
            .channels
            .get(&from)
            .map_or(0, |channel| channel.generation);
        let is_changed = self.roster.put(from, generation, one);
        if !rights.is_new() {
            let authority = Authority {
                rights: rights.clone(),
                ..Authority::default()
            };
            self.authority_told(ctx, &identity, &authority, Some(from));
        }
        if let Some(known) = self.authority.get(&identity) {
            let is_over = known.removed == Some(session) || known.replaced == Some(session);
            if known.rights != rights || is_over {
                self.mark(from, Key::Authority(identity.clone()));
            }
        }
        if is_changed {
            self.changed(ctx, &identity);
        } else if self
            .roster
            .get(&identity)
            .is_some_and(|winner| winner.session != session)
        {
            self.mark(from, Key::Authority(identity));
        }
    }

    /// Who counts under an identity has changed.
    pub(super) fn changed(&mut self, ctx: &mut Context<'_>, identity: &Identity) {
        self.mark_up(Key::Participant(identity.clone()));
        let winner = self.roster.get(identity).map(|one| one.session);
        let claims = self.roster.claims(identity).iter();
        let losers: Vec<(NodeId, Session)> = claims
            .map(|claim| (claim.from, claim.participant.session))
            .filter(|(_, session)| Some(*session) != winner)
            .collect();
        for (node, session) in losers {
            if node == ctx.me() {
                self.end_session(ctx, session, Why::Replaced);
            } else {
                self.mark(node, Key::Authority(identity.clone()));
            }
        }
        if winner.is_none() {
            self.voices.remove(identity);
        }
        if !Rule::CrowdCounted.holds() {
            self.mark_down(&Key::Stage(identity.clone()));
        }
        self.refresh_stage(ctx, identity);
    }

    pub(super) fn authority_told(
        &mut self,
        ctx: &mut Context<'_>,
        identity: &Identity,
        told: &Authority,
        from: Option<NodeId>,
    ) {
        let known = self.authority.entry(identity.clone()).or_default();
        let mut is_news = known.rights.merge(&told.rights);
        let over = [told.removed, told.replaced];
        if told.removed.is_some() && known.removed != told.removed {
            known.removed = told.removed;
            is_news = true;
        }
        if told.replaced.is_some() && known.replaced != told.replaced {
            known.replaced = told.replaced;
            is_news = true;
        }
        if is_news {
            self.rights_changed(ctx, identity, from);
        }
        let local = self.local(ctx.me(), identity).map(|one| one.session);
        for (over, why) in over.into_iter().zip([Why::Removed, Why::Replaced]) {
            if let Some(session) = over
                && local == Some(session)
            {
                self.end_session(ctx, session, why);
            }
        }
    }

    pub(super) fn local(&self, me: NodeId, identity: &Identity) -> Option<&Arc<Participant>> {
        let claims = self.roster.claims(identity).iter();
        claims
            .filter(|claim| claim.from == me)
            .map(|claim| &claim.participant)
            .next()
    }

    /// What was taken from somebody has changed, as `from` told or as was decided here.
    pub(super) fn rights_changed(
        &mut self,
        ctx: &mut Context<'_>,
        identity: &Identity,
        from: Option<NodeId>,
    ) {
        if from != self.up || from.is_none() {
            self.mark_up(Key::Participant(identity.clone()));
        }
        let claims = self.roster.claims(identity).iter();
        let nodes: Vec<NodeId> = claims.map(|claim| claim.from).collect();
        for node in nodes {
            if Some(node) != from && node != ctx.me() {
                self.mark(node, Key::Authority(identity.clone()));
            }
        }
        if let Some(one) = self.local(ctx.me(), identity).cloned() {
            let mut rights = one.rights.clone();
            let known = self.rights(identity);
            if rights.merge(&known) {
                let may_publish = rights.publish.is_open();
                let tracks = if may_publish {
                    one.tracks.clone()
                } else {
                    Vec::new()
                };
                let over: Vec<TrackId> = one.track_ids().map(|(track, _)| track).collect();
                let local = Participant {
                    rights: rights.clone(),
                    tracks,
                    ..(*one).clone()
                };
                self.roster.put(ctx.me(), 0, Arc::new(local));
                self.tell(
                    ctx,
                    Event::Rights {
                        session: one.session,
                        may_be_heard: rights.may_be_heard(),
                        may_publish,
                    },
                );
                for track in over {
                    self.refresh_track(ctx, track);
                }
                self.mark_up(Key::Participant(identity.clone()));
            }
        }
        self.refresh_stage(ctx, identity);
    }

    pub(crate) fn join(
        &mut self,
        ctx: &mut Context<'_>,
        number: u32,
        newcomer: Newcomer,
        level: Level,
    ) -> Result<Session, Denied> {
        if self.is_ended {
            return Err(Denied::Ended);
        }
        if newcomer.identity.0.len() > TEXT_BOUND || newcomer.name.len() > TEXT_BOUND {
            return Err(Denied::TooMuch);
        }
        if self.roster.len() >= PEOPLE_BOUND {
            return Err(Denied::Full);
        }
        let me = ctx.me();
        let session = Session {
            node: me,
            incarnation: ctx.incarnation,
            number,
        };
        let identity = newcomer.identity;
        if let Some(old) = self.local(me, &identity).map(|one| one.session) {
            self.end_session(ctx, old, Why::Replaced);
        }
        let replaces = self.roster.get(&identity).map(|one| one.session);
        let one = Participant {
            identity: identity.clone(),
            session,
            joined: ctx.moment.unix_ms,
            replaces,
            name: newcomer.name,
            organisation: newcomer.organisation,
            level,
            chair_of: newcomer.chair_of,
            rights: self.rights(&identity),
            tracks: Vec::new(),
        };
        self.sessions.insert(number, identity.clone());
        self.roster.put(me, 0, Arc::new(one));
        self.changed(ctx, &identity);
        self.refresh_heard(ctx);
        self.seek_way(ctx);
        self.flush(ctx);
        Ok(session)
    }

    pub(super) fn own_participant(
        &self,
        me: NodeId,
        session: Session,
    ) -> Result<Arc<Participant>, Denied> {
        let identity = self
            .sessions
            .get(&session.number)
            .ok_or(Denied::NoSession)?;
        let one = self
            .local(me, identity)
            .filter(|one| one.session == session);
        one.cloned().ok_or(Denied::NoSession)
    }

    pub(super) fn end_session(&mut self, ctx: &mut Context<'_>, session: Session, why: Why) {
        let Ok(one) = self.own_participant(ctx.me(), session) else {
            return;
        };
        self.tell(ctx, Event::Over { session, why });
        self.forget_session(ctx, &one);
    }

    pub(super) fn forget_session(&mut self, ctx: &mut Context<'_>, one: &Arc<Participant>) {
        self.sessions.remove(&one.session.number);
        if self.roster.remove(ctx.me(), &one.identity) {
            self.changed(ctx, &one.identity);
        }
        let room = self.sessions.is_empty().then_some(ROOM);
        for viewer in [one.session.number].into_iter().chain(room) {
            for track in self.wishes.viewer_gone(viewer) {
                self.refresh_track(ctx, track);
            }
        }
        for (track, _) in one.track_ids() {
            self.refresh_track(ctx, track);
        }
        self.refresh_heard(ctx);
    }

    pub(crate) fn leave(&mut self, ctx: &mut Context<'_>, session: Session) -> Result<(), Denied> {
        let one = self.own_participant(ctx.me(), session)?;
        self.forget_session(ctx, &one);
        self.flush(ctx);
        self.leave_if_idle(ctx);
        Ok(())
    }

    pub(crate) fn set_tracks(
        &mut self,
        ctx: &mut Context<'_>,
        session: Session,
        tracks: Vec<TrackInfo>,
    ) -> Result<(), Denied> {
        let one = self.own_participant(ctx.me(), session)?;
        if tracks.len() > TRACKS_BOUND {
            return Err(Denied::TooMuch);
        }
        if !self.rights(&one.identity).publish.is_open() && !tracks.is_empty() {
            return Err(Denied::NotAllowed);
        }
        let before: Vec<TrackId> = one.track_ids().map(|(track, _)| track).collect();
        let changed = Arc::new(Participant {
            tracks,
            ..(*one).clone()
        });
        let after: Vec<TrackId> = changed.track_ids().map(|(track, _)| track).collect();
        if self.roster.put(ctx.me(), 0, changed) {
            self.changed(ctx, &one.identity);
        }
        for track in before.into_iter().chain(after) {
            self.refresh_track(ctx, track);
        }
        self.flush(ctx);
        Ok(())
    }

    /// A participant opens or closes its own microphone.
    pub(crate) fn set_microphone(
        &mut self,
        ctx: &mut Context<'_>,
        session: Session,
        is_open: bool,
    ) -> Result<(), Denied> {
        let one = self.own_participant(ctx.me(), session)?;
        let epoch = Epoch::open(ctx.me(), ctx.incarnation, session.number);
        let rights = &mut self
            .authority
            .entry(one.identity.clone())
            .or_default()
            .rights;
        if is_open {
            rights.microphone.open();
        } else {
            rights.microphone.close(epoch);
        }
        self.rights_changed(ctx, &one.identity, None);
        self.flush(ctx);
        Ok(())
    }

    pub(crate) fn act(
        &mut self,
        ctx: &mut Context<'_>,
        session: Session,
        id: ActId,
        deed: Deed,
    ) -> Result<(), Denied> {
        let one = self.own_participant(ctx.me(), session)?;
        if matches!(&deed, Deed::Chat(text) if text.len() > CHAT_BOUND) {
            return Err(Denied::TooMuch);
        }
        let act = Act {
            id,
            actor: one.identity.clone(),
            deed,
        };
        self.act_arrived(ctx, Arc::new(act));
        self.flush(ctx);
        Ok(())
    }
}
