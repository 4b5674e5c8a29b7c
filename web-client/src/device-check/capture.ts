/** Opening one microphone or one camera, and saying in our own terms why not. */
import { currentClient } from './browser-kind';
import { faultOf, type CaptureFault, type DeviceKind } from './capture-fault';

export class CaptureError extends Error {
  constructor(readonly fault: CaptureFault) {
    super(fault);
    this.name = 'CaptureError';
  }
}

export interface Captured {
  track: MediaStreamTrack;
  /** The device asked for was gone and the default one was opened. */
  fellBack: boolean;
}

/** HD, the resolution at which a face and a document held up are both legible. */
const CAMERA_CONSTRAINTS: MediaTrackConstraints = {
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 30, max: 30 },
};

const MICROPHONE_CONSTRAINTS: MediaTrackConstraints = {
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
};

export function constraintsFor(kind: DeviceKind, deviceId: string): MediaTrackConstraints {
  const base = kind === 'camera' ? CAMERA_CONSTRAINTS : MICROPHONE_CONSTRAINTS;
  if (deviceId !== '') return { ...base, deviceId: { exact: deviceId } };
  return kind === 'camera' ? { ...base, facingMode: 'user' } : base;
}

/** @throws CaptureError */
export async function capture(kind: DeviceKind, deviceId: string): Promise<Captured> {
  try {
    return { track: await open(kind, deviceId), fellBack: false };
  } catch (error) {
    const fault = await explain(error, kind);
    const deviceGone = fault === 'overconstrained' || fault === 'notFound';
    if (deviceId === '' || !deviceGone) throw new CaptureError(fault);
  }
  try {
    return { track: await open(kind, ''), fellBack: true };
  } catch (error) {
    throw new CaptureError(await explain(error, kind));
  }
}

async function open(kind: DeviceKind, deviceId: string): Promise<MediaStreamTrack> {
  const constraints = constraintsFor(kind, deviceId);
  const stream = await navigator.mediaDevices.getUserMedia(
    kind === 'camera' ? { video: constraints } : { audio: constraints },
  );
  const track = stream.getTracks()[0];
  if (track === undefined) throw new DOMException('', 'NotFoundError');
  return track;
}

/** Also used for what the media library throws when it opens a device by itself. */
export async function explain(error: unknown, kind: DeviceKind): Promise<CaptureFault> {
  const { name, message } = error instanceof Error ? error : new Error('');
  return faultOf({
    errorName: name,
    errorMessage: message,
    permission: await permissionState(kind),
    secureContext: window.isSecureContext,
    hasMediaDevices: hasMediaDevices(),
    browser: currentClient().browser,
  });
}

export function hasMediaDevices(): boolean {
  // Absent in insecure contexts and old browsers, whatever the types say.
  return typeof (navigator as Partial<Navigator>).mediaDevices?.getUserMedia === 'function';
}

export async function permissionStatus(kind: DeviceKind): Promise<PermissionStatus | null> {
  try {
    return await navigator.permissions.query({ name: kind });
  } catch {
    return null;
  }
}

async function permissionState(kind: DeviceKind): Promise<PermissionState | null> {
  return (await permissionStatus(kind))?.state ?? null;
}
