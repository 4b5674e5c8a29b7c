/** The rule the server applies to names too: 1–64 characters, no control characters. */
import { charactersOf } from '../words/characters';
export const MAX_NAME_LENGTH = 64;

export function cleanName(typed: string): string {
  return typed.trim().replace(/\s+/gu, ' ');
}

export function isValidName(name: string): boolean {
  const length = charactersOf(name).length;
  return length >= 1 && length <= MAX_NAME_LENGTH && !/\p{Cc}/u.test(name);
}
