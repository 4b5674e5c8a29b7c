//! A conference's way up: who decides, and what happens when lines come and go.

use super::*;

impl Conference {
    /// Whether this node needs to be told of the conference from above.
    pub(super) fn needs_way(&self, me: NodeId) -> bool {
        let has_children = self
            .channels
            .values()
            .any(|channel| channel.role == Role::Down);
        self.root != me && !self.is_ended && (has_children || !self.sessions.is_empty())
    }

    /// Attaches to the way up, if there is one and somebody here needs it.
    pub(super) fn seek_way(&mut self, ctx: &mut Context<'_>) {
        if self.up.is_none() && self.needs_way(ctx.me()) {
            if let Some(way) = ctx.topology.way {
                self.attach(ctx, way);
            } else {
                self.go_alone_at(ctx, ctx.moment.now + EPOCH_WAIT);
            }
        }
    }

    pub(super) fn attach(&mut self, ctx: &mut Context<'_>, way: NodeId) {
        if self.root == ctx.me() {
            return;
        }
        let channel = self
            .channels
            .entry(way)
            .or_insert_with(|| Channel::new(Role::Up));
        if channel.role == Role::Down {
            // It was below us; what it said is void.
            self.drop_child(ctx, way);
            self.channels.insert(way, Channel::new(Role::Up));
        } else {
            channel.role = Role::Up;
        }
        self.up = Some(way);
        self.told_generation += 1;
        self.restart(ctx, way, None);
        for act in std::mem::take(&mut self.waiting) {
            if let Some(channel) = self.channels.get_mut(&way) {
                channel.push(Item::Act(act));
            }
        }
        self.is_confirmed = false;
        self.offered = None;
        self.expect_epoch(ctx);
        self.refresh_all(ctx);
    }

    /// The way up has changed, or there is none now.
    pub(crate) fn way_changed(&mut self, ctx: &mut Context<'_>, way: Option<NodeId>) {
        if self.root == ctx.me() || !self.needs_way(ctx.me()) {
            self.flush(ctx);
            return;
        }
        match (self.up, way) {
            (Some(old), Some(new)) if old != new => {
                self.part(ctx, old);
                self.attach(ctx, new);
            }
            (None, Some(new)) => self.attach(ctx, new),
            (Some(old), None) if ctx.is_up(old) => {
                // It leads in a ring.
                self.part(ctx, old);
                self.is_confirmed = false;
                self.expect_epoch(ctx);
            }
            _ => self.expect_epoch(ctx),
        }
        self.flush(ctx);
    }

    /// The neighbour is told that it is no longer the way up.
    pub(super) fn part(&mut self, ctx: &mut Context<'_>, old: NodeId) {
        self.up = None;
        if let Some(channel) = self.channels.get_mut(&old) {
            self.waiting.extend(channel.suspend());
            self.waiting.truncate(WAITING_BOUND);
            channel.role = Role::Leaving;
            channel.restart(ctx.new_stream(), None);
            channel.completes = false;
            channel.mark(Key::Leave);
            channel.forget_heard();
        }
        self.wishes.neighbour_lost(old);
        self.touch(old);
        self.refresh_all(ctx);
    }

    /// Somebody who nobody needs leaves the conference's tree.
    pub(super) fn leave_if_idle(&mut self, ctx: &mut Context<'_>) {
        if self.needs_way(ctx.me()) || self.root == ctx.me() {
            return;
        }
        let at = ctx.started + RESYNC_TIME;
        if ctx.moment.now < at {
            ctx.timers.push(at, Timer::Linger(self.id));
            return;
        }
        if let Some(up) = self.up {
            self.part(ctx, up);
            self.own = None;
            self.epoch = None;
            self.grace = None;
            self.flush(ctx);
        } else if !self.is_ended {
            self.own = None;
            self.grace = None;
        }
    }

    pub(crate) fn linger_over(&mut self, ctx: &mut Context<'_>) {
        self.leave_if_idle(ctx);
    }

    pub(super) fn go_alone_at(&mut self, ctx: &mut Context<'_>, at: Time) {
        if self.own.is_none() && self.grace.is_none_or(|grace| at < grace) {
            self.grace = Some(at);
            ctx.timers.push(at, Timer::Grace(self.id));
        }
    }

    /// Without an epoch from above soon, this branch goes on alone.
    pub(super) fn expect_epoch(&mut self, ctx: &mut Context<'_>) {
        if !self.is_confirmed && self.root != ctx.me() {
            self.go_alone_at(ctx, ctx.moment.now + EPOCH_WAIT);
        }
    }

    pub(crate) fn grace_over(&mut self, ctx: &mut Context<'_>) {
        let is_due = self.grace.is_some_and(|at| at <= ctx.moment.now);
        if is_due {
            self.grace = None;
            if !self.is_confirmed && self.needs_way(ctx.me()) {
                self.open_epoch(ctx);
            }
        }
        self.flush(ctx);
    }

    /// From now on this node decides for all below it.
    pub(crate) fn open_epoch(&mut self, ctx: &mut Context<'_>) {
        if self.own.is_some() || self.is_ended {
            return;
        }
        self.epochs_opened += 1;
        let epoch = Epoch::open(ctx.me(), ctx.incarnation, self.epochs_opened);
        let below = self
            .stage
            .keys()
            .filter(|one| self.roster.get(one).is_some());
        self.own = Some(Own {
            stage: below.cloned().collect(),
            ..Own::default()
        });
        self.offered = None;
        self.enter(ctx, epoch);
        for act in std::mem::take(&mut self.waiting) {
            self.act_arrived(ctx, act);
        }
        self.listen(ctx);
    }

    pub(super) fn enter(&mut self, ctx: &mut Context<'_>, epoch: Epoch) {
        let is_new = self.epoch != Some(epoch);
        self.epoch = Some(epoch);
        let newest = self.newest.entry(epoch.root).or_insert(0);
        *newest = (*newest).max(epoch.number);
        if is_new {
            let is_own = self.own.is_some();
            self.tell(ctx, Event::Epoch { epoch, is_own });
        }
        self.mark_down(&Key::Epoch);
        for channel in self.channels.values_mut() {
            channel.completes |= channel.role == Role::Down;
        }
        let told = self.told_stage.keys().chain(self.stage.keys());
        let all: BTreeSet<Identity> = told.cloned().collect();
        for identity in all {
            self.refresh_stage(ctx, &identity);
        }
        if self.own.is_none() {
            self.set_speakers(ctx, self.told_speakers.clone());
        }
    }

    /// The way up has told everything: its epoch is entered, and our own is over.
    pub(super) fn adopt(&mut self, ctx: &mut Context<'_>) {
        let generation = self.told_generation;
        let old = self
            .told_stage
            .iter()
            .filter(|(_, (one, _))| *one != generation);
        let swept: Vec<Identity> = old.map(|(identity, _)| identity.clone()).collect();
        for identity in &swept {
            self.told_stage.remove(identity);
            self.refresh_stage(ctx, identity);
        }
        if let Some(epoch) = self.offered.take() {
            self.is_confirmed = true;
            self.grace = None;
            self.own = None;
            self.enter(ctx, epoch);
        }
    }

    pub(crate) fn line_down(&mut self, ctx: &mut Context<'_>, node: NodeId, cause: Cause) {
        self.steady.remove(&node);
        let Some(channel) = self.channels.get_mut(&node) else {
            return;
        };
        let role = channel.role;
        let acts = channel.suspend();
        self.wishes.neighbour_lost(node);
        match role {
            Role::Up => {
                self.is_confirmed = false;
                self.waiting.extend(acts);
                self.waiting.truncate(WAITING_BOUND);
                let now = ctx.moment.now;
                let at = match cause {
                    Cause::Restarted => now + RESTART_GRACE,
                    _ => now,
                };
                self.go_alone_at(ctx, at);
            }
            Role::Down => {
                self.away.insert(node, ctx.moment.now);
                ctx.timers
                    .push(ctx.moment.now + AWAY_TIME, Timer::Away(self.id));
                self.mark_up(Key::Away);
            }
            Role::Leaving => {}
        }
        self.refresh_all(ctx);
        self.flush(ctx);
    }

    pub(crate) fn line_up(&mut self, ctx: &mut Context<'_>, node: NodeId) {
        self.away.remove(&node);
        let Some(channel) = self.channels.get_mut(&node) else {
            return;
        };
        if channel.role == Role::Leaving {
            channel.resume();
            channel.completes = false;
        } else {
            channel.resume();
        }
        match channel.role {
            Role::Down => {
                self.mark(node, Key::Epoch);
                self.mark(node, Key::Speakers);
                self.mark_up(Key::Away);
            }
            Role::Up => {
                self.mark(node, Key::Away);
                // What is done alone until the epoch comes is done here.
                if self.own.is_none() {
                    for act in std::mem::take(&mut self.waiting) {
                        self.act_arrived(ctx, act);
                    }
                }
                self.expect_epoch(ctx);
            }
            Role::Leaving => {}
        }
        self.touch(node);
        self.refresh_all(ctx);
        self.flush(ctx);
    }

    /// A neighbour has restarted: its own people are gone, and what else it said is void once it says
    /// everything anew.
    pub(crate) fn neighbour_restarted(
        &mut self,
        ctx: &mut Context<'_>,
        node: NodeId,
        incarnation: Incarnation,
    ) {
        if !Rule::RestartExposed.holds() {
            return;
        }
        let is_void = |claim: &Claim| {
            let session = claim.participant.session;
            session.node == node && session.incarnation != incarnation
        };
        for identity in self.roster.sweep(node, is_void) {
            self.changed(ctx, &identity);
        }
        let at = ctx.moment.now + RESYNC_TIME;
        ctx.timers.push(at, Timer::Restarted(self.id, node));
        self.flush(ctx);
    }

    /// A neighbour that has restarted and does not speak of this conference knows of nobody below it.
    pub(crate) fn restart_over(&mut self, ctx: &mut Context<'_>, node: NodeId) {
        let incarnation = ctx.lines.get(&node).and_then(|line| line.incarnation);
        let channel = self.channels.get(&node);
        if channel
            .is_some_and(|one| one.role == Role::Down && one.heard_incarnation() < incarnation)
        {
            self.drop_child(ctx, node);
            self.flush(ctx);
            self.leave_if_idle(ctx);
        }
    }

    /// A neighbour is no longer below us.
    pub(crate) fn part_from(&mut self, ctx: &mut Context<'_>, node: NodeId) {
        if self
            .channels
            .get(&node)
            .is_some_and(|one| one.role == Role::Down)
        {
            self.drop_child(ctx, node);
            self.flush(ctx);
            self.leave_if_idle(ctx);
        }
    }

    pub(crate) fn expire_away(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.moment.now;
        let expired = self
            .away
            .iter()
            .filter(|(_, since)| now.since(**since) >= AWAY_TIME);
        let expired: Vec<NodeId> = expired.map(|(node, _)| *node).collect();
        for node in expired {
            self.drop_child(ctx, node);
        }
        self.flush(ctx);
        self.leave_if_idle(ctx);
    }

    pub(super) fn drop_child(&mut self, ctx: &mut Context<'_>, node: NodeId) {
        self.channels.remove(&node);
        self.steady.remove(&node);
        self.away.remove(&node);
        self.away_below.remove(&node);
        self.mark_up(Key::Away);
        self.wishes.neighbour_lost(node);
        for identity in self.roster.sweep(node, |_| true) {
            self.changed(ctx, &identity);
        }
        self.refresh_all(ctx);
    }

    /// A neighbour was revoked: nothing that it said stays.
    pub(crate) fn forget_neighbour(&mut self, ctx: &mut Context<'_>, node: NodeId) {
        if self.up == Some(node) {
            self.up = None;
            self.is_confirmed = false;
            self.expect_epoch(ctx);
        }
        self.drop_child(ctx, node);
        self.flush(ctx);
    }
}
