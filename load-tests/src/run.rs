//! Plays a scenario against a server and measures.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::clip::Clip;
use crate::door::{Address, Door, JOIN_WITHIN, Kind, Senders, Visit, door};
use crate::media::{Media, MediaConfig};
use crate::metrics::SentCounts;
use crate::process::Usage;
use crate::report::{Belonging, Report, Run};
use crate::rivals::Rivals;
use crate::scenario::{Arrival, Codec, Group, Scenario};
use crate::schedule::{Beat, speaker_at};
use crate::source::{SourcePlan, wall_clock};
use crate::stats::Window;

/// From the announcement of the window to its begin: all threads must know it before.
const WINDOW_AHEAD: Duration = Duration::from_millis(200);

/// How long what was sent at the end of the window may take, repairs included.
const STRAGGLERS: Duration = Duration::from_millis(700);

/// How long clients may take to leave politely.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// How long a restless client stays away.
const AWAY: Duration = Duration::from_millis(300);

/// How many failed joins are kept in words.
const FAILURES_KEPT: usize = 5;

/// What to play, against what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The scenario.
    pub scenario: Scenario,
    /// The kind of server.
    pub kind: Kind,
    /// Where it is.
    pub address: Address,
    /// Its process, if its cost is to be measured; on this machine.
    pub process: Option<u32>,
    /// Where it serves its metrics, if the sizes of its messages are to be known.
    pub metrics: Option<String>,
    /// What the names of rooms begin with; unique if absent.
    pub rooms: Option<String>,
    /// Local address of the clients; found by the way to the server if absent.
    pub bind: Option<IpAddr>,
    /// Threads of clients.
    pub threads: usize,
    /// Seed of what is left to chance.
    pub seed: u64,
    /// Whether a line of progress is printed to standard error every second.
    pub shows_progress: bool,
}

/// One person of the scenario.
#[derive(Clone)]
struct Person {
    client: u32,
    room: u32,
    identity: String,
    group: Group,
    sends: Vec<SourcePlan>,
    /// When it comes, after the begin of its group's arrivals.
    after: Duration,
}

struct Stage {
    media: Arc<Media>,
    door: Arc<dyn Door>,
    run: String,
    leave: watch::Receiver<bool>,
    rooms: Vec<Senders>,
    speaking: HashMap<u32, watch::Receiver<bool>>,
    random: SmallRng,
}

/// Everybody, room by room.
fn people(scenario: &Scenario) -> Vec<Person> {
    let mut people = Vec::new();
    for room in 0..scenario.rooms {
        for group in &scenario.groups {
            for number in 0..group.count {
                let client = people.len() as u32;
                let video = group.video.as_ref().map(|video| SourcePlan {
                    id: client * 2 + 1,
                    codec: video.codec,
                    beat: Beat::video(video),
                    is_clip: video.clip,
                });
                let audio = group.audio.then(|| SourcePlan {
                    id: client * 2,
                    codec: Codec::Opus,
                    beat: Beat::audio(),
                    is_clip: false,
                });
                let order = f64::from(room * group.count + number);
                let all = f64::from(scenario.rooms * group.count);
                people.push(Person {
                    client,
                    room,
                    identity: format!("{}-{room}-{number}", group.name),
                    group: group.clone(),
                    sends: video.into_iter().chain(audio).collect(),
                    after: Duration::from_secs_f64(group.arrive_seconds * order / all),
                });
            }
        }
    }
    people
}

/// Plays it.
///
/// # Errors
/// When the server can't be reached or a client that comes before the measurement is not let in.
pub async fn play(options: &Options) -> Result<Report> {
    raise_open_files();
    let scenario = &options.scenario;
    let people = people(scenario);
    let mut codecs: Vec<Codec> = scenario
        .groups
        .iter()
        .filter_map(|group| group.video.as_ref().map(|video| video.codec))
        .collect();
    codecs.dedup();
    let address = match options.bind {
        Some(address) => address,
        None => local_address(&options.address.server)?,
    };
    let clip = scenario
        .clip_kbps()
        .map(Clip::encode)
        .transpose()?
        .map(Arc::new);
    let media = Arc::new(Media::start(&MediaConfig {
        address,
        codecs,
        clip,
        threads: options.threads,
        seed: options.seed,
    })?);
    let memory_before = match options.process {
        Some(process) => Usage::of(process)?.resident,
        None => 0,
    };
    let (leave, leaving) = watch::channel(false);
    let rooms = (0..scenario.rooms)
        .map(|room| {
            let senders = people
                .iter()
                .filter(|person| person.room == room && !person.sends.is_empty())
                .map(|person| (person.identity.clone(), person.sends.clone()));
            Arc::new(senders.collect())
        })
        .collect();
    let mut turns = Turns::new(&people, scenario, &media);
    let mut stage = Stage {
        media: media.clone(),
        door: door(options.kind, &options.address)?,
        run: match &options.rooms {
            Some(word) => word.clone(),
            None => format!("load-{:x}", wall_clock() / 1_000_000),
        },
        leave: leaving,
        rooms,
        speaking: turns.receivers(),
        random: SmallRng::seed_from_u64(options.seed),
    };
    let progress = options
        .shows_progress
        .then(|| tokio::spawn(show_progress(media.clone(), scenario.clone())));

    let mut visits = JoinSet::new();
    let mut failures = Vec::new();
    let early: Vec<&Person> = people
        .iter()
        .filter(|person| person.group.arrives == Arrival::Before)
        .collect();
    let entered: Vec<_> = early
        .iter()
        .map(|person| (person.identity.clone(), stage.send_in(&mut visits, person)))
        .collect();
    let outcome = all_entered(entered, &mut visits).await;
    let window = match outcome {
        Err(error) => Err(error),
        Ok(()) => {
            tokio::time::sleep(Duration::from_secs_f64(scenario.settle_seconds)).await;
            let late: Vec<&Person> = people
                .iter()
                .filter(|person| person.group.arrives == Arrival::During)
                .collect();
            measure(options, &mut stage, &late, &mut visits, &mut turns).await
        }
    };
    let own_memory = Usage::of(std::process::id()).map_or(0, |usage| usage.resident);
    // The visits hold the clients; they must be gone before their counts can be taken.
    let _ = leave.send(true);
    let end = tokio::time::sleep(LEAVE_WITHIN);
    tokio::pin!(end);
    loop {
        tokio::select! {
            visit = visits.join_next() => match visit {
                Some(Ok(Err(error))) if failures.len() < FAILURES_KEPT => {
                    failures.push(format!("{error:#}"));
                }
                Some(_) => {}
                None => break,
            },
            () = &mut end => {
                visits.shutdown().await;
                break;
            }
        }
    }
    if let Some(progress) = progress {
        progress.abort();
        let _ = progress.await;
    }
    drop(stage);
    drop(turns);
    let media = Arc::into_inner(media).context("somebody still holds the clients")?;
    let outcome = media.finish().await?;
    let (window, usage, sent) = window.map_err(|error| match outcome.failures.first() {
        Some(failure) => anyhow!("{error:#} (first failure of a connection: {failure})"),
        None => error,
    })?;
    let clients = people.iter().map(|person| {
        let belonging = Belonging {
            room: person.room,
            sources: person.sends.iter().map(|plan| plan.id).collect(),
            receives: person.group.receives,
        };
        (person.identity.clone(), belonging)
    });
    let run = Run {
        scenario,
        server: options.kind.name(),
        window,
        clients: clients.collect(),
        server_usage: usage.map(|usage| (memory_before, usage)),
        server_sent: sent,
        own_memory,
        failures,
    };
    Ok(Report::new(run, outcome))
}

type Visits = JoinSet<Result<()>>;

impl Stage {
    /// Sends a person in at its time; tells by the receiver when it is inside.
    fn send_in(&mut self, visits: &mut Visits, person: &Person) -> oneshot::Receiver<()> {
        let (entered, has_entered) = oneshot::channel();
        let person = person.clone();
        let (media, door) = (self.media.clone(), self.door.clone());
        let senders = self.rooms[person.room as usize].clone();
        let run = self.run.clone();
        let leave = self.leave.clone();
        let is_speaking = self
            .speaking
            .get(&person.client)
            .cloned()
            .unwrap_or_else(|| watch::channel(true).1);
        let mut random = SmallRng::from_rng(&mut self.random);
        visits.spawn(async move {
            tokio::time::sleep(person.after).await;
            let mut entered = Some(entered);
            loop {
                let stay = media.begin(person.identity.clone(), person.group.loss);
                // A restless one has a time of its own to leave at.
                let until = person.group.stay_seconds.map(|seconds| {
                    Duration::from_secs_f64(seconds * random.random_range(0.5..1.5))
                });
                let (own_leave, is_own) = watch::channel(false);
                let visit = Visit {
                    media: media.clone(),
                    stay,
                    client: person.client,
                    room: person.room,
                    run: run.clone(),
                    identity: person.identity.clone(),
                    sends: person.sends.clone(),
                    receives: person.group.receives,
                    senders: senders.clone(),
                    is_speaking: is_speaking.clone(),
                    entered: entered.take(),
                    leave: if until.is_some() {
                        is_own
                    } else {
                        leave.clone()
                    },
                };
                let Some(until) = until else {
                    return door
                        .attend(visit)
                        .await
                        .with_context(|| person.identity.clone());
                };
                let mut end = leave.clone();
                let clock = async {
                    tokio::select! {
                        () = tokio::time::sleep(until) => {}
                        _ = end.wait_for(|it| *it) => {}
                    }
                    media.says_goodbye(stay);
                    let _ = own_leave.send(true);
                };
                let (result, ()) = tokio::join!(door.attend(visit), clock);
                result.with_context(|| person.identity.clone())?;
                if *leave.borrow() {
                    return Ok(());
                }
                media.leave(stay);
                tokio::time::sleep(AWAY).await;
            }
        });
        has_entered
    }
}

/// Waits until all are inside; a visit that ends before is a failure.
async fn all_entered(
    entered: Vec<(String, oneshot::Receiver<()>)>,
    visits: &mut Visits,
) -> Result<()> {
    for (identity, entered) in entered {
        if entered.await.is_ok() {
            continue;
        }
        // The visit was dropped, so its reason is among the finished ones.
        while let Some(visit) = visits.join_next().await {
            if let Err(error) = visit.context("a client broke down")? {
                return Err(error.context("a client was not let in"));
            }
        }
        bail!("{identity} left before the measurement");
    }
    Ok(())
}

async fn measure(
    options: &Options,
    stage: &mut Stage,
    late: &[&Person],
    visits: &mut Visits,
    turns: &mut Turns,
) -> Result<(Window, Option<Usage>, Option<SentCounts>)> {
    let ahead = WINDOW_AHEAD.as_nanos() as u64;
    let length = (options.scenario.seconds * 1e9) as u64;
    let from = wall_clock() + ahead;
    let window = Window {
        from,
        to: from + length,
    };
    stage.media.measure(window);
    tokio::time::sleep(WINDOW_AHEAD).await;
    let begin = Instant::now();
    let usage = || options.process.map(Usage::of).transpose();
    let before = usage()?;
    let sent_before = sent_counts(options).await;
    for person in late {
        // Whether they come in shows in the counts.
        drop(stage.send_in(visits, person));
    }
    let rivals = rivals(options)?;
    let end = begin + Duration::from_secs_f64(options.scenario.seconds);
    while let Some(next) = turns.turn(begin.elapsed(), &stage.media) {
        if begin + next >= end {
            break;
        }
        tokio::time::sleep_until((begin + next).into()).await;
    }
    tokio::time::sleep_until(end.into()).await;
    if let Some(rivals) = rivals {
        // The measurement may end before their time does.
        rivals.abort();
        match rivals.await {
            Err(error) if error.is_cancelled() => {}
            outcome => outcome??,
        }
    }
    let after = usage()?;
    let sent_after = sent_counts(options).await;
    tokio::time::sleep(STRAGGLERS).await;
    let used = after
        .zip(before)
        .map(|(after, before)| after.since(&before));
    let sent = sent_after.zip(sent_before);
    Ok((
        window,
        used,
        sent.map(|(after, before)| after.since(&before)),
    ))
}

/// Has them compute in their time.
fn rivals(options: &Options) -> Result<Option<tokio::task::JoinHandle<Result<()>>>> {
    let Some(rivals) = options.scenario.rivals else {
        return Ok(None);
    };
    let process = options.process;
    let process = process.context("the scenario's rivals need the server's process id (--pid)")?;
    Ok(Some(tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs_f64(rivals.from_seconds)).await;
        let computing = Rivals::start(&rivals, process)?;
        tokio::time::sleep(Duration::from_secs_f64(rivals.for_seconds)).await;
        drop(computing);
        Ok(())
    })))
}

async fn sent_counts(options: &Options) -> Option<SentCounts> {
    // A server without them is measured all the same.
    SentCounts::read(options.metrics.as_deref()?).await.ok()
}

/// Whose turn it is in a roll call, in all rooms alike.
struct Turns {
    length: Option<Duration>,
    speakers: Vec<Vec<(Person, watch::Sender<bool>)>>,
    current: Option<usize>,
}

impl Turns {
    fn new(people: &[Person], scenario: &Scenario, media: &Media) -> Turns {
        let length = scenario.turn_seconds.map(Duration::from_secs_f64);
        let mut speakers: Vec<Vec<_>> = (0..scenario.rooms).map(|_| Vec::new()).collect();
        for person in people.iter().filter(|person| !person.sends.is_empty()) {
            let room = &mut speakers[person.room as usize];
            let is_on = length.is_none() || room.is_empty();
            if !is_on {
                for plan in &person.sends {
                    media.set_on(plan.id, false);
                }
            }
            room.push((person.clone(), watch::channel(is_on).0));
        }
        Turns {
            length,
            speakers,
            current: None,
        }
    }

    fn receivers(&self) -> HashMap<u32, watch::Receiver<bool>> {
        self.speakers
            .iter()
            .flatten()
            .map(|(person, speaking)| (person.client, speaking.subscribe()))
            .collect()
    }

    /// Turns on whose turn it is; returns when the next one follows, if anybody does.
    fn turn(&mut self, elapsed: Duration, media: &Media) -> Option<Duration> {
        let length = self.length?;
        let number = elapsed.as_nanos() / length.as_nanos();
        for room in &self.speakers {
            let now = speaker_at(elapsed, length, room.len());
            for (at, (person, speaking)) in room.iter().enumerate() {
                if speaking.send_if_modified(|it| std::mem::replace(it, at == now) != (at == now)) {
                    for plan in &person.sends {
                        media.set_on(plan.id, at == now);
                    }
                }
            }
        }
        self.current = Some(number as usize);
        Some(length * (number as u32 + 1))
    }
}

async fn show_progress(media: Arc<Media>, scenario: Scenario) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    let (mut sent, mut received) = (0, 0);
    loop {
        seconds.tick().await;
        let progress = media.progress();
        let now_sent = progress.sent.load(Ordering::Relaxed);
        let now_received = progress.received.load(Ordering::Relaxed);
        eprintln!(
            "{}: {} clients, {} connections up, {} lost, {} packets/s in, {} packets/s out",
            scenario.name,
            scenario.clients(),
            progress.connected.load(Ordering::Relaxed),
            progress.closed.load(Ordering::Relaxed),
            now_sent - sent,
            now_received - received,
        );
        (sent, received) = (now_sent, now_received);
    }
}

/// The address by which the server is reached. On this machine it is one that others could reach,
/// since servers do not offer the loopback address.
fn local_address(server: &str) -> Result<IpAddr> {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    let with_port = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let server: SocketAddr = with_port
        .to_socket_addrs()
        .with_context(|| format!("{host} is no address"))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    let socket = UdpSocket::bind(if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    })?;
    socket
        .connect(server)
        .with_context(|| format!("there is no way to {server}"))?;
    let local = socket.local_addr()?.ip();
    if !local.is_loopback() {
        return Ok(local);
    }
    let others = if_addrs::get_if_addrs()?
        .into_iter()
        .map(|interface| interface.ip())
        .find(|ip| ip.is_ipv4() && !ip.is_loopback());
    Ok(others.unwrap_or(local))
}

/// Each client has a socket or two.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Refused: then a great scenario ends with a message of its own.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Whether a join may still be under way: for callers that bound a whole run.
pub fn time_bound(scenario: &Scenario) -> Duration {
    let arrival = scenario
        .groups
        .iter()
        .map(|group| group.arrive_seconds)
        .fold(0.0, f64::max);
    JOIN_WITHIN
        + LEAVE_WITHIN
        + STRAGGLERS
        + Duration::from_secs_f64(arrival + scenario.settle_seconds + scenario.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_number_a_name_and_a_time() {
        let scenario = Scenario::load("mediations").unwrap();
        let people = people(&scenario);
        assert_eq!(people.len(), 36);
        let mut sources: Vec<u32> = people
            .iter()
            .flat_map(|person| person.sends.iter().map(|plan| plan.id))
            .collect();
        sources.sort_unstable();
        sources.dedup();
        assert_eq!(sources.len(), 72);
        assert!(
            people
                .iter()
                .all(|person| person.after < Duration::from_secs(2))
        );
        assert_eq!(people[35].identity, "party-11-2");
    }

    #[test]
    fn the_way_to_a_server_is_found() {
        assert!(local_address("http://127.0.0.1:7880").unwrap().is_ipv4());
        assert!(local_address("no such host/").is_err());
    }
}
