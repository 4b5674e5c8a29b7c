import { describe, expect, it } from 'vitest';
import { focusKind, shortcutOf, type Pressed } from './shortcut';

function press(key: string, change: Partial<Pressed> = {}): Pressed {
  return { key, code: key === ' ' ? 'Space' : '', ctrlOrMeta: false, alt: false, shift: false, ...change };
}

describe('a key', () => {
  it('with Ctrl works everywhere', () => {
    expect(shortcutOf(press('d', { ctrlOrMeta: true }), 'field', false)).toBe('microphone');
    expect(shortcutOf(press('E', { ctrlOrMeta: true }), 'none', true)).toBe('camera');
    expect(shortcutOf(press('D', { ctrlOrMeta: true, shift: true }), 'none', true)).toBeNull();
  });

  it('alone works only outside fields, and can be switched off', () => {
    expect(shortcutOf(press('?', { shift: true }), 'none', true)).toBe('help');
    expect(shortcutOf(press('?'), 'button', true)).toBe('help');
    expect(shortcutOf(press('?'), 'field', true)).toBeNull();
    expect(shortcutOf(press('?'), 'none', false)).toBeNull();
    expect(shortcutOf(press(' '), 'none', true)).toBe('talk');
    expect(shortcutOf(press(' '), 'none', false)).toBeNull();
  });

  it('that a button needs stays with the button', () => expect(shortcutOf(press(' '), 'button', true)).toBeNull());

  it('F6 and Esc always work', () => {
    expect(shortcutOf(press('F6'), 'field', false)).toBe('nextRegion');
    expect(shortcutOf(press('Escape'), 'field', false)).toBe('close');
  });
});

describe('the focus', () => {
  it('is told apart by what would swallow the key', () => {
    document.body.innerHTML = '<input id="a"><input id="b" type="checkbox"><button id="c"></button><div id="d"></div><textarea id="e"></textarea>';
    const kind = (id: string) => focusKind(document.getElementById(id));
    expect(['a', 'b', 'c', 'd', 'e'].map(kind)).toEqual(['field', 'button', 'button', 'none', 'field']);
    expect(focusKind(null)).toBe('none');
  });
});
