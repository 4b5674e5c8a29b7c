//! What is promised, looked at from outside with everything in sight.

use std::collections::{BTreeMap, BTreeSet};

use signaling::cascade::{
    ConferenceId, HEARD_BOUND, Identity, Quality, STAGE_BOUND, Session, TrackId,
};

use super::script::{MAIN, Script};
use super::world::{World, node_id, place_of};

/// More hops than any way has.
const HOPS: usize = 12;

/// Trouble so long ago has no effect any more, in milliseconds.
const LONG_AGO: u64 = 8000;

/// A line that has been cut for three seconds is known to be, at both ends.
pub(crate) fn is_known(world: &mut World, link: usize, since: u64) {
    let [upper, lower] = world.links[link].ends;
    for (here, there) in [(upper, lower), (lower, upper)] {
        if world.slots[here].changed > since || world.slots[there].changed > since {
            continue;
        }
        let Some(node) = world.node(here) else {
            continue;
        };
        let is_up = node.line(node_id(there)).is_some_and(|line| line.is_up());
        world.check("a cut is known within 3 s", 1);
        if is_up {
            world.violated(format!(
                "node {here} does not know that its line to {there} is cut"
            ));
        }
    }
}

/// The nodes from one to the top, by the ways that they take; `None` if that is a loop.
fn ancestors(world: &World, at: usize) -> Option<Vec<usize>> {
    let mut all = vec![at];
    while let Some(way) = world.node(*all.last()?).and_then(|node| node.way()) {
        if all.len() > HOPS {
            return None;
        }
        all.push(place_of(way));
    }
    Some(all)
}

/// Three seconds after a line is back both ends are in one epoch, if nothing else is in the way.
pub(crate) fn is_healed(script: &mut Script, link: usize, since: u64) {
    let roots = script.conferences().to_vec();
    let world = &mut script.world;
    let [upper, lower] = world.links[link].ends;
    let Some(path) = ancestors(world, lower) else {
        return;
    };
    if path.get(1) != Some(&upper) {
        return;
    }
    let before = since.saturating_sub(LONG_AGO);
    let is_calm = path.iter().all(|at| world.slots[*at].changed <= before)
        && path.windows(2).all(|pair| {
            world.link_between(pair[0], pair[1]).is_some_and(|above| {
                let line = &world.links[above];
                above == link || (line.is_whole() && line.changed <= before)
            })
        });
    let (Some(node), Some(above), true) = (world.node(lower), world.node(upper), is_calm) else {
        return;
    };
    let mut wrong = None;
    let mut checked = 0;
    for conference in node.conference_ids() {
        let root = roots.iter().find(|(one, _)| *one == conference);
        let is_above = root.is_some_and(|(_, root)| path[1..].contains(root));
        if node.sessions(conference).is_empty() || !is_above {
            continue;
        }
        checked += 1;
        let [here, there] = [node, above].map(|node| node.epoch(conference));
        if here != there {
            wrong = Some(format!("{here:?} against {there:?}"));
        }
    }
    world.check("healed within 3 s", checked);
    if let Some(wrong) = wrong {
        world.violated(format!(
            "the line {upper}-{lower} is back, but not the epoch: {wrong}"
        ));
    }
}

/// All levels say that this one speaks.
pub(crate) fn speaker_is_agreed(script: &mut Script, identity: &Identity) {
    let world = &mut script.world;
    let mut checked = 0;
    let mut wrong = None;
    for at in 0..world.slots.len() {
        let Some(node) = world.node(at) else { continue };
        if node.sessions(MAIN).is_empty() {
            continue;
        }
        checked += 1;
        let speakers = node.speakers(MAIN);
        if speakers.dominant.as_ref() != Some(identity) {
            wrong = Some((at, speakers.dominant.clone(), node.epoch(MAIN), node.way()));
        }
    }
    world.check("one speaker within 1 s", checked);
    if let Some((at, dominant, epoch, way)) = wrong {
        let root = world.node(0).map(|node| node.speakers(MAIN));
        world.violated(format!(
            "{identity} speaks, but for node {at} {dominant:?} does, in {epoch:?} below {way:?}; for the root {root:?}"
        ));
    }
}

/// The messages that spoke of somebody who joined are as many as there are levels above.
pub(crate) fn join_was_cheap(script: &mut Script, joined: Option<usize>) {
    let Some((identity, seen)) = script.world.watched.take() else {
        return;
    };
    let Some(number) = joined else { return };
    let Some(path) = ancestors(&script.world, script.people[number].home) else {
        return;
    };
    let stage = script
        .world
        .node(0)
        .map(|node| node.stage(MAIN))
        .unwrap_or_default();
    if stage.iter().any(|one| one.identity == identity) {
        // The place was kept.
        return;
    }
    script
        .world
        .check("messages per join grow with the depth", 1);
    // Once for the join, and once for what is published then.
    if seen.len() > 2 * (path.len() - 1) {
        let (count, depth) = (seen.len(), path.len() - 1);
        script.world.violated(format!(
            "{count} messages for {identity}, who joined {depth} levels down: {seen:?}"
        ));
    }
}

/// Everything is whole and quiet: all promises hold.
pub(crate) fn validate(script: &mut Script) {
    let mut violations = Vec::new();
    let mut paths: Vec<Vec<usize>> = Vec::new();
    for at in 0..script.world.slots.len() {
        match ancestors(&script.world, at) {
            Some(path) if path.last() == Some(&0) => paths.push(path),
            Some(path) => {
                violations.push(format!(
                    "node {at} is not below the province but below {path:?}"
                ));
                paths.push(path);
            }
            None => {
                violations.push(format!("node {at} is in a loop"));
                paths.push(vec![at]);
            }
        }
    }
    let count = paths.len();
    script.world.check("no loop", count);
    for (conference, root) in script.conferences().to_vec() {
        if violations.is_empty() {
            rosters(script, conference, root, &paths, &mut violations);
        }
        if violations.is_empty() {
            wishes(script, conference, &paths, &mut violations);
        }
        if violations.is_empty() {
            muted(script, conference, &mut violations);
        }
    }
    if violations.is_empty() {
        let world = &mut script.world;
        world.check("a picture for everybody", world.waiting.len());
        let late = world
            .waiting
            .iter()
            .find(|(_, since)| world.now - **since > 1500);
        if let Some(((at, track), since)) = late {
            let what = format!("node {at} waits for {track:?} since {since}");
            violations.push(what);
        }
    }
    if let Some(first) = violations.into_iter().next() {
        script.world.violated(first);
    }
}

/// The way of a node up to a conference's root, which it must be below.
fn up_to(paths: &[Vec<usize>], at: usize, root: usize) -> Option<&[usize]> {
    let path = &paths[at];
    let end = path.iter().position(|one| *one == root)?;
    Some(&path[..=end])
}

fn rosters(
    script: &mut Script,
    conference: ConferenceId,
    root: usize,
    paths: &[Vec<usize>],
    violations: &mut Vec<String>,
) {
    let mut expected: BTreeMap<usize, BTreeMap<Identity, Session>> =
        BTreeMap::from([(root, BTreeMap::new())]);
    for person in script
        .people
        .iter()
        .filter(|one| one.conference == conference)
    {
        let Some(session) = person.session else {
            continue;
        };
        let Some(path) = up_to(paths, person.home, root) else {
            violations.push(format!(
                "{} is not below the conference's root",
                person.identity
            ));
            return;
        };
        for at in path {
            expected
                .entry(*at)
                .or_default()
                .insert(person.identity.clone(), session);
        }
    }
    let world = &mut script.world;
    let Some(top) = world.node(root) else { return };
    let (stage, speakers, epoch) = (
        top.stage(conference),
        top.speakers(conference),
        top.epoch(conference),
    );
    if stage.len() > STAGE_BOUND {
        violations.push(format!("{} are on stage", stage.len()));
    }
    if speakers.heard.len() > HEARD_BOUND {
        violations.push(format!("{} are heard", speakers.heard.len()));
    }
    for (at, people) in &expected {
        let Some(node) = world.node(*at) else {
            continue;
        };
        if node.epoch(conference) != epoch || node.is_own_epoch(conference) != (*at == root) {
            violations.push(format!(
                "node {at} is in {:?} of {conference:?} and not in {epoch:?}",
                node.epoch(conference)
            ));
            return;
        }
        let known: BTreeMap<Identity, Session> = node
            .people(conference)
            .iter()
            .map(|one| (one.identity.clone(), one.session))
            .collect();
        if known != *people {
            let missing = people
                .iter()
                .find(|(who, session)| known.get(who) != Some(session));
            let ghost = known
                .iter()
                .find(|(who, session)| people.get(who) != Some(session));
            violations.push(format!(
                "node {at} of {conference:?} knows {} people of {}; missing {missing:?}, too many {ghost:?}",
                known.len(),
                people.len()
            ));
            return;
        }
        let seen = node.stage(conference);
        if seen != stage {
            let odd = seen.iter().zip(&stage).find(|(one, other)| one != other);
            violations.push(format!(
                "node {at} has {} on stage and the root {}; {odd:?}",
                seen.len(),
                stage.len()
            ));
            return;
        }
        if node.speakers(conference) != speakers {
            violations.push(format!(
                "node {at} hears {:?} and the root {speakers:?}",
                node.speakers(conference)
            ));
            return;
        }
        // Who has just joined may not have been counted everywhere.
        if (node.total(conference) as usize).abs_diff(expected[&root].len()) > 1 {
            violations.push(format!(
                "node {at} counts {} in all",
                node.total(conference)
            ));
            return;
        }
    }
    let count = expected.len();
    world.check("rosters and stages converge", count);
}

fn wishes(
    script: &mut Script,
    conference: ConferenceId,
    paths: &[Vec<usize>],
    violations: &mut Vec<String>,
) {
    // Which tracks there are and may leave their node.
    let world = &mut script.world;
    let mut expected: BTreeMap<(usize, usize, TrackId), Quality> = BTreeMap::new();
    let mut wanting = 0;
    for at in 0..world.slots.len() {
        let Some(node) = world.node(at) else { continue };
        for (track, quality) in node.wanted(conference) {
            wanting += 1;
            let home = place_of(track.session.node);
            let Some(source) = world.node(home) else {
                continue;
            };
            let sessions = source.sessions(conference);
            let owner = sessions
                .iter()
                .find(|(number, _)| *number == track.session.number);
            let owner = owner.and_then(|(_, who)| source.participant(conference, who));
            let is_there = owner.is_some_and(|one| {
                one.session == track.session
                    && one.track_ids().any(|(id, _)| id == track)
                    && (!track.is_sound()
                        || source.rights(conference, &one.identity).may_be_heard())
            });
            if !is_there || home == at {
                continue;
            }
            // Up from the source to the first node that is above both, then down.
            let (from, to) = (&paths[home], &paths[at]);
            let Some(joint) = from.iter().position(|one| to.contains(one)) else {
                continue;
            };
            let down = to.iter().position(|one| *one == from[joint]).unwrap_or(0);
            let way = from[..=joint]
                .iter()
                .chain(to[..down].iter().rev())
                .copied();
            let way: Vec<usize> = way.collect();
            for pair in way.windows(2) {
                let most = expected.entry((pair[0], pair[1], track)).or_insert(quality);
                *most = quality.max(*most);
            }
        }
    }
    let mut actual: BTreeMap<(usize, usize, TrackId), Quality> = BTreeMap::new();
    let mut sounds: BTreeMap<(usize, usize), BTreeSet<TrackId>> = BTreeMap::new();
    for at in 0..world.slots.len() {
        let Some(node) = world.node(at) else { continue };
        for (track, to, quality) in node.forwards(conference) {
            let key = (at, place_of(to), track);
            if actual.insert(key, quality).is_some() {
                violations.push(format!("{key:?} is sent twice"));
            }
            if track.is_sound() {
                sounds.entry((key.0, key.1)).or_default().insert(track);
            }
        }
    }
    for (key, quality) in &expected {
        let (from, to, track) = key;
        match actual.get(key) {
            Some(sent) if sent == quality => {}
            Some(sent) => violations.push(format!(
                "{track:?} goes from {from} to {to} as {sent:?} and not {quality:?}"
            )),
            None => violations.push(format!("{track:?} does not go from {from} to {to}")),
        }
    }
    if let Some((from, to, track)) = actual.keys().find(|key| !expected.contains_key(key)) {
        violations.push(format!(
            "{track:?} goes from {from} to {to}, where nobody wants it"
        ));
    }
    if let Some(((from, to), all)) = sounds.iter().find(|(_, all)| all.len() > HEARD_BOUND) {
        violations.push(format!("{} voices go from {from} to {to}", all.len()));
    }
    world.check("each line carries what is wanted, once", expected.len());
    world.check("no orphan subscription", actual.len());
    world.check("voices on a line", sounds.len());
    let _ = wanting;
}

fn muted(script: &mut Script, conference: ConferenceId, violations: &mut Vec<String>) {
    let world = &mut script.world;
    let mut checked = 0;
    for ((of, identity), closings) in &world.closings {
        if *of != conference {
            continue;
        }
        let person = script.people.iter().find(|one| one.identity == *identity);
        let Some(home) = person
            .filter(|one| one.session.is_some())
            .map(|one| one.home)
        else {
            continue;
        };
        let Some(node) = world.node(home) else {
            continue;
        };
        checked += 1;
        if !node.rights(conference, identity).microphone.is_open() {
            continue;
        }
        let opening = world.openings.get(&(*of, identity.clone()));
        let is_undone = closings
            .iter()
            .any(|closing| !opening.is_some_and(|opening| opening.has_seen(closing)));
        if is_undone {
            violations.push(format!("{identity} was muted and is heard again"));
        }
    }
    world.check("mute is never undone", checked);
}
