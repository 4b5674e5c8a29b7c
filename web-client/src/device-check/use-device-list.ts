import { useEffect, useState } from 'react';

export interface DeviceList {
  microphones: readonly MediaDeviceInfo[];
  cameras: readonly MediaDeviceInfo[];
  speakers: readonly MediaDeviceInfo[];
}

const NONE: DeviceList = { microphones: [], cameras: [], speakers: [] };

/** The devices that are plugged in, kept current. `revision` re-reads them: names appear once a device was opened. */
export function useDeviceList(revision: unknown): DeviceList {
  const [list, setList] = useState(NONE);
  useEffect(() => {
    const devices = (navigator as Partial<Navigator>).mediaDevices;
    if (devices === undefined) return;
    let current = true;
    const read = (): void => {
      devices.enumerateDevices().then(
        (all) => {
          if (!current) return;
          const ofKind = (kind: MediaDeviceKind) => all.filter((device) => device.kind === kind && device.deviceId !== '');
          setList({ microphones: ofKind('audioinput'), cameras: ofKind('videoinput'), speakers: ofKind('audiooutput') });
        },
        () => undefined,
      );
    };
    read();
    devices.addEventListener('devicechange', read);
    return () => {
      current = false;
      devices.removeEventListener('devicechange', read);
    };
  }, [revision]);
  return list;
}
