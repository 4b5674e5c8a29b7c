import { AudioPresets, VideoPresets, type ReconnectPolicy, type RoomOptions, type VideoCodec } from 'livekit-client';
import type { Preferences } from '../../preferences/preferences';
import type { AddressSwitches } from './address-switches';
import { resumeDelay } from './reconnect-policy';

/** The codec that every browser and telephone decodes; chosen unless somebody asks for another. */
const DEFAULT_CODEC: VideoCodec = 'vp8';

/** Largest text or file stream accepted from another participant, in bytes. A chat message is far smaller. */
export const MAX_STREAM_BYTES = 64 * 1024;

export function codecFor(switches: AddressSwitches, preferences: Pick<Preferences, 'codec'>): VideoCodec {
  if (switches.codec !== null) return switches.codec;
  return preferences.codec === 'automatic' ? DEFAULT_CODEC : preferences.codec;
}

/** @param isMediaUp whether sound and pictures pass at the moment it is asked */
export function roomOptions(switches: AddressSwitches, preferences: Preferences, isMediaUp: () => boolean): RoomOptions {
  const reconnectPolicy: ReconnectPolicy = {
    nextRetryDelayInMs: ({ retryCount, elapsedMs }) => resumeDelay(retryCount, elapsedMs, Math.random(), isMediaUp()),
  };
  const { microphoneId, cameraId, speakerId } = preferences;
  return {
    // Ask for the layer that fits the tile, and send only the layers somebody asks for.
    adaptiveStream: true,
    dynacast: true,
    singlePeerConnection: !switches.twoConnections,
    // The page itself says goodbye; the library would also do so when a phone merely freezes the tab.
    disconnectOnPageLeave: false,
    reconnectPolicy,
    dataStream: { maxPayloadByteLength: MAX_STREAM_BYTES },
    audioCaptureDefaults: {
      echoCancellation: true,
      noiseSuppression: true,
      autoGainControl: true,
      ...(microphoneId === '' ? {} : { deviceId: { ideal: microphoneId } }),
    },
    videoCaptureDefaults: {
      resolution: VideoPresets.h720.resolution,
      ...(cameraId === '' ? { facingMode: 'user' as const } : { deviceId: { ideal: cameraId } }),
    },
    ...(speakerId === '' ? {} : { audioOutput: { deviceId: speakerId } }),
    publishDefaults: {
      videoCodec: codecFor(switches, preferences),
      simulcast: true,
      audioPreset: AudioPresets.speech,
      dtx: true,
      red: true,
    },
  };
}

/** The address of the media server: the server this page came from unless it names another. */
export function mediaServerUrl(url: string, origin: string): string {
  return (url === '' ? origin : url).replace(/^http/, 'ws');
}
