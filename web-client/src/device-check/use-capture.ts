import { useCallback, useEffect, useRef, useState } from 'react';
import { capture, CaptureError, hasMediaDevices, permissionStatus } from './capture';
import type { CaptureFault, DeviceKind } from './capture-fault';

export type CaptureState =
  | { status: 'closed' }
  | { status: 'asking' }
  | { status: 'open'; track: MediaStreamTrack; fellBack: boolean }
  | { status: 'failed'; fault: CaptureFault }
  | { status: 'declined' };

export interface Capture {
  state: CaptureState;
  open: (deviceId: string) => Promise<void>;
  /** Closes the device, or goes on without it. */
  decline: () => void;
  /** Gives the track away; it is no longer stopped with the page. */
  release: () => MediaStreamTrack | null;
}

/**
 * One device on the check page. Opens by itself when the browser already allows it, and when a
 * visitor who follows the help changes the permission from denied to granted.
 */
export function useCapture(kind: DeviceKind, deviceId: string, mayOpenByItself: boolean): Capture {
  const [state, setState] = useState<CaptureState>({ status: 'closed' });
  const track = useRef<MediaStreamTrack | null>(null);
  /** Counts openings, so that a slow answer to an older press is thrown away. */
  const turn = useRef(0);

  const stop = useCallback(() => {
    turn.current++;
    track.current?.stop();
    track.current = null;
  }, []);

  const open = useCallback(
    async (id: string) => {
      stop();
      const mine = turn.current;
      setState({ status: 'asking' });
      try {
        const captured = await capture(kind, id);
        if (mine !== turn.current) {
          captured.track.stop();
          return;
        }
        track.current = captured.track;
        captured.track.addEventListener('ended', () => {
          if (mine === turn.current) setState({ status: 'failed', fault: 'notFound' });
        });
        setState({ status: 'open', ...captured });
      } catch (error) {
        if (mine !== turn.current) return;
        setState({ status: 'failed', fault: error instanceof CaptureError ? error.fault : 'aborted' });
      }
    },
    [kind, stop],
  );

  useEffect(() => stop, [stop]);

  const idle = state.status === 'closed' || state.status === 'failed';
  useEffect(() => {
    if (!mayOpenByItself || !idle || !hasMediaDevices()) return;
    let current = true;
    let status: PermissionStatus | null = null;
    const onChange = (): void => {
      if (current && status?.state === 'granted') void open(deviceId);
    };
    void permissionStatus(kind).then((found) => {
      if (!current || found === null) return;
      status = found;
      found.addEventListener('change', onChange);
      if (found.state === 'granted' && state.status === 'closed') void open(deviceId);
    });
    return () => {
      current = false;
      status?.removeEventListener('change', onChange);
    };
  }, [kind, deviceId, idle, mayOpenByItself, open, state.status]);

  return {
    state,
    open,
    decline: useCallback(() => {
      stop();
      setState({ status: 'declined' });
    }, [stop]),
    release: useCallback(() => {
      const given = track.current;
      track.current = null;
      turn.current++;
      return given;
    }, []),
  };
}
