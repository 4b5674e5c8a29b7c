/** Meeting codes: ten digits, shown in groups of 3-3-4, typed with whatever people put between them. */

export const MEETING_CODE_DIGITS = 10;

/** Full-width digits are what a Chinese input method produces when left in its own mode. */
const FULL_WIDTH_ZERO = 0xff10;

function digitsOf(typed: string): string {
  let digits = '';
  for (const character of typed) {
    const point = character.codePointAt(0) ?? 0;
    if (point >= FULL_WIDTH_ZERO && point <= FULL_WIDTH_ZERO + 9) digits += String(point - FULL_WIDTH_ZERO);
    else if (/[0-9]/.test(character)) digits += character;
  }
  return digits;
}

/** The bare code, or null when what was typed is not one. A pasted meeting link counts as its code. */
export function parseMeetingCode(typed: string): string | null {
  const link = /\/m\/([^/?#\s]+)/.exec(typed);
  const text = link?.[1] ?? typed;
  // Digits, and between them only spaces, dashes and dots of any width.
  if (!/^[\s\p{Nd}\p{Pd}._·]*$/u.test(text)) return null;
  const digits = digitsOf(text);
  return digits.length === MEETING_CODE_DIGITS ? digits : null;
}

/** 1234567890 → 123 456 7890; shorter input is grouped as far as it goes. */
export function formatMeetingCode(code: string): string {
  const digits = digitsOf(code).slice(0, MEETING_CODE_DIGITS);
  return [digits.slice(0, 3), digits.slice(3, 6), digits.slice(6)].filter((group) => group !== '').join(' ');
}
