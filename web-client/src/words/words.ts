/**
 * The words of the chosen language. Chinese comes with the page; English is fetched when asked for,
 * and until it is there the page goes on in Chinese.
 */
import { useSyncExternalStore } from 'react';
import { getPreferences, setPreferences, subscribePreferences, type Language } from '../preferences/preferences';
import { zh, type Words } from './zh';

let english: Words | null = null;

export type { Words } from './zh';

export function currentWords(): Words {
  return getPreferences().language === 'en' && english !== null ? english : zh;
}

export function useWords(): Words {
  return useSyncExternalStore(subscribePreferences, currentWords);
}

/** Makes a language ready to be shown; called once before the first paint and at each switch. */
export async function loadLanguage(language: Language): Promise<void> {
  if (language === 'en' && english === null) english = (await import('./en')).en;
}

export async function switchLanguage(language: Language): Promise<void> {
  try {
    await loadLanguage(language);
  } catch {
    // Without a network the other language cannot be fetched; the page stays as it is.
    return;
  }
  setPreferences({ language });
}
