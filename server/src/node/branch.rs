//! This node's branch of the tree: joins the control core, the media lines and the rooms here.
//!
//! One task is told what each of them has to say, in order, and tells the others. Rooms tell who is here,
//! what they publish and want; the core tells who is on stage elsewhere and what is to be sent to whom;
//! `lines` has the connections, and `tracks` what crosses them.
//!
//! Of a picture's layers and keyframes the core's words are not needed: the ends of a line tell each
//! other themselves what is wanted of what crosses it (`sfu::relay`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use signaling::Hub;
use signaling::cascade::{
    ConferenceId, Event, Identity, Moment, Newcomer, Node, NodeId, Output, Participant, Session,
    Source, TRACKS_BOUND, TrackId, TrackInfo, Why,
};
use signaling::hub::TreeNews;
use signaling::proto::DisconnectReason;
use signaling::room::ParticipantKey;
use signaling::room::tree::{Elsewhere, News, Published};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::lines::{Lines, Step};
use super::runtime::Cascade;
use super::tracks::Tracks;

/// How often lines are looked at. The core must hear of media more often than it takes it for lost.
const TICK: Duration = Duration::from_millis(500);

/// How often it is looked where tracks come from and how many people there are. What changes otherwise is
/// followed at once; this is for ways that moved without a line's going.
const LOOK_TICKS: u32 = 4;

/// The attributes of people from elsewhere, as clients see them.
const ORGANISATION_ATTRIBUTE: &str = "terrace.organisation";
const LEVEL_ATTRIBUTE: &str = "terrace.level";

/// Which nodes a node calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    /// The parent and the second way up.
    pub(crate) above: Vec<NodeId>,
    /// Neighbours at its level.
    pub(crate) siblings: Vec<NodeId>,
}

/// Somebody of a conference who is here.
#[derive(Debug)]
struct Here {
    session: Session,
    /// What it publishes; a number is used once.
    tracks: BTreeMap<sfu::TrackId, TrackId>,
    next: u16,
}

/// A conference that has something to do here.
#[derive(Debug)]
struct Conference {
    people: BTreeMap<ParticipantKey, Here>,
    /// Who is on stage elsewhere, while somebody is here to see.
    stage: BTreeMap<Identity, Arc<Participant>>,
    /// What clients here want of tracks from elsewhere, under which ids these were shown.
    wanted: BTreeMap<TrackId, (sfu::TrackId, sfu::Quality)>,
    tracks: Tracks,
}

struct Branch {
    me: NodeId,
    hub: Arc<Hub>,
    cascade: Cascade,
    lines: Lines,
    conferences: BTreeMap<ConferenceId, Conference>,
    /// Those in which something has changed.
    changed: BTreeSet<ConferenceId>,
    outputs: mpsc::Receiver<Output>,
    /// Outputs that came while the core was asked.
    waiting: VecDeque<Output>,
    ticks: u32,
}

/// Joins a node's core to the rooms of a hub, until the handle is aborted.
pub(crate) fn start(
    me: NodeId,
    around: Around,
    hub: Arc<Hub>,
    cascade: Cascade,
    outputs: mpsc::Receiver<Output>,
) -> AbortHandle {
    let news = hub.join_tree();
    let branch = Branch {
        me,
        hub,
        cascade,
        lines: Lines::new(me, around.above, around.siblings),
        conferences: BTreeMap::new(),
        changed: BTreeSet::new(),
        outputs,
        waiting: VecDeque::new(),
        ticks: 0,
    };
    tokio::spawn(branch.run(news)).abort_handle()
}

fn info_of(track: TrackId, published: &Published) -> TrackInfo {
    TrackInfo {
        number: track.number,
        source: track.source,
        sizes: published.sizes,
    }
}

/// How somebody elsewhere is shown, with the tracks that are to be had here.
fn shown(one: &Participant, tracks: &Tracks) -> Elsewhere {
    let of = |((track, _), info): ((TrackId, Source), &TrackInfo)| Some((tracks.id(track)?, *info));
    Elsewhere {
        identity: one.identity.to_string(),
        name: one.name.to_string(),
        attributes: HashMap::from([
            (
                ORGANISATION_ATTRIBUTE.to_owned(),
                one.organisation.to_string(),
            ),
            (LEVEL_ATTRIBUTE.to_owned(), one.level.to_string()),
        ]),
        joined: i64::try_from(one.joined).unwrap_or_default(),
        is_muted: !one.rights.may_be_heard(),
        tracks: one.track_ids().zip(&one.tracks).filter_map(of).collect(),
    }
}

impl Branch {
    async fn run(mut self, mut news: mpsc::UnboundedReceiver<TreeNews>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some(output) = self.waiting.pop_front() {
                self.follow(output);
            } else {
                tokio::select! {
                    output = self.outputs.recv() => match output {
                        Some(output) => self.follow(output),
                        None => return,
                    },
                    Some(news) = news.recv() => self.hear(news).await,
                    _ = ticks.tick() => self.tick().await,
                }
            }
            for step in self.lines.take_steps() {
                self.step(step).await;
            }
            if self.waiting.is_empty() {
                for id in std::mem::take(&mut self.changed) {
                    self.arrange(id).await;
                }
            }
        }
    }

    /// Does something with the core. It may wait for its outputs to be taken meanwhile.
    async fn ask<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Node, Moment) -> T + Send + 'static,
    ) -> Option<T> {
        let asked = self.cascade.with(work);
        tokio::pin!(asked);
        loop {
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                Some(output) = self.outputs.recv() => self.waiting.push_back(output),
            }
        }
    }

    async fn tick(&mut self) {
        self.lines.tick(Instant::now());
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(LOOK_TICKS) {
            self.all_changed();
            self.tell_totals().await;
            self.tell_wishes().await;
            self.forget_idle();
        }
    }

    fn all_changed(&mut self) {
        self.changed.extend(self.conferences.keys());
    }

    async fn tell_totals(&mut self) {
        let ids: Vec<ConferenceId> = self.conferences.keys().copied().collect();
        let totals = self
            .ask(move |node, _| {
                let total = |id: ConferenceId| (id, node.total(id));
                ids.into_iter().map(total).collect::<Vec<_>>()
            })
            .await;
        for (id, total) in totals.unwrap_or_default() {
            if let Some(conference) = self.conferences.get(&id) {
                let others = total.saturating_sub(conference.people.len() as u32);
                self.hub
                    .in_room(&id.to_string(), |room, at| room.set_others(others, at));
            }
        }
    }

    /// Tells wishes again that ended with their tracks, which may have come back.
    async fn tell_wishes(&mut self) {
        let all = self.conferences.iter();
        let wishes: Vec<(ConferenceId, TrackId, sfu::Quality)> = all
            .flat_map(|(id, one)| {
                let wanted = one.wanted.iter();
                wanted.map(|(track, (_, quality))| (*id, *track, *quality))
            })
            .collect();
        if wishes.is_empty() {
            return;
        }
        self.ask(move |node, moment| {
            for (id, track, quality) in wishes {
                let known = node.wanted(id);
                if known.iter().all(|(known, _)| *known != track) {
                    node.want_here(moment, id, track, Some(quality.into()));
                }
            }
        })
        .await;
    }

    fn forget_idle(&mut self) {
        let hub = &self.hub;
        self.conferences.retain(|id, one| {
            let is_idle = one.people.is_empty() && one.tracks.is_idle();
            !(is_idle && hub.unspread(&id.to_string()))
        });
    }

    fn conference(&mut self, id: ConferenceId) -> &mut Conference {
        self.conferences.entry(id).or_insert_with(|| Conference {
            people: BTreeMap::new(),
            stage: BTreeMap::new(),
            wanted: BTreeMap::new(),
            tracks: Tracks::new(id, self.hub.spreading(&id.to_string())),
        })
    }

    // ---- what the core says -------------------------------------------------------------------

    fn follow(&mut self, output: Output) {
        let now = Instant::now();
        match output {
            Output::Neighbour {
                neighbour,
                is_there,
            } => {
                self.lines.neighbour(neighbour, is_there, now);
                self.all_changed();
            }
            Output::Media {
                neighbour,
                incarnation,
                media,
            } => self.lines.told(neighbour, incarnation, media, now),
            Output::Line { .. } => self.all_changed(),
            Output::Forward {
                conference,
                track,
                to,
                layer,
            } => {
                let is_wanted = layer.is_some();
                if is_wanted || self.conferences.contains_key(&conference) {
                    let tracks = &mut self.conference(conference).tracks;
                    tracks.set_forward(track, to, is_wanted);
                    self.changed.insert(conference);
                }
            }
            Output::Event { conference, event } => self.event(conference, event),
            // The media core knows better; see above.
            Output::Layers { .. } | Output::AskKeyframe { .. } => {}
            // Done before.
            Output::Send(_) | Output::Log { .. } | Output::Refused { .. } => {}
        }
    }

    fn event(&mut self, id: ConferenceId, event: Event) {
        let name = id.to_string();
        let Some(conference) = self.conferences.get_mut(&id) else {
            return;
        };
        let who = |conference: &Conference, session: Session| {
            let mut people = conference.people.iter();
            let found = people.find(|(_, one)| one.session == session);
            found.map(|(who, _)| *who)
        };
        match event {
            Event::Staged(one) if one.session.node != self.me => {
                if !conference.people.is_empty() {
                    conference.stage.insert(one.identity.clone(), one);
                    self.changed.insert(id);
                }
            }
            Event::Staged(one) => self.hide(id, &one.identity),
            Event::OffStage(identity) => self.hide(id, &identity),
            Event::Rights {
                session,
                may_be_heard,
                may_publish,
            } => {
                if let Some(who) = who(conference, session) {
                    self.hub.in_room(&name, |room, at| {
                        room.set_rights(who, may_be_heard, may_publish, at);
                    });
                }
            }
            Event::Over { session, why } => {
                let reason = match why {
                    Why::Removed => DisconnectReason::ParticipantRemoved,
                    Why::Replaced => DisconnectReason::DuplicateIdentity,
                };
                if let Some(who) = who(conference, session) {
                    self.hub
                        .in_room(&name, |room, at| room.end_stay(who, reason, at));
                }
            }
            Event::Ended => {
                self.hub.delete_room(&name);
            }
            Event::TrackEnded(_) | Event::Speakers(_) | Event::Epoch { .. } | Event::Chat(_) => {}
        }
    }

    /// Somebody is not on stage elsewhere any more.
    fn hide(&mut self, id: ConferenceId, identity: &Identity) {
        let Some(conference) = self.conferences.get_mut(&id) else {
            return;
        };
        if conference.stage.remove(identity).is_some() {
            self.hub
                .in_room(&id.to_string(), |room, at| room.hide(&identity.0, at));
            self.changed.insert(id);
        }
    }

    /// Makes it so that what is needed is taken and sent, and that the room shows it.
    async fn arrange(&mut self, id: ConferenceId) {
        let Some(conference) = self.conferences.get_mut(&id) else {
            return;
        };
        let staged = conference.stage.values();
        let tracks = staged.flat_map(|one| one.track_ids().map(|(track, _)| track));
        conference.tracks.set_shown(tracks.collect());
        let needed = conference.tracks.needed();
        let sources = self
            .ask(move |node, moment| {
                let source = |track: TrackId| Some((track, node.source(moment, id, track)?));
                needed.into_iter().filter_map(source).collect::<Vec<_>>()
            })
            .await
            .unwrap_or_default();
        let (lines, hub) = (&self.lines, &self.hub);
        let Some(conference) = self.conferences.get_mut(&id) else {
            return;
        };
        let sources = sources
            .into_iter()
            .filter_map(|(track, node)| Some((track, lines.connection(node)?)));
        let line = |node| lines.connection(node);
        conference.tracks.arrange(&sources.collect(), line);
        for command in conference.tracks.take_commands() {
            hub.command_line(command);
        }
        // The room tells anew what it wants of what is shown under another id.
        let Conference { tracks, wanted, .. } = conference;
        let over = wanted.extract_if(.., |track, (id, _)| tracks.shown(*track) != Some(*id));
        for (track, _) in over.collect::<Vec<_>>() {
            self.want(id, track, None).await;
        }
        let Some(conference) = self.conferences.get(&id) else {
            return;
        };
        if !conference.people.is_empty() {
            let all = conference.stage.values();
            let all: Vec<Elsewhere> = all.map(|one| shown(one, &conference.tracks)).collect();
            self.hub.in_room(&id.to_string(), |room, at| {
                for one in all {
                    room.show(one, at);
                }
            });
        }
    }

    // ---- what lines and rooms say -------------------------------------------------------------

    async fn step(&mut self, step: Step) {
        match step {
            Step::Command(command) => self.hub.command_line(command),
            Step::Say(neighbour, media) => {
                self.ask(move |node, moment| node.say_media(moment, neighbour, media))
                    .await;
            }
            Step::Heard(neighbour) => {
                self.ask(move |node, moment| node.heard_media(moment, neighbour))
                    .await;
            }
            Step::Lost(neighbour) => {
                self.ask(move |node, moment| node.lost_media(moment, neighbour))
                    .await;
            }
            Step::Open => self.all_changed(),
            Step::Gone(connection) => {
                for conference in self.conferences.values_mut() {
                    conference.tracks.gone(connection);
                }
                self.all_changed();
            }
        }
    }

    async fn hear(&mut self, news: TreeNews) {
        match news {
            TreeNews::Line(event) => self.lines.event(event, Instant::now()),
            TreeNews::Room(name, news) => {
                if let Ok(id) = name.parse::<ConferenceId>() {
                    self.room_told(id, news).await;
                }
            }
        }
    }

    async fn room_told(&mut self, id: ConferenceId, news: News) {
        match news {
            News::Joined {
                who,
                identity,
                name,
                grant,
            } => {
                let newcomer = Newcomer {
                    identity: Identity(identity),
                    name,
                    organisation: grant.organisation,
                    chair_of: grant.chair_of,
                };
                self.joined(id, who, grant.root, newcomer).await;
            }
            News::Left { who } => self.left(id, who).await,
            News::Tracks { who, tracks } => self.published(id, who, tracks).await,
            News::Microphone { who, is_open } => {
                if let Some(session) = self.session(id, who) {
                    self.ask(move |node, moment| {
                        let _ = node.set_microphone(moment, id, session, is_open);
                    })
                    .await;
                }
            }
            News::Loudness(levels) => {
                let of = |(who, level)| Some((self.session(id, who)?, level));
                let levels: Vec<(Session, u8)> = levels.into_iter().filter_map(of).collect();
                self.ask(move |node, moment| {
                    for (session, level) in levels {
                        node.loudness(moment, id, session, level);
                    }
                })
                .await;
            }
            News::Wanted { track, quality } => {
                let conference = self.conferences.get_mut(&id);
                // Whose voices cross is decided for all.
                if let Some(conference) = conference
                    && let Some(of) = conference.tracks.track(track)
                    && of.source != Source::Microphone
                {
                    match quality {
                        Some(quality) => conference.wanted.insert(of, (track, quality)),
                        None => conference.wanted.remove(&of),
                    };
                    self.want(id, of, quality).await;
                }
            }
        }
    }

    fn session(&self, id: ConferenceId, who: ParticipantKey) -> Option<Session> {
        let one = self.conferences.get(&id)?.people.get(&who)?;
        Some(one.session)
    }

    async fn want(&mut self, id: ConferenceId, track: TrackId, quality: Option<sfu::Quality>) {
        let quality = quality.map(Into::into);
        self.ask(move |node, moment| node.want_here(moment, id, track, quality))
            .await;
    }

    async fn joined(
        &mut self,
        id: ConferenceId,
        who: ParticipantKey,
        root: NodeId,
        newcomer: Newcomer,
    ) {
        let joined = self
            .ask(move |node, moment| {
                let session = node.join(moment, id, root, newcomer)?;
                Ok::<_, signaling::cascade::Denied>((session, node.stage(id)))
            })
            .await;
        match joined {
            Some(Ok((session, stage))) => {
                let here = Here {
                    session,
                    tracks: BTreeMap::new(),
                    next: 1,
                };
                self.conference(id).people.insert(who, here);
                self.set_stage(id, stage);
            }
            Some(Err(denied)) => {
                tracing::info!(conference = %id, reason = %denied, "somebody was not let into a conference");
                self.hub.in_room(&id.to_string(), |room, at| {
                    room.end_stay(who, DisconnectReason::JoinFailure, at);
                });
            }
            None => {}
        }
    }

    /// Shows just these, as far as they are elsewhere.
    fn set_stage(&mut self, id: ConferenceId, stage: Vec<Arc<Participant>>) {
        let me = self.me;
        let elsewhere = stage.into_iter().filter(|one| one.session.node != me);
        let stage: BTreeMap<Identity, Arc<Participant>> =
            elsewhere.map(|one| (one.identity.clone(), one)).collect();
        let conference = self.conference(id);
        let gone = conference.stage.keys();
        let gone: Vec<Identity> = gone
            .filter(|one| !stage.contains_key(one))
            .cloned()
            .collect();
        for identity in gone {
            self.hide(id, &identity);
        }
        self.conference(id).stage = stage;
        self.changed.insert(id);
    }

    async fn left(&mut self, id: ConferenceId, who: ParticipantKey) {
        let Some(conference) = self.conferences.get_mut(&id) else {
            return;
        };
        let Some(one) = conference.people.remove(&who) else {
            return;
        };
        for track in one.tracks.values() {
            conference.tracks.set_here(*track, None);
        }
        let is_last = conference.people.is_empty();
        self.ask(move |node, moment| {
            // It may be over already, as a chair has ended it.
            let _ = node.leave(moment, id, one.session);
        })
        .await;
        if is_last {
            self.set_stage(id, Vec::new());
        }
        self.changed.insert(id);
    }

    async fn published(&mut self, id: ConferenceId, who: ParticipantKey, all: Vec<Published>) {
        let Some(conference) = self.conferences.get_mut(&id) else {
            return;
        };
        let Some(one) = conference.people.get_mut(&who) else {
            return;
        };
        let gone = one
            .tracks
            .extract_if(.., |known, _| all.iter().all(|kept| kept.track != *known));
        let gone: Vec<TrackId> = gone.map(|(_, track)| track).collect();
        for track in gone {
            conference.tracks.set_here(track, None);
        }
        let mut infos = Vec::new();
        for published in all.iter().take(TRACKS_BOUND) {
            let track = *one.tracks.entry(published.track).or_insert_with(|| {
                let number = one.next;
                one.next = one.next.wrapping_add(1);
                TrackId {
                    session: one.session,
                    number,
                    source: published.source,
                }
            });
            conference.tracks.set_here(track, Some(published.track));
            infos.push(info_of(track, published));
        }
        let session = one.session;
        self.ask(move |node, moment| {
            let _ = node.set_tracks(moment, id, session, infos);
        })
        .await;
        self.changed.insert(id);
    }
}
