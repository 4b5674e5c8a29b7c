/** Plain pictures of the participants, made anew at each change, so that the page can compare and draw. */
import { charactersOf } from '../../words/characters';
import { ConnectionQuality, Track, type Participant, type Room, type TrackPublication, type VideoTrack } from 'livekit-client';
import type { Words } from '../../words/words';

export type QualityWord = keyof Words['meeting']['quality'];

export interface ParticipantView {
  identity: string;
  name: string;
  isSelf: boolean;
  isSpeaking: boolean;
  /** Last moment of speech, in milliseconds since 1970; 0 for never. */
  lastSpokeAt: number;
  quality: QualityWord;
  microphoneOn: boolean;
  camera: VideoTrack | null;
  screen: VideoTrack | null;
  /** The server does not send the picture for now. */
  isCameraPaused: boolean;
  isScreenPaused: boolean;
  /** The other shares a screen, whether or not its picture has arrived. */
  isSharing: boolean;
  handAt: number | null;
  joinedAt: number;
}

/** The participant attribute that carries a raised hand, as the time it went up. */
export const HAND_ATTRIBUTE = 'hand';

/** A name longer than this is cut on tiles by the layout, and here against nonsense from other clients. */
const MAX_SHOWN_NAME = 64;

export function readHand(attribute: string | undefined): number | null {
  const at = Number(attribute ?? '');
  return Number.isFinite(at) && at > 0 ? at : null;
}

function picture(publication: TrackPublication | undefined): VideoTrack | null {
  if (publication === undefined || publication.isMuted) return null;
  return publication.videoTrack ?? null;
}

function isPaused(publication: TrackPublication | undefined): boolean {
  return picture(publication)?.streamState === Track.StreamState.Paused;
}

function qualityWord(quality: ConnectionQuality): QualityWord {
  switch (quality) {
    case ConnectionQuality.Excellent:
      return 'excellent';
    case ConnectionQuality.Good:
      return 'good';
    case ConnectionQuality.Poor:
      return 'poor';
    case ConnectionQuality.Lost:
      return 'lost';
    case ConnectionQuality.Unknown:
      return 'unknown';
  }
}

function shownName(participant: Participant): string {
  const name = participant.name?.trim() ?? '';
  return charactersOf(name === '' ? participant.identity : name).slice(0, MAX_SHOWN_NAME).join('');
}

export function viewOf(participant: Participant, isSelf: boolean): ParticipantView {
  const microphone = participant.getTrackPublication(Track.Source.Microphone);
  const camera = participant.getTrackPublication(Track.Source.Camera);
  const screen = participant.getTrackPublication(Track.Source.ScreenShare);
  return {
    identity: participant.identity,
    name: shownName(participant),
    isSelf,
    isSpeaking: participant.isSpeaking,
    lastSpokeAt: participant.lastSpokeAt?.getTime() ?? 0,
    quality: qualityWord(participant.connectionQuality),
    microphoneOn: microphone !== undefined && !microphone.isMuted,
    camera: picture(camera),
    screen: picture(screen),
    isCameraPaused: isPaused(camera),
    isScreenPaused: isPaused(screen),
    isSharing: screen !== undefined && !screen.isMuted,
    handAt: readHand(participant.attributes[HAND_ATTRIBUTE]),
    joinedAt: participant.joinedAt?.getTime() ?? 0,
  };
}

function same(a: ParticipantView, b: ParticipantView): boolean {
  return (Object.keys(a) as (keyof ParticipantView)[]).every((key) => a[key] === b[key]);
}

/** Everybody in the room, who came first first; a view that did not change stays the same object. */
export function viewsOf(room: Room, before: readonly ParticipantView[]): readonly ParticipantView[] {
  const known = new Map(before.map((view) => [view.identity, view]));
  const keep = (view: ParticipantView): ParticipantView => {
    const old = known.get(view.identity);
    return old !== undefined && same(old, view) ? old : view;
  };
  const others = [...room.remoteParticipants.values()]
    .map((participant) => keep(viewOf(participant, false)))
    .sort((a, b) => a.joinedAt - b.joinedAt || (a.identity < b.identity ? -1 : 1));
  const all = [keep(viewOf(room.localParticipant, true)), ...others];
  return all.length === before.length && all.every((view, index) => view === before[index]) ? before : all;
}
