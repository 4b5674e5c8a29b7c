/** Which key means what, apart from the page, so that it can be tested. */

export type Shortcut = 'microphone' | 'camera' | 'talk' | 'help' | 'nextRegion' | 'close';

export interface Pressed {
  key: string;
  code: string;
  ctrlOrMeta: boolean;
  alt: boolean;
  shift: boolean;
}

/** What the focus is on: a field takes letters, a button takes the space bar. */
export type Focus = 'field' | 'button' | 'none';

export function shortcutOf(pressed: Pressed, focus: Focus, singleKeys: boolean): Shortcut | null {
  const { key, code, ctrlOrMeta, alt, shift } = pressed;
  if (ctrlOrMeta) {
    if (alt || shift) return null;
    if (key.toLowerCase() === 'd') return 'microphone';
    if (key.toLowerCase() === 'e') return 'camera';
    return null;
  }
  if (alt) return null;
  if (key === 'F6') return 'nextRegion';
  if (key === 'Escape') return 'close';
  if (!singleKeys || focus === 'field') return null;
  // The full-width mark is what a Chinese input method sends.
  if (key === '?' || key === '\uff1f') return 'help';
  if (code === 'Space' && focus === 'none') return 'talk';
  return null;
}

export function focusKind(element: Element | null): Focus {
  if (element === null) return 'none';
  if (element.matches('input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable=true]')) return 'field';
  return element.matches('button, a[href], input, summary, [role=log]') ? 'button' : 'none';
}
