//! What neighbours are told of a conference, and what follows from what they tell.

use super::*;

impl Conference {
    /// What there is to say to `node` under a key.
    pub(super) fn state(&self, key: &Key, node: NodeId, ctx: &Context<'_>) -> Option<Item> {
        Some(match key {
            Key::Leave => Item::Leave,
            Key::Ended => Item::Ended,
            Key::Epoch => Item::Epoch(self.epoch?),
            Key::Authority(identity) => {
                let authority = self.authority.get(identity).cloned().unwrap_or_default();
                let there = self.roster.claims(identity).iter();
                let there = there.filter(|claim| claim.from == node);
                let session = there.map(|claim| claim.participant.session).next();
                let winner = self.roster.get(identity).map(|one| one.session);
                Item::Authority {
                    identity: identity.clone(),
                    rights: authority.rights,
                    removed: authority.removed,
                    replaced: session
                        .filter(|session| Some(*session) != winner)
                        .or(authority.replaced),
                }
            }
            Key::Participant(identity) => match self.roster.get(identity) {
                Some(one) => Item::Participant(self.with_rights(one)),
                None => Item::Gone(identity.clone()),
            },
            Key::Away => Item::Away(self.away()),
            Key::Stage(identity) => match self.stage.get(identity) {
                Some(one) => Item::Stage(one.clone()),
                None => Item::OffStage(identity.clone()),
            },
            Key::Speakers => Item::Speakers(self.speakers.clone()),
            Key::Log(root, number) => Item::Log(self.log.get(&(*root, *number))?.clone()),
            Key::Wish(track) => Item::Wish {
                track: *track,
                layer: self.wishes.told(*track, node),
            },
            Key::Node(node) => ctx.topology.item(*node),
        })
    }

    /// With all that is known to have been taken from it.
    pub(super) fn with_rights(&self, one: &Arc<Participant>) -> Arc<Participant> {
        let Some(authority) = self.authority.get(&one.identity) else {
            return one.clone();
        };
        let mut rights = one.rights.clone();
        if rights.merge(&authority.rights) {
            let known = Participant {
                rights,
                ..(**one).clone()
            };
            return Arc::new(known);
        }
        one.clone()
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self, ctx: &mut Context<'_>) {
        for node in std::mem::take(&mut self.touched) {
            self.flush_one(ctx, node);
        }
    }

    pub(crate) fn flush_one(&mut self, ctx: &mut Context<'_>, node: NodeId) {
        let Some(mut channel) = self.channels.remove(&node) else {
            return;
        };
        channel.is_touched = false;
        let now = ctx.moment.now;
        let may_speak = match channel.role {
            Role::Up | Role::Leaving => true,
            Role::Down => self.epoch.is_some() || self.is_ended || !Rule::SilentUntilKnown.holds(),
        };
        if !ctx.is_up(node) || !may_speak {
            self.channels.insert(node, channel);
            return;
        }
        let knows_all = now >= ctx.started + RESYNC_TIME;
        let is_complete = match channel.role {
            Role::Up => knows_all || !Rule::SilentUntilKnown.holds(),
            Role::Down => {
                self.own.is_some() || self.is_confirmed || !Rule::SilentUntilKnown.holds()
            }
            Role::Leaving => false,
        };
        let state = |key: &Key| self.state(key, node, ctx);
        let batches = channel.flush(now, self.id, self.root, self.epoch, is_complete, state);
        for batch in batches {
            ctx.send(node, Message::Batch(batch));
        }
        if channel.role == Role::Up && channel.completes && !knows_all {
            ctx.timers
                .push(ctx.started + RESYNC_TIME, Timer::Channel(self.id, node));
        }
        if let Some(at) = channel.deadline()
            && !channel.is_armed
        {
            channel.is_armed = true;
            ctx.timers.push(at, Timer::Channel(self.id, node));
        }
        self.channels.insert(node, channel);
    }

    /// A batch's time has come.
    pub(crate) fn repeat(&mut self, ctx: &mut Context<'_>, node: NodeId) {
        if let Some(channel) = self.channels.get_mut(&node) {
            channel.is_armed = false;
            self.flush_one(ctx, node);
        }
    }

    pub(super) fn mark_all(&mut self, node: NodeId) {
        let Some(channel) = self.channels.get(&node) else {
            return;
        };
        let mut keys: Vec<Key> = match channel.role {
            Role::Leaving => vec![Key::Leave],
            Role::Up => {
                let people = self.roster.identities().cloned().map(Key::Participant);
                let log = self
                    .log
                    .keys()
                    .map(|(root, number)| Key::Log(*root, *number));
                people.chain(log).chain([Key::Away]).collect()
            }
            Role::Down => {
                let stage = self.stage.keys().cloned().map(Key::Stage);
                let ended = self.is_ended.then_some(Key::Ended);
                stage
                    .chain(ended)
                    .chain([Key::Epoch, Key::Speakers])
                    .collect()
            }
        };
        let tracks = self.wishes.tracks();
        let told = tracks
            .into_iter()
            .filter(|track| self.wishes.told(*track, node).is_some());
        keys.extend(told.map(Key::Wish));
        if let Some(channel) = self.channels.get_mut(&node) {
            for key in keys {
                channel.mark(key);
            }
        }
        self.touch(node);
    }

    pub(super) fn restart(&mut self, ctx: &Context<'_>, node: NodeId, answers: Option<u32>) {
        if let Some(channel) = self.channels.get_mut(&node) {
            channel.restart(ctx.new_stream(), answers);
            self.mark_all(node);
        }
    }

    /// The neighbour does not know our stream.
    pub(crate) fn unknown(&mut self, ctx: &mut Context<'_>, from: NodeId, stream: u32) {
        let Some(channel) = self.channels.get(&from) else {
            return;
        };
        if channel.stream() != stream {
            return;
        }
        if channel.role == Role::Leaving {
            self.channels.remove(&from);
            return;
        }
        let answers = channel.heard_stream();
        self.restart(ctx, from, answers);
        self.flush(ctx);
    }

    pub(crate) fn acknowledged(
        &mut self,
        ctx: &mut Context<'_>,
        from: NodeId,
        stream: u32,
        next: u64,
    ) {
        let Some(channel) = self.channels.get_mut(&from) else {
            return;
        };
        channel.acknowledged(stream, next);
        if channel.role == Role::Leaving && channel.is_idle() {
            self.channels.remove(&from);
        } else {
            self.flush_one(ctx, from);
        }
    }

    /// A batch came from a neighbour.
    pub(crate) fn receive(
        &mut self,
        ctx: &mut Context<'_>,
        from: NodeId,
        incarnation: Incarnation,
        batch: Batch,
    ) {
        let stream = batch.stream;
        if !self.channels.contains_key(&from) {
            let begins = matches!(batch.items.first(), Some(Item::Begin { .. }));
            // A way up that speaks of what we have left is told so: it may not know.
            let is_upwards = ctx.topology.path.iter().any(|hop| hop.node == from);
            if !begins || (is_upwards && self.up != Some(from) && ctx.topology.way != Some(from)) {
                let conference = self.id;
                ctx.send(from, Message::Unknown { conference, stream });
                return;
            }
            if is_upwards {
                self.attach(ctx, from);
            } else {
                self.channels.insert(from, Channel::new(Role::Down));
                self.restart(ctx, from, Some(stream));
                self.seek_way(ctx);
            }
        }
        let Some(channel) = self.channels.get_mut(&from) else {
            return;
        };
        let role = channel.role;
        match channel.arrive(incarnation, batch) {
            Arrival::Unknown => {
                let conference = self.id;
                ctx.send(from, Message::Unknown { conference, stream });
                return;
            }
            Arrival::Stale => {
                ctx.refuse(from, Refusal::Stale);
                return;
            }
            Arrival::Again => {}
            Arrival::Apply(batches) => {
                for batch in batches {
                    if role == Role::Leaving {
                        continue;
                    }
                    let items = batch.items.iter();
                    let is_early = items
                        .into_iter()
                        .any(|item| Self::is_for_others(ctx, from, item));
                    if is_early
                        && let Some(channel) = self.channels.get_mut(&from)
                        && channel.put_back(batch.sequence)
                    {
                        // Its node is announced on another channel and may only be late.
                        ctx.refuse(from, Refusal::NotBelow);
                        break;
                    }
                    if let Err(refusal) = self.apply(ctx, from, role, &batch) {
                        ctx.refuse(from, refusal);
                    }
                    if !self.channels.contains_key(&from) {
                        self.acknowledge(ctx, from, stream, batch.sequence + 1);
                        break;
                    }
                }
            }
        }
        if let Some((stream, next)) = self.channels.get(&from).and_then(Channel::acknowledgement) {
            self.acknowledge(ctx, from, stream, next);
        }
        self.flush(ctx);
        self.leave_if_idle(ctx);
    }

    fn acknowledge(&self, ctx: &mut Context<'_>, to: NodeId, stream: u32, next: u64) {
        let conference = self.id;
        let told = Message::Acknowledge {
            conference,
            stream,
            next,
        };
        ctx.send(to, told);
    }

    pub(super) fn check(&self, role: Role, batch: &Batch) -> Result<(), Refusal> {
        for item in batch.items.iter() {
            let may = match item.direction() {
                Direction::Both => true,
                Direction::Up => role == Role::Down,
                Direction::Down => role == Role::Up,
            };
            if !may {
                return Err(Refusal::NotTheirs);
            }
            if !item.is_within_bounds() && Rule::LoudestHeard.holds() {
                return Err(Refusal::TooMuch);
            }
        }
        if role == Role::Up
            && let Some(epoch) = batch.epoch
            && self
                .newest
                .get(&epoch.root)
                .is_some_and(|newest| epoch.number < *newest)
        {
            return Err(Refusal::StaleEpoch);
        }
        Ok(())
    }

    /// Whether an item speaks for a node that is not below the sender.
    pub(super) fn is_for_others(ctx: &Context<'_>, from: NodeId, item: &Item) -> bool {
        let node = match item {
            Item::Participant(one) => one.session.node,
            Item::Log(entry) => entry.epoch.root,
            Item::Act(act) => act.id.node,
            _ => return false,
        };
        !ctx.topology.is_below(node, from)
    }

    pub(super) fn apply(
        &mut self,
        ctx: &mut Context<'_>,
        from: NodeId,
        role: Role,
        batch: &Batch,
    ) -> Result<(), Refusal> {
        self.check(role, batch)?;
        for item in batch.items.iter() {
            if self.is_ended && !matches!(item, Item::Begin { .. } | Item::Leave) {
                continue;
            }
            if Self::is_for_others(ctx, from, item) {
                ctx.refuse(from, Refusal::NotBelow);
                continue;
            }
            match item {
                Item::Begin { answers, .. } => self.begun(ctx, from, role, *answers),
                Item::Complete => self.completed(ctx, from, role),
                Item::Wish { track, layer } => {
                    self.wishes.want_beyond(*track, from, *layer);
                    self.refresh_track(ctx, *track);
                }

                Item::NoTrack(track) => {
                    if self.upstream(ctx, *track) == Upstream::Neighbour(from) {
                        self.track_ended(ctx, *track);
                        self.refresh_track(ctx, *track);
                    }
                }
                Item::Leave => {
                    self.drop_child(ctx, from);
                    return Ok(());
                }
                Item::Participant(one) => self.participant(ctx, from, one.clone()),
                Item::Gone(identity) => {
                    if self.roster.remove(from, identity) {
                        self.changed(ctx, identity);
                    }
                }
                Item::Away(nodes) => {
                    self.away_below.insert(from, nodes.clone());
                    self.mark_up(Key::Away);
                }
                Item::Log(entry) => self.foreign_log(ctx, entry),
                Item::Act(act) => self.act_arrived(ctx, act.clone()),

                Item::Epoch(epoch) => self.offered = Some(*epoch),
                Item::Authority {
                    identity,
                    rights,
                    removed,
                    replaced,
                } => {
                    let authority = Authority {
                        rights: rights.clone(),
                        removed: *removed,
                        replaced: *replaced,
                    };
                    self.authority_told(ctx, identity, &authority, Some(from));
                }
                Item::Stage(one) => {
                    let generation = self.told_generation;
                    self.told_stage
                        .insert(one.identity.clone(), (generation, one.clone()));
                    self.refresh_stage(ctx, &one.identity);
                }
                Item::OffStage(identity) => {
                    self.told_stage.remove(identity);
                    self.refresh_stage(ctx, identity);
                }
                Item::Speakers(speakers) => {
                    self.told_speakers = speakers.clone();
                    if self.own.is_none() {
                        self.set_speakers(ctx, speakers.clone());
                    }
                }
                Item::Chat(entry) => self.chat(ctx, entry),
                Item::Ended => self.end(ctx),
                Item::Node { .. } | Item::NodeGone(_) => return Err(Refusal::NotTheirs),
            }
        }
        Ok(())
    }

    pub(super) fn begun(
        &mut self,
        ctx: &mut Context<'_>,
        from: NodeId,
        role: Role,
        answers: Option<u32>,
    ) {
        self.steady.remove(&from);
        if role == Role::Up {
            self.told_generation += 1;
            self.is_confirmed = false;
            self.expect_epoch(ctx);
        }
        let Some(channel) = self.channels.get(&from) else {
            return;
        };
        let stream = channel.heard_stream();
        // Whoever begins anew without having heard us has forgotten us, too. Of two that begin at once
        // only the upper one answers, or they would answer each other for ever.
        let is_forgotten = match role {
            Role::Down => answers != Some(channel.stream()),
            Role::Up | Role::Leaving => answers.is_none(),
        };
        self.wishes.begun_anew(from);
        if is_forgotten {
            self.wishes.neighbour_lost(from);
            self.restart(ctx, from, stream);
            self.refresh_all(ctx);
        }
        if self.is_ended {
            self.mark(from, Key::Ended);
        }
    }

    pub(super) fn completed(&mut self, ctx: &mut Context<'_>, from: NodeId, role: Role) {
        self.steady.insert(from);
        let Some(generation) = self.channels.get(&from).map(|channel| channel.generation) else {
            return;
        };
        match role {
            Role::Down => {
                let swept = self
                    .roster
                    .sweep(from, |claim: &Claim| claim.generation != generation);
                for identity in swept {
                    self.changed(ctx, &identity);
                }
            }
            Role::Up => self.adopt(ctx),
            Role::Leaving => {}
        }
        self.refresh_all(ctx);
    }
}
