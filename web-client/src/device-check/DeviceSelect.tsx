import { useId } from 'react';
import { useWords } from '../words/words';

interface Props {
  label: string;
  devices: readonly MediaDeviceInfo[];
  value: string;
  onChange: (deviceId: string) => void;
  testId: string;
}

/** Browsers list a "default" of their own beside the real devices; ours is the empty choice. */
const isRealDevice = (device: MediaDeviceInfo): boolean =>
  device.deviceId !== 'default' && device.deviceId !== 'communications';

export function DeviceSelect({ label, devices, value, onChange, testId }: Props) {
  const words = useWords();
  const id = useId();
  const real = devices.filter(isRealDevice);
  return (
    <div className="device-select">
      <label htmlFor={id}>{label}</label>
      <select
        id={id}
        value={real.some((device) => device.deviceId === value) ? value : ''}
        onChange={(event) => onChange(event.target.value)}
        data-testid={testId}
      >
        <option value="">{words.check.defaultDevice}</option>
        {real.map((device, index) => (
          <option key={device.deviceId} value={device.deviceId}>
            {device.label === '' ? words.check.deviceNumber(label, index + 1) : device.label}
          </option>
        ))}
      </select>
    </div>
  );
}
