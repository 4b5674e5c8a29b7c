/**
 * One visitor's stay in one meeting, from the first attempt to join until leaving. Owns the room,
 * keeps the seat through resumes, restarts and fresh joins, and offers the page one plain state.
 *
 * Invariant: whatever happens to the line, the stay ends only by the visitor, by the server's
 * decision, or when patience has run out; in between it comes back by itself.
 */
import { charactersOf } from '../../words/characters';
import {
  ConnectionQuality,
  ConnectionState,
  Room,
  RoomEvent,
  Track,
  type Participant,
  type TextStreamReader,
} from 'livekit-client';
import { announcer } from '../../accessibility/announcer';
import { ApiError, joinMeeting, type Meeting } from '../../api/meetings';
import type { DeviceChoice } from '../../device-check/device-choice';
import type { DepartureReason } from '../../left/departure';
import { getPreferences, subscribePreferences } from '../../preferences/preferences';
import { currentWords } from '../../words/words';
import { CHAT_TOPIC, cleanMessage, EMPTY_CHAT, withAllRead, withMessage, type ChatState } from '../chat/chat-log';
import { readSwitches } from './address-switches';
import { Arrivals } from './arrivals';
import { endingFor, endingForRefusal, endingWhenTiredOf } from './end-of-session';
import { MediaLine } from './media-line';
import { OwnMedia, type Busy } from './own-media';
import { HAND_ATTRIBUTE, viewsOf, type ParticipantView } from './participant-view';
import { beyondTheList } from './headcount';
import { outageOf, type Halves, type Outage } from './outage';
import { FIRST_JOIN_PATIENCE_MS, GIVE_UP_AFTER_MS, MEDIA_PATIENCE_MS, waitBeforeRejoin, WORDS_AFTER_MS } from './reconnect-policy';
import { codecFor, mediaServerUrl, roomOptions } from './room-options';
import { microphoneAfterAbsence, writeSeat, type SeatMemory } from './seat-memory';
import { WakeableWait } from './wake-up';

export type Phase = 'joining' | 'connected' | 'reconnecting';

export interface SessionState {
  phase: Phase;
  /** What of the line is down and since when; null while it holds. */
  outage: Outage | null;
  meetingName: string;
  joinedAt: number;
  participants: readonly ParticipantView[];
  /** How many more are there whom the list does not name. */
  unlisted: number;
  canPlayAudio: boolean;
  busy: Busy;
  /** What the visitor asked of the microphone and camera, which is what the buttons show. */
  microphoneOn: boolean;
  cameraOn: boolean;
  screenOn: boolean;
  handAt: number | null;
  chat: ChatState;
}

export interface SessionInput {
  meeting: Meeting;
  name: string;
  choice: DeviceChoice | null;
  memory: SeatMemory | null;
  onEnd: (reason: DepartureReason, attendedMs: number) => void;
}

/** Least time between two redraws for changes in the room; speakers alone change several times a second. */
const REDRAW_INTERVAL_MS = 80;
/** How often the number of people is looked at; the library tells no event of it. */
const HEADCOUNT_INTERVAL_MS = 2_000;
/** How often it is looked whether media passes. */
const MEDIA_INTERVAL_MS = 1_000;
/** How often the tab notes that it is still in the meeting. */
const SEEN_INTERVAL_MS = 5_000;
/** How long one attempt at the media connection may take. */
const CONNECT_TIMEOUT_MS = 10_000;
/** Up to this many people it is said of each whose line falls and comes back; of more it stands on the tiles alone. */
const LINES_TOLD_UP_TO = 20;

export class MeetingSession {
  readonly room: Room;
  readonly media: OwnMedia;
  private readonly mediaLine: MediaLine;
  private state: SessionState;
  private readonly listeners = new Set<() => void>();
  private readonly switches = readSwitches(location.search);
  private readonly wait = new WakeableWait();
  private readonly arrivals = new Arrivals();
  private readonly audio = document.createElement('div');
  private readonly cleanUps: (() => void)[] = [];
  private seat: string | null;
  private ended = false;
  private rejoining = false;
  private choice: DeviceChoice | null;
  private readonly down: Halves = { signallingDownSince: null, mediaDownSince: null };
  /** When the first half fell of what is still not whole. */
  private fellAt: number | null = null;
  /** Hands that were told of: identity → the attribute's value. */
  private readonly handsTold = new Map<string, string>();
  private readonly linesLost = new Set<string>();
  private redrawTimer: ReturnType<typeof setTimeout> | null = null;
  private chatIsOpen = false;

  constructor(private readonly input: SessionInput) {
    const { memory } = input;
    this.seat = memory?.seat ?? null;
    this.choice = input.choice;
    this.room = new Room(roomOptions(this.switches, getPreferences(), () => this.down.mediaDownSince === null));
    this.media = new OwnMedia(this.room, () => this.redraw());
    this.mediaLine = new MediaLine(this.room);
    if (memory?.active === true && input.choice === null) {
      const absence = Date.now() - memory.lastSeenAt;
      this.media.wanted = {
        microphone: microphoneAfterAbsence(memory.microphoneOn, absence),
        camera: memory.cameraOn,
      };
    }
    this.state = {
      phase: 'joining',
      outage: null,
      meetingName: input.meeting.name,
      joinedAt: memory?.active === true ? memory.joinedAt : 0,
      participants: [],
      unlisted: 0,
      canPlayAudio: true,
      busy: this.media.busy,
      microphoneOn: false,
      cameraOn: false,
      screenOn: false,
      handAt: memory?.active === true ? memory.handAt : null,
      chat: EMPTY_CHAT,
    };
    this.audio.hidden = true;
    this.listen();
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly getState = (): SessionState => this.state;

  start(): void {
    document.body.append(this.audio);
    void this.joinUntilIn(Date.now(), FIRST_JOIN_PATIENCE_MS);
  }

  leave(): void {
    this.end('self');
  }

  /** The button of the banner: an attempt at once instead of waiting for the library or the clock. */
  retryNow(): void {
    if (this.rejoining) this.wait.wake();
    else if (this.state.outage?.kind === 'media') void this.resumeAnew();
    // The library listens to this and tries at once; what still passes is not given up for it.
    else if (this.state.outage?.kind === 'signalling') window.dispatchEvent(new Event('online'));
    else void this.room.disconnect();
  }

  /** Opens signalling again, and media with it, within the same session. */
  private async resumeAnew(): Promise<void> {
    await this.room.simulateScenario('signal-reconnect');
  }

  startAudio(): void {
    void this.room.startAudio().catch(() => undefined);
  }

  async setHand(up: boolean): Promise<void> {
    const words = currentWords().notices;
    if (this.room.localParticipant.permissions?.canUpdateMetadata === false) {
      announcer.notify(words.handNotAllowed, 'assertive');
      return;
    }
    const before = this.state.handAt;
    const handAt = up ? Date.now() : null;
    this.set({ handAt });
    this.remember();
    try {
      await this.room.localParticipant.setAttributes({ [HAND_ATTRIBUTE]: handAt === null ? '' : String(handAt) });
      announcer.say(up ? words.handUp : words.handDown);
    } catch {
      // While the line is down the wish is kept and carried out on return.
      if (this.room.state !== ConnectionState.Connected) return;
      this.set({ handAt: before });
      this.remember();
      announcer.notify(words.handFailed, 'assertive');
    }
  }

  /** Resolves to false when the message was not sent. */
  async sendMessage(written: string): Promise<boolean> {
    const text = cleanMessage(written);
    if (text === null || !this.isIn()) return false;
    try {
      const { id } = await this.room.localParticipant.sendText(text, { topic: CHAT_TOPIC });
      this.addMessage(id, this.room.localParticipant.identity, text);
      return true;
    } catch {
      return false;
    }
  }

  setChatOpen(open: boolean): void {
    this.chatIsOpen = open;
    if (open) this.set({ chat: withAllRead(this.state.chat) });
  }

  /** Lets go of everything without saying that the visitor left; used when the page goes away. */
  close(): void {
    if (this.ended) return;
    this.ended = true;
    this.remember();
    this.tearDown();
  }

  private async joinUntilIn(since: number, patienceMs: number): Promise<void> {
    if (this.rejoining || this.ended) return;
    this.rejoining = true;
    for (let attempt = 0; !this.isOver(); attempt++) {
      try {
        await this.joinOnce();
        this.rejoining = false;
        return;
      } catch (error) {
        const refusal = error instanceof ApiError ? error : null;
        const ending = refusal === null ? 'rejoin' : endingForRefusal(refusal);
        if (ending !== 'rejoin') this.end(ending);
        else if (Date.now() - since > patienceMs) this.end(endingWhenTiredOf(error));
        else await this.wait.wait(waitBeforeRejoin(attempt, Math.random(), refusal?.retryAfterMs ?? null));
      }
    }
  }

  /** One fresh admission and one connection with it. */
  private async joinOnce(): Promise<void> {
    const { meeting, name } = this.input;
    const admission = await joinMeeting(meeting.code, name, this.seat);
    if (this.isOver()) return;
    this.seat = admission.seat;
    this.set({ meetingName: admission.meeting.name });
    await this.room.connect(mediaServerUrl(admission.url, location.origin), admission.token, {
      maxRetries: 0,
      websocketTimeout: CONNECT_TIMEOUT_MS,
      peerConnectionTimeout: CONNECT_TIMEOUT_MS,
    });
    if (this.isOver()) {
      void this.room.disconnect();
      return;
    }
    // From here on a longer absence of media alone is waited for: the server keeps the place.
    this.room.engine.peerConnectionTimeout = MEDIA_PATIENCE_MS;
    this.connected();
  }

  private connected(): void {
    const isReturn = this.state.phase === 'reconnecting';
    const absence = this.state.outage === null ? 0 : Date.now() - this.state.outage.since;
    this.arrivals.beQuiet();
    this.down.signallingDownSince = null;
    this.down.mediaDownSince = null;
    this.fellAt = null;
    this.set({
      phase: 'connected',
      outage: null,
      joinedAt: this.state.joinedAt === 0 ? Date.now() : this.state.joinedAt,
    });
    this.redraw();
    // The device check's tracks serve the first entry only; afterwards devices are opened anew.
    const { choice } = this;
    this.choice = null;
    const { wanted } = this.media;
    const microphone = microphoneAfterAbsence(wanted.microphone, isReturn ? absence : 0);
    void (choice === null ? this.media.restore({ ...wanted, microphone }) : this.media.publishChoice(choice)).then(() =>
      this.remember(),
    );
    this.remember();
    this.restoreHand();
    if (isReturn) this.announceReturn(wanted.microphone && !microphone);
  }

  private restoreHand(): void {
    const { handAt } = this.state;
    if (handAt === null) return;
    void this.room.localParticipant.setAttributes({ [HAND_ATTRIBUTE]: String(handAt) }).catch(() => undefined);
  }

  private announceReturn(isNowMuted: boolean): void {
    const words = currentWords().connection;
    if (isNowMuted) announcer.notify(words.backMuted, 'assertive');
    else announcer.notify(words.back);
  }

  private lineFell(): void {
    if (this.ended || this.state.phase !== 'connected') return;
    this.down.signallingDownSince = Date.now();
    const outage = outageOf(this.down);
    this.fellAt ??= outage?.since ?? null;
    this.set({ phase: 'reconnecting', outage });
    this.remember();
  }

  /** The library brought its own session back: tracks are still published, nothing to reopen. */
  private lineIsBack(): void {
    if (this.state.phase !== 'reconnecting' || this.rejoining) return;
    this.arrivals.beQuiet();
    this.down.signallingDownSince = null;
    this.set({ phase: 'connected' });
    this.redraw();
    this.restoreHand();
    void this.lookAtMedia();
  }

  /** Looks whether media passes, and says what of the line is down and when all of it is back. */
  private async lookAtMedia(): Promise<void> {
    if (this.ended || this.state.phase === 'joining') return;
    const { isUp, lastAt } = await this.mediaLine.look();
    if (this.isOver()) return;
    const { down } = this;
    const wentDownAt = down.mediaDownSince;
    if (this.rejoining || isUp === false) down.mediaDownSince ??= lastAt;
    else if (isUp === true) down.mediaDownSince = null;
    const before = this.state.outage;
    const outage = outageOf(down);
    if (before?.kind === outage?.kind && before?.since === outage?.since) return;
    this.set({ outage });
    if (outage !== null) this.fellAt ??= outage.since;
    else if (this.fellAt !== null) {
      this.outageIsOver(this.fellAt, wentDownAt);
      this.fellAt = null;
    }
  }

  private outageIsOver(since: number, mediaWentDownAt: number | null): void {
    const now = Date.now();
    const { wanted } = this.media;
    const mayBeOpen = microphoneAfterAbsence(wanted.microphone, mediaWentDownAt === null ? 0 : now - mediaWentDownAt);
    const isNowMuted = wanted.microphone && !mayBeOpen;
    if (isNowMuted) void this.media.setMicrophone(false, false);
    if (isNowMuted || now - since > WORDS_AFTER_MS) this.announceReturn(isNowMuted);
  }

  private sessionEnded(reason: Parameters<typeof endingFor>[0]): void {
    if (this.ended || this.rejoining) return;
    const ending = endingFor(reason);
    // A disconnect of our own making outside `end` is the retry button.
    if (ending !== 'rejoin' && ending !== 'self') {
      this.end(ending);
      return;
    }
    const wasSharing = this.state.screenOn;
    this.lineFell();
    if (wasSharing) announcer.notify(currentWords().notices.shareStopped);
    void this.joinUntilIn(Date.now(), GIVE_UP_AFTER_MS);
  }

  private end(reason: DepartureReason): void {
    if (this.ended) return;
    this.ended = true;
    const { joinedAt } = this.state;
    this.tearDown();
    this.input.onEnd(reason, joinedAt === 0 ? 0 : Date.now() - joinedAt);
  }

  /** Whether the room's people are known and media may pass; signalling may be down meanwhile. */
  private isIn(): boolean {
    return this.room.state === ConnectionState.Connected || this.room.state === ConnectionState.SignalReconnecting;
  }

  private isOver(): boolean {
    return this.ended;
  }

  private tearDown(): void {
    for (const cleanUp of this.cleanUps) cleanUp();
    this.wait.close();
    this.arrivals.close();
    if (this.redrawTimer !== null) clearTimeout(this.redrawTimer);
    this.audio.remove();
    this.choice?.microphone?.stop();
    this.choice?.camera?.stop();
    void this.room.disconnect();
  }

  private listen(): void {
    const { room } = this;
    const redraw = (): void => this.redraw();
    for (const event of [
      RoomEvent.TrackPublished,
      RoomEvent.TrackUnpublished,
      RoomEvent.TrackUnmuted,
      RoomEvent.LocalTrackPublished,
      RoomEvent.ActiveSpeakersChanged,
      RoomEvent.TrackStreamStateChanged,
      RoomEvent.ParticipantNameChanged,
      RoomEvent.ParticipantPermissionsChanged,
      RoomEvent.ConnectionStateChanged,
    ] as const) {
      room.on(event, redraw);
    }
    room
      .on(RoomEvent.Reconnecting, () => this.lineFell())
      .on(RoomEvent.SignalReconnecting, () => this.lineFell())
      .on(RoomEvent.Reconnected, () => this.lineIsBack())
      .on(RoomEvent.Disconnected, (reason) => this.sessionEnded(reason))
      .on(RoomEvent.ParticipantConnected, (participant) => {
        this.arrivals.joined(participant.identity, participant.name ?? participant.identity);
        this.redraw();
      })
      .on(RoomEvent.ParticipantDisconnected, (participant) => {
        const { identity, name } = participant;
        if (this.state.phase === 'connected') this.arrivals.left(identity, name ?? identity);
        this.linesLost.delete(identity);
        this.redraw();
      })
      .on(RoomEvent.ConnectionQualityChanged, (quality, participant) => {
        if (!participant.isLocal) this.tellOfLine(quality, participant);
        this.redraw();
      })
      .on(RoomEvent.TrackSubscribed, (track, _publication, participant) => {
        this.playAll();
        if (track.source === Track.Source.ScreenShare && this.state.phase === 'connected') {
          announcer.say(currentWords().notices.shareStarted(participant.name ?? participant.identity));
        }
        this.redraw();
      })
      .on(RoomEvent.TrackUnsubscribed, (track) => {
        for (const element of track.detach()) if (element.parentElement === this.audio) element.remove();
        this.redraw();
      })
      .on(RoomEvent.TrackMuted, (publication, participant) => {
        if (participant.isLocal) this.media.onMutedFromOutside(publication);
        this.redraw();
      })
      .on(RoomEvent.LocalTrackUnpublished, (publication) => {
        // The browser's own "stop sharing" bar ends the track without passing through our button.
        if (publication.source === Track.Source.ScreenShare && this.state.phase === 'connected') {
          announcer.say(currentWords().notices.shareStopped);
        }
        this.redraw();
      })
      .on(RoomEvent.ParticipantAttributesChanged, (changed, participant) => {
        const hand = changed[HAND_ATTRIBUTE];
        // Who comes back with the hand still up has not raised it again.
        if (!participant.isLocal && hand !== undefined && hand !== '' && this.handsTold.get(participant.identity) !== hand) {
          this.handsTold.set(participant.identity, hand);
          announcer.say(currentWords().notices.handRaisedBy(participant.name ?? participant.identity));
        }
        this.redraw();
      })
      .on(RoomEvent.AudioPlaybackStatusChanged, () => this.set({ canPlayAudio: room.canPlaybackAudio }))
      .on(RoomEvent.ChatMessage, (message, participant) => {
        // The older form of chat that some clients still send.
        if (participant !== undefined && !participant.isLocal) {
          this.addMessage(message.id, participant.identity, message.message);
        }
      });
    room.registerTextStreamHandler(CHAT_TOPIC, (reader, { identity }) => void this.receiveMessage(reader, identity));

    const seen = setInterval(() => this.remember(), SEEN_INTERVAL_MS);
    const headcount = setInterval(redraw, HEADCOUNT_INTERVAL_MS);
    const media = setInterval(() => void this.lookAtMedia(), MEDIA_INTERVAL_MS);
    const onPageHide = (event: PageTransitionEvent): void => {
      // A page kept for "back" may return; one that goes for good says goodbye and keeps the seat.
      if (event.persisted) this.remember();
      else this.close();
    };
    window.addEventListener('pagehide', onPageHide);
    this.cleanUps.push(
      () => clearInterval(seen),
      () => clearInterval(headcount),
      () => clearInterval(media),
      () => window.removeEventListener('pagehide', onPageHide),
      subscribePreferences(() => void this.media.setCodec(codecFor(this.switches, getPreferences()))),
    );
  }

  private tellOfLine(quality: ConnectionQuality, { identity, name }: Participant): void {
    const isLost = quality === ConnectionQuality.Lost;
    if (isLost === this.linesLost.has(identity)) return;
    if (isLost) this.linesLost.add(identity);
    else this.linesLost.delete(identity);
    if (this.state.outage !== null || this.room.numParticipants > LINES_TOLD_UP_TO) return;
    const words = currentWords().notices;
    announcer.say(isLost ? words.lineLost(name ?? identity) : words.lineBack(name ?? identity));
  }

  /** Plays whatever is not played yet. The library loses events at the moment when a session has been restored, so its state counts. */
  private playAll(): void {
    for (const participant of this.room.remoteParticipants.values()) {
      for (const { track } of participant.audioTrackPublications.values()) {
        if (track === undefined || track.attachedElements.length > 0) continue;
        const element = track.attach();
        element.dataset['identity'] = participant.identity;
        this.audio.append(element);
      }
    }
  }

  private async receiveMessage(reader: TextStreamReader, identity: string): Promise<void> {
    try {
      this.addMessage(reader.info.id, identity, await reader.readAll());
    } catch {
      // A message that breaks off or is too large costs that message.
    }
  }

  private addMessage(id: string, from: string, text: string): void {
    const participant = this.room.getParticipantByIdentity(from);
    const isOwn = from === this.room.localParticipant.identity;
    const name = participant?.name ?? from;
    const chat = withMessage(this.state.chat, { id, from, name, text, isOwn, at: Date.now() }, this.chatIsOpen);
    if (chat === this.state.chat) return;
    this.set({ chat });
    const words = currentWords().chat;
    if (!isOwn) announcer.say(words.arrived(name, charactersOf(text).slice(0, 100).join('')));
  }

  private remember(): void {
    const { seat, input, state } = this;
    // Before the first entry there is nothing to come back to, and after a loss the last moment inside counts.
    if (seat === null || state.joinedAt === 0) return;
    writeSeat(input.meeting.code, {
      seat,
      name: input.name,
      meetingName: state.meetingName,
      active: true,
      microphoneOn: this.media.wanted.microphone,
      cameraOn: this.media.wanted.camera,
      handAt: state.handAt,
      joinedAt: state.joinedAt,
      lastSeenAt: state.outage?.since ?? Date.now(),
    });
  }

  private redraw(): void {
    if (this.ended) return;
    this.redrawTimer ??= setTimeout(() => {
      this.redrawTimer = null;
      this.playAll();
      const { room, media } = this;
      // While the line is down the room is empty; the page keeps showing who was there.
      const isIn = this.isIn();
      const participants = isIn ? viewsOf(room, this.state.participants) : this.state.participants;
      this.set({
        participants,
        unlisted: isIn ? beyondTheList(room.numParticipants, participants.length) : this.state.unlisted,
        busy: media.busy,
        microphoneOn: media.wanted.microphone,
        cameraOn: media.wanted.camera,
        screenOn: room.localParticipant.isScreenShareEnabled,
        canPlayAudio: room.canPlaybackAudio,
      });
    }, REDRAW_INTERVAL_MS);
  }

  private set(change: Partial<SessionState>): void {
    const { state } = this;
    const isNews = (Object.keys(change) as (keyof SessionState)[]).some((key) => change[key] !== state[key]);
    if (!isNews) return;
    this.state = { ...state, ...change };
    for (const listener of this.listeners) listener();
  }
}
