import { describe, expect, it } from 'vitest';
import { directoryEn } from './directory-en';
import { directoryZh } from './directory-zh';
import { en } from './en';
import { zh } from './zh';

/** Every leaf of a dictionary with its path; functions are called with sample arguments. */
function leaves(value: unknown, path: string): [string, string][] {
  if (typeof value === 'string') return [[path, value]];
  if (typeof value === 'function') {
    const call = value as (...samples: unknown[]) => unknown;
    return leaves(call('样', 2, '好', true), `${path}()`);
  }
  if (Array.isArray(value)) return value.flatMap((item, index) => leaves(item, `${path}[${index}]`));
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).flatMap(([key, item]) => leaves(item, `${path}.${key}`));
  }
  return [];
}

/** Latin words that stay as they are in Chinese: names of products, keys and schemes. */
const NAMES = /English|IP|Chrome|Edge|Safari|QQ|Ctrl \+ [DE]|F6|Esc|https|\ben\b|zh-CN/g;

describe.each([
  ['the pages’', zh, en],
  ['the directory’s', directoryZh, directoryEn],
])('%s dictionaries', (_, zh, en) => {
  it('say something at every place', () => {
    for (const words of [zh, en]) {
      for (const [path, text] of leaves(words, 'words')) expect(text.trim(), path).not.toBe('');
    }
  });

  it('have the same places', () => {
    const paths = (words: unknown): string[] => leaves(words, '').map(([path]) => path);
    expect(paths(en)).toEqual(paths(zh));
  });

  it('show no English in Chinese', () => {
    for (const [path, text] of leaves(zh, 'zh')) expect(text.replace(NAMES, ''), path).not.toMatch(/[A-Za-z]{2,}/);
  });

  it('show no Chinese in English, except the name of the other language', () => {
    for (const [path, text] of leaves(en, 'en')) {
      expect(text.replace(/中文|样|好/g, ''), path).not.toMatch(/\p{Script=Han}/u);
    }
  });
});
