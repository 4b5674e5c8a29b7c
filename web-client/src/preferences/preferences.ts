/**
 * What this browser remembers about the person who uses it: name, language, type size, devices.
 * Kept in localStorage; nothing here is sent to the server except the name, when joining.
 */
import { useSyncExternalStore } from 'react';

export type Language = 'zh' | 'en';

export interface Preferences {
  name: string;
  language: Language;
  largeType: boolean;
  /** Space and ? act without a modifier key; some people's input devices send such keys by accident. */
  singleKeyShortcuts: boolean;
  microphoneId: string;
  cameraId: string;
  speakerId: string;
  enterMuted: boolean;
  /** The publish codec chosen under 高级; an address switch `?codec=` wins over it. */
  codec: PublishCodec | 'automatic';
}

export const PUBLISH_CODECS = ['h264', 'vp8', 'vp9', 'av1'] as const;
export type PublishCodec = (typeof PUBLISH_CODECS)[number];

export const DEFAULT_PREFERENCES: Preferences = {
  name: '',
  language: 'zh',
  largeType: false,
  singleKeyShortcuts: true,
  microphoneId: '',
  cameraId: '',
  speakerId: '',
  enterMuted: false,
  codec: 'automatic',
};

const STORAGE_KEY = 'terrace.preferences';
const listeners = new Set<() => void>();
let current = read();

export function isPublishCodec(value: unknown): value is PublishCodec {
  return typeof value === 'string' && (PUBLISH_CODECS as readonly string[]).includes(value);
}

/** Takes what storage holds, trusting nothing about its shape. */
export function parsePreferences(stored: string | null): Preferences {
  const result = { ...DEFAULT_PREFERENCES };
  let raw: unknown;
  try {
    raw = JSON.parse(stored ?? '{}');
  } catch {
    return result;
  }
  if (typeof raw !== 'object' || raw === null) return result;
  const fields = raw as Record<string, unknown>;
  for (const key of ['name', 'microphoneId', 'cameraId', 'speakerId'] as const) {
    const value = fields[key];
    if (typeof value === 'string') result[key] = value;
  }
  for (const key of ['largeType', 'singleKeyShortcuts', 'enterMuted'] as const) {
    const value = fields[key];
    if (typeof value === 'boolean') result[key] = value;
  }
  if (fields['language'] === 'en') result.language = 'en';
  const codec = fields['codec'];
  if (isPublishCodec(codec)) result.codec = codec;
  return result;
}

function read(): Preferences {
  try {
    return parsePreferences(localStorage.getItem(STORAGE_KEY));
  } catch {
    return { ...DEFAULT_PREFERENCES };
  }
}

export function getPreferences(): Preferences {
  return current;
}

export function setPreferences(change: Partial<Preferences>): void {
  current = { ...current, ...change };
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(current));
  } catch {
    // Storage can be refused (private windows); the choice then lasts as long as the page.
  }
  for (const listener of listeners) listener();
}

export function subscribePreferences(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function usePreferences(): Preferences {
  return useSyncExternalStore(subscribePreferences, getPreferences);
}
