import { describe, expect, it } from 'vitest';
import { beyondTheList } from './headcount';

describe('who is counted beyond the list', () => {
  it('is nobody in a small room, whatever number is still on its way', () => {
    expect(beyondTheList(5, 2)).toBe(0);
    expect(beyondTheList(0, 3)).toBe(0);
  });

  it('is the rest of a crowd', () => {
    expect(beyondTheList(3003, 103)).toBe(2900);
    expect(beyondTheList(100, 101)).toBe(0);
  });
});
