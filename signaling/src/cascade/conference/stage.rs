//! What the root of an epoch decides: who is on stage, what chairs do, who is heard.

use super::*;

impl Conference {
    /// How somebody is on stage now, if at all.
    pub(super) fn staged(&self, identity: &Identity) -> Option<Arc<Participant>> {
        match &self.own {
            Some(own) => {
                let one = self.roster.get(identity)?;
                own.stage.contains(identity).then(|| self.with_rights(one))
            }
            None => {
                let one = self.told_stage.get(identity).map(|(_, one)| one)?;
                Some(self.with_rights(one))
            }
        }
    }

    pub(super) fn refresh_stage(&mut self, ctx: &mut Context<'_>, identity: &Identity) {
        let staged = self.staged(identity);
        if self.stage.get(identity) == staged.as_ref() {
            return;
        }
        self.mark_down(&Key::Stage(identity.clone()));
        match staged {
            Some(one) => {
                self.stage.insert(identity.clone(), one.clone());
                self.tell(ctx, Event::Staged(one));
            }
            None => {
                self.stage.remove(identity);
                self.tell(ctx, Event::OffStage(identity.clone()));
            }
        }
        self.refresh_heard(ctx);
        self.listen(ctx);
    }

    pub(super) fn put_on_stage(&mut self, ctx: &mut Context<'_>, identity: &Identity) -> bool {
        let Some(own) = &mut self.own else {
            return false;
        };
        if own.stage.contains(identity) {
            return true;
        }
        if own.stage.len() >= STAGE_BOUND && Rule::StageBounded.holds() {
            // Whoever is not there gives the place up.
            let absent = own
                .stage
                .iter()
                .position(|one| self.roster.get(one).is_none());
            let Some(at) = absent else {
                return false;
            };
            own.stage.remove(at);
        }
        own.stage.push(identity.clone());
        self.refresh_stage(ctx, identity);
        true
    }

    pub(super) fn take_off_stage(&mut self, ctx: &mut Context<'_>, identity: &Identity) {
        if let Some(own) = &mut self.own {
            own.stage.retain(|one| one != identity);
            own.by_floor.remove(identity);
            self.refresh_stage(ctx, identity);
        }
    }

    pub(crate) fn act_arrived(&mut self, ctx: &mut Context<'_>, act: Arc<Act>) {
        if self.own.is_some() {
            self.perform(ctx, act);
        } else if let Some(up) = self.up.filter(|up| ctx.is_up(*up)) {
            if let Some(channel) = self.channels.get_mut(&up) {
                channel.push(Item::Act(act));
            }
            self.touch(up);
        } else if self.waiting.len() < WAITING_BOUND {
            self.waiting.push(act);
        }
    }

    pub(super) fn may(&self, ctx: &Context<'_>, act: &Act) -> bool {
        let Some(actor) = self.roster.get(&act.actor) else {
            return false;
        };
        if let Deed::Chat(_) = act.deed {
            return true;
        }
        let Some(branch) = actor.chair_of else {
            return false;
        };
        let in_branch = |node| branch == self.root || ctx.topology.is_in_branch(node, branch);
        match &act.deed {
            Deed::End => branch == self.root && self.root == ctx.me(),
            Deed::OpenFloor(_) => in_branch(ctx.me()),
            other => {
                let target = other.target().and_then(|target| self.roster.get(target));
                target.is_some_and(|target| in_branch(target.session.node))
            }
        }
    }

    /// An act takes effect, once.
    pub(super) fn perform(&mut self, ctx: &mut Context<'_>, act: Arc<Act>) {
        let (node, id) = (act.id.node, (act.id.incarnation, act.id.number));
        if self.done.get(&node).is_some_and(|done| id <= *done) && Rule::AppliedOnce.holds() {
            return;
        }
        self.done.insert(node, id);
        let Some(epoch) = self.epoch.filter(|_| self.may(ctx, &act)) else {
            ctx.refuse(act.id.node, Refusal::NotAllowed);
            return;
        };
        let is_done = match &act.deed {
            Deed::Stage(target) => self.put_on_stage(ctx, target),
            Deed::Remove(target) => {
                let removed = self.roster.get(target).map(|one| one.session);
                let authority = Authority {
                    removed,
                    ..self.authority.get(target).cloned().unwrap_or_default()
                };
                self.authority_told(ctx, target, &authority, None);
                true
            }
            _ => {
                self.take_effect(ctx, &act.deed, epoch);
                true
            }
        };
        if !is_done || self.log.len() >= LOG_BOUND {
            ctx.refuse(act.id.node, Refusal::TooMuch);
            return;
        }
        self.log_number += 1;
        let entry = Arc::new(LogEntry {
            epoch,
            number: self.log_number,
            at: ctx.moment.unix_ms,
            act,
        });
        self.log.insert((epoch.root, entry.number), entry.clone());
        self.mark_up(Key::Log(epoch.root, entry.number));
        ctx.out.push_back(Out::Log(self.id, entry.clone()));
        match &entry.act.deed {
            Deed::Chat(_) => self.chat(ctx, &entry),
            Deed::End => self.end(ctx),
            _ => {}
        }
    }

    pub(super) fn take_effect(&mut self, ctx: &mut Context<'_>, deed: &Deed, epoch: Epoch) {
        match deed {
            Deed::Mute(target) | Deed::Revoke(target) | Deed::Restore(target) => {
                let rights = &mut self.authority.entry(target.clone()).or_default().rights;
                match deed {
                    Deed::Mute(_) => rights.microphone.close(epoch),
                    Deed::Revoke(_) => rights.publish.close(epoch),
                    _ => rights.publish.open(),
                }
                self.rights_changed(ctx, target, None);
            }
            Deed::OffStage(target) => self.take_off_stage(ctx, target),
            Deed::OpenFloor(is_open) => {
                if let Some(own) = &mut self.own {
                    own.is_floor_open = *is_open;
                }
            }
            Deed::Stage(_) | Deed::Remove(_) | Deed::End | Deed::Chat(_) => {}
        }
    }

    pub(super) fn chat(&mut self, ctx: &mut Context<'_>, entry: &Arc<LogEntry>) {
        if !self.sessions.is_empty() {
            self.tell(ctx, Event::Chat(entry.clone()));
        }
        for node in self.children() {
            if ctx.is_up(node)
                && let Some(channel) = self.channels.get_mut(&node)
            {
                channel.push(Item::Chat(entry.clone()));
                self.touch(node);
            }
        }
    }

    pub(super) fn foreign_log(&mut self, ctx: &mut Context<'_>, entry: &Arc<LogEntry>) {
        let key = (entry.epoch.root, entry.number);
        if self.log.len() < LOG_BOUND && self.log.insert(key, entry.clone()).is_none() {
            self.mark_up(Key::Log(key.0, key.1));
            ctx.out.push_back(Out::Log(self.id, entry.clone()));
        }
    }

    /// Takes in the log of the node's file, after a restart.
    pub(crate) fn restore(&mut self, ctx: &mut Context<'_>, entries: Vec<Arc<LogEntry>>) {
        let me = ctx.me();
        for entry in &entries {
            self.log
                .insert((entry.epoch.root, entry.number), entry.clone());
        }
        let own: Vec<Arc<LogEntry>> = self
            .log
            .values()
            .filter(|one| one.epoch.root == me)
            .cloned()
            .collect();
        for entry in own {
            self.log_number = self.log_number.max(entry.number);
            let id = entry.act.id;
            let done = self.done.entry(id.node).or_default();
            *done = (*done).max((id.incarnation, id.number));
            if self.root != me {
                continue;
            }
            match &entry.act.deed {
                Deed::Stage(target) => {
                    if let Some(own) = &mut self.own
                        && !own.stage.contains(target)
                        && own.stage.len() < STAGE_BOUND
                    {
                        own.stage.push(target.clone());
                    }
                }
                Deed::End => self.is_ended = true,
                other => self.take_effect(ctx, &other.clone(), entry.epoch),
            }
        }
    }

    pub(super) fn end(&mut self, ctx: &mut Context<'_>) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        self.tell(ctx, Event::Ended);
        let viewers: Vec<u32> = self
            .sessions
            .keys()
            .copied()
            .chain([EVERYBODY, ROOM])
            .collect();
        for viewer in viewers {
            self.wishes.viewer_gone(viewer);
        }
        for node in self.channels.keys().copied().collect::<Vec<_>>() {
            self.wishes.neighbour_lost(node);
        }
        self.refresh_all(ctx);
        self.sessions.clear();
        self.heard_wanted.clear();
        self.stage.clear();
        self.told_stage.clear();
        self.roster = Roster::default();
        self.own = None;
        self.grace = None;
        self.mark_down(&Key::Ended);
    }

    pub(crate) fn loudness(&mut self, ctx: &mut Context<'_>, session: Session, level: u8) {
        if let Ok(one) = self.own_participant(ctx.me(), session)
            && self.rights(&one.identity).may_be_heard()
        {
            self.voices.heard(ctx.moment.now, &one.identity, level);
            self.listen(ctx);
        }
    }

    pub(crate) fn voices_heard(&mut self, ctx: &mut Context<'_>, from: NodeId, voices: &[Voice]) {
        let is_child = self
            .channels
            .get(&from)
            .is_some_and(|one| one.role == Role::Down);
        if !is_child || (voices.len() > HEARD_BOUND && Rule::LoudestHeard.holds()) {
            return;
        }
        for voice in voices {
            let claims = self.roster.claims(&voice.identity);
            if claims.iter().any(|claim| claim.from == from) {
                self.voices
                    .heard(ctx.moment.now, &voice.identity, voice.level);
            }
        }
        self.listen(ctx);
    }

    pub(super) fn listen(&mut self, ctx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.is_listening, true) {
            ctx.timers.push(ctx.moment.now, Timer::Voices(self.id));
        }
    }

    /// Tells upwards who is loudest, or decides.
    pub(crate) fn report_voices(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.moment.now;
        if self.own.is_some() {
            self.decide(ctx);
        } else {
            let voices = self.voices.news(now);
            if !Rule::OneSpeaker.holds() {
                let dominant = voices.first().map(|voice| voice.identity.clone());
                let speakers = Speakers {
                    dominant,
                    ..(*self.speakers).clone()
                };
                self.set_speakers(ctx, Arc::new(speakers));
            }
            if let Some(up) = self.up
                && !voices.is_empty()
                && ctx.is_up(up)
            {
                let conference = self.id;
                ctx.send(up, Message::Loudness { conference, voices });
            }
        }
        self.is_listening = !self.voices.is_silent();
        if self.is_listening {
            ctx.timers
                .push(now + REPORT_INTERVAL, Timer::Voices(self.id));
        }
        self.flush(ctx);
    }

    pub(super) fn decide(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.moment.now;
        self.open_floor(ctx);
        let on_stage = self.stage.values();
        let eligible =
            on_stage.filter(|one| one.rights.may_be_heard() && one.microphone().is_some());
        let eligible: BTreeSet<Identity> = eligible.map(|one| one.identity.clone()).collect();
        let speakers = self.voices.decide(now, &eligible, &self.speakers);
        if speakers != *self.speakers {
            self.set_speakers(ctx, Arc::new(speakers));
        }
    }

    /// While the floor is open, the loudest are on stage.
    pub(super) fn open_floor(&mut self, ctx: &mut Context<'_>) {
        if !self.own.as_ref().is_some_and(|own| own.is_floor_open) {
            return;
        }
        let now = ctx.moment.now;
        for voice in self.voices.loudest(now) {
            let identity = voice.identity;
            let Some(own) = &mut self.own else { return };
            if let Some(last) = own.by_floor.get_mut(&identity) {
                *last = now;
                continue;
            }
            if own.stage.contains(&identity) || self.roster.get(&identity).is_none() {
                continue;
            }
            if own.by_floor.len() >= FLOOR_BOUND {
                let level = |one: &Identity| self.voices.level(one);
                let quietest = own.by_floor.iter();
                let quietest = quietest.max_by_key(|(one, last)| (level(one), now.since(**last)));
                let Some((one, last)) = quietest.map(|(one, last)| (one.clone(), *last)) else {
                    continue;
                };
                let is_louder = level(&one) >= voice.level.saturating_add(TAKEOVER_MARGIN);
                let is_over = now.since(last) >= FLOOR_KEEP;
                if !is_over && !is_louder {
                    continue;
                }
                self.take_off_stage(ctx, &one);
            }
            if self.put_on_stage(ctx, &identity)
                && let Some(own) = &mut self.own
            {
                own.by_floor.insert(identity, now);
            }
        }
    }

    pub(super) fn set_speakers(&mut self, ctx: &mut Context<'_>, speakers: Arc<Speakers>) {
        if self.speakers == speakers {
            return;
        }
        self.speakers = speakers.clone();
        self.mark_down(&Key::Speakers);
        self.tell(ctx, Event::Speakers(speakers));
        self.refresh_heard(ctx);
    }
}
