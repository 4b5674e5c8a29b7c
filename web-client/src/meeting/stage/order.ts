/**
 * Who stands where. People keep their places: only a speaker who is on a later page is exchanged
 * with the one on the first page who has been silent longest, so that pictures do not jump about.
 */
import type { ParticipantView } from '../session/participant-view';

/** How many who have left keep their places: whose line fell comes back to the same one. */
const PLACES_KEPT = 50;

/**
 * @param before identities in their present order; newcomers go to the end, leavers stay in it unseen
 * @returns the new order, with those in it who are not there now
 */
export function orderPeople(
  before: readonly string[],
  people: readonly ParticipantView[],
  firstPage: number,
): readonly string[] {
  const known = new Map(people.map((person) => [person.identity, person]));
  let surplus = before.filter((identity) => !known.has(identity)).length - PLACES_KEPT;
  const order = before.filter((identity) => known.has(identity) || surplus-- <= 0);
  const placed = new Set(order);
  for (const person of people) if (!placed.has(person.identity)) order.push(person.identity);

  const shown = order.filter((identity) => known.has(identity));
  for (const speaker of shown.slice(Math.max(0, firstPage))) {
    if (known.get(speaker)?.isSpeaking !== true) continue;
    const place = quietestPlace(shown.slice(0, firstPage), known);
    const displaced = place === null ? undefined : shown[place];
    if (place === null || displaced === undefined) break;
    shown[place] = speaker;
    const [from, to] = [order.indexOf(speaker), order.indexOf(displaced)];
    order[from] = displaced;
    order[to] = speaker;
  }
  const isUnchanged = order.length === before.length && order.every((identity, index) => identity === before[index]);
  return isUnchanged ? before : order;
}

function quietestPlace(page: readonly string[], known: ReadonlyMap<string, ParticipantView>): number | null {
  let place: number | null = null;
  let quietest = Number.POSITIVE_INFINITY;
  page.forEach((identity, index) => {
    const person = known.get(identity);
    if (person === undefined || person.isSelf || person.isSpeaking || person.lastSpokeAt >= quietest) return;
    place = index;
    quietest = person.lastSpokeAt;
  });
  return place;
}

/** Who is large in speaker view: who speaks now, else who was large, else the first who is not oneself. */
export function chooseSpeaker(before: string | null, people: readonly ParticipantView[]): string | null {
  const others = people.filter((person) => !person.isSelf);
  const large = others.find((person) => person.identity === before);
  if (large?.isSpeaking === true) return large.identity;
  const speaking = others.filter((person) => person.isSpeaking).sort((a, b) => b.lastSpokeAt - a.lastSpokeAt)[0];
  return speaking?.identity ?? large?.identity ?? others[0]?.identity ?? people[0]?.identity ?? null;
}

/** Raised hands by the time they went up, then everybody else by name. */
export function orderRoster(people: readonly ParticipantView[], languageTag: string): readonly ParticipantView[] {
  const byName = new Intl.Collator(languageTag);
  return [...people].sort((a, b) => {
    if (a.handAt !== null || b.handAt !== null) {
      return (a.handAt ?? Number.POSITIVE_INFINITY) - (b.handAt ?? Number.POSITIVE_INFINITY);
    }
    if (a.isSelf !== b.isSelf) return a.isSelf ? -1 : 1;
    return byName.compare(a.name, b.name);
  });
}
