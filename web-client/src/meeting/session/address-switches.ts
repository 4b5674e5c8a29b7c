/** Switches in the meeting's address, for tests and for people who look for faults. */
import { isPublishCodec, type PublishCodec } from '../../preferences/preferences';

export interface AddressSwitches {
  /** `?codec=h264|vp8|vp9|av1`: the codec of the published picture; null when not given or unknown. */
  codec: PublishCodec | null;
  /** `?v0=1`: two peer connections (`/rtc`) instead of one (`/rtc/v1`). */
  twoConnections: boolean;
}

export function readSwitches(search: string): AddressSwitches {
  const query = new URLSearchParams(search);
  const codec = query.get('codec')?.toLowerCase() ?? null;
  return { codec: isPublishCodec(codec) ? codec : null, twoConnections: query.get('v0') === '1' };
}
