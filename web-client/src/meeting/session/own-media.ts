/** The visitor's own microphone, camera and screen: one change at a time, failures as notices in words. */
import {
  ConnectionState,
  LocalAudioTrack,
  LocalVideoTrack,
  Track,
  type LocalTrack,
  type TrackPublication,
  type Room,
  type VideoCodec,
} from 'livekit-client';
import { announcer } from '../../accessibility/announcer';
import { explain } from '../../device-check/capture';
import { currentClient } from '../../device-check/browser-kind';
import { helpFor, type DeviceKind } from '../../device-check/capture-fault';
import type { DeviceChoice } from '../../device-check/device-choice';
import { setPreferences } from '../../preferences/preferences';
import { currentWords } from '../../words/words';

export interface Wanted {
  microphone: boolean;
  camera: boolean;
}

export interface Busy {
  microphone: boolean;
  camera: boolean;
  screen: boolean;
}

const FREE: Busy = { microphone: false, camera: false, screen: false };

export class OwnMedia {
  /** What the visitor asked for, which outlives a lost connection. */
  wanted: Wanted = { microphone: false, camera: false };
  busy: Busy = FREE;
  private queue: Promise<void> = Promise.resolve();

  constructor(
    private readonly room: Room,
    private readonly changed: () => void,
  ) {}

  /** Publishes what the device check opened, so that no browser asks twice. */
  async publishChoice(choice: DeviceChoice): Promise<void> {
    this.wanted = { microphone: choice.microphone !== null && !choice.enterMuted, camera: choice.camera !== null };
    const { microphone, camera } = choice;
    if (microphone !== null) {
      if (choice.enterMuted) microphone.stop();
      else if (microphone.readyState !== 'live') await this.setMicrophone(true, false);
      else {
        await this.publish('microphone', () =>
          this.publishTrack(
            new LocalAudioTrack(microphone, microphone.getConstraints(), false) as unknown as LocalTrack,
            Track.Source.Microphone,
          ),
        );
      }
    }
    if (camera !== null && camera.readyState !== 'live') await this.setCamera(true, false);
    else if (camera !== null) {
      await this.publish('camera', () =>
        this.publishTrack(
          new LocalVideoTrack(camera, camera.getConstraints(), false),
          Track.Source.Camera,
        ),
      );
    }
  }

  /** After joining anew: opens again what was open. */
  async restore(wanted: Wanted): Promise<void> {
    this.wanted = wanted;
    if (wanted.microphone) await this.setMicrophone(true, false);
    if (wanted.camera) await this.setCamera(true, false);
  }

  setMicrophone(on: boolean, announce = true): Promise<void> {
    this.wanted = { ...this.wanted, microphone: on };
    return this.publish('microphone', async () => {
      await this.room.localParticipant.setMicrophoneEnabled(on);
      const words = currentWords().notices;
      if (announce) announcer.say(on ? words.microphoneOn : words.microphoneOff, 'assertive');
    });
  }

  setCamera(on: boolean, announce = true): Promise<void> {
    this.wanted = { ...this.wanted, camera: on };
    return this.publish('camera', async () => {
      await this.room.localParticipant.setCameraEnabled(on);
      const words = currentWords().notices;
      if (announce) announcer.say(on ? words.cameraOn : words.cameraOff, 'assertive');
    });
  }

  /** Turns a wish around. What is shown may lag behind it: a device takes its time to open. */
  toggle(kind: DeviceKind): Promise<void> {
    const on = !this.wanted[kind];
    return kind === 'microphone' ? this.setMicrophone(on) : this.setCamera(on);
  }

  setScreen(on: boolean): Promise<void> {
    return this.exclusively('screen', async () => {
      if (on && !this.mayPublish()) {
        announcer.notify(currentWords().notices.publishDenied, 'assertive');
        return;
      }
      try {
        await this.room.localParticipant.setScreenShareEnabled(on, {
          audio: true,
          contentHint: 'detail',
          selfBrowserSurface: 'exclude',
          surfaceSwitching: 'include',
          systemAudio: 'include',
        });
      } catch (error) {
        this.explainScreenFailure(error);
      }
    });
  }

  /** Uses another codec from now on; an open camera is published again with it. */
  setCodec(codec: VideoCodec): Promise<void> {
    const defaults = this.room.options.publishDefaults;
    if (defaults === undefined || defaults.videoCodec === codec) return Promise.resolve();
    defaults.videoCodec = codec;
    return this.publish('camera', async () => {
      const { localParticipant } = this.room;
      const publication = localParticipant.getTrackPublication(Track.Source.Camera);
      if (publication?.track === undefined) return;
      await localParticipant.unpublishTrack(publication.track);
      if (this.wanted.camera) await localParticipant.setCameraEnabled(true);
    });
  }

  async switchDevice(kind: DeviceKind | 'speaker', deviceId: string): Promise<void> {
    const library = ({ microphone: 'audioinput', camera: 'videoinput', speaker: 'audiooutput' } as const)[kind];
    const preference = ({ microphone: 'microphoneId', camera: 'cameraId', speaker: 'speakerId' } as const)[kind];
    try {
      await this.room.switchActiveDevice(library, deviceId === '' ? 'default' : deviceId, deviceId !== '');
      setPreferences({ [preference]: deviceId });
    } catch {
      announcer.notify(currentWords().notices.deviceSwitchFailed, 'assertive');
    }
    this.changed();
  }

  /** The library muted one of our tracks: somebody with the right to, or the system that took the device. */
  onMutedFromOutside(publication: TrackPublication): void {
    const words = currentWords().notices;
    const ended = publication.track?.mediaStreamTrack.readyState === 'ended';
    if (publication.source === Track.Source.Microphone && this.wanted.microphone && !this.busy.microphone) {
      this.wanted = { ...this.wanted, microphone: false };
      announcer.notify(ended ? words.microphoneStopped : words.mutedByOther, 'assertive');
    }
    if (publication.source === Track.Source.Camera && this.wanted.camera && !this.busy.camera) {
      this.wanted = { ...this.wanted, camera: false };
      announcer.notify(words.cameraStopped, 'assertive');
    }
  }

  private publish(kind: DeviceKind, act: () => Promise<unknown>): Promise<void> {
    return this.exclusively(kind, async () => {
      if (this.wanted[kind] && !this.mayPublish()) {
        this.wanted = { ...this.wanted, [kind]: false };
        announcer.notify(currentWords().notices.publishDenied, 'assertive');
        return;
      }
      try {
        await act();
      } catch (error) {
        // A connection lost meanwhile is not the device's fault: joining again opens it then.
        if (this.room.state !== ConnectionState.Connected) return;
        this.wanted = { ...this.wanted, [kind]: false };
        const words = currentWords();
        const help = helpFor(await explain(error, kind), kind, currentClient(), words.permission);
        announcer.notify(words.notices.mediaFailed(words.permission[kind]) + help.title, 'assertive');
      }
    });
  }

  /** The cast at the caller: one of the library's classes does not fit its own union under exactOptionalPropertyTypes. */
  private publishTrack(track: LocalTrack, source: Track.Source): Promise<unknown> {
    return this.room.localParticipant.publishTrack(track, { source });
  }

  private mayPublish(): boolean {
    return this.room.localParticipant.permissions?.canPublish !== false;
  }

  private exclusively(kind: keyof Busy, act: () => Promise<void>): Promise<void> {
    this.setBusy(kind, true);
    const done = this.queue.then(act).finally(() => this.setBusy(kind, false));
    this.queue = done.catch(() => undefined);
    return done;
  }

  private setBusy(kind: keyof Busy, busy: boolean): void {
    this.busy = { ...this.busy, [kind]: busy };
    this.changed();
  }

  private explainScreenFailure(error: unknown): void {
    const { name, message } = error instanceof Error ? error : new Error('');
    const words = currentWords().notices;
    // Who closes the browser's choice of windows has decided; there is nothing to explain.
    if (name === 'NotAllowedError') {
      if (/system/i.test(message)) announcer.notify(words.shareDenied, 'assertive');
      return;
    }
    announcer.notify(words.shareFailed, 'assertive');
  }
}

export function canShareScreen(): boolean {
  const devices = (navigator as Partial<Navigator>).mediaDevices as Partial<MediaDevices> | undefined;
  return typeof devices?.getDisplayMedia === 'function';
}
