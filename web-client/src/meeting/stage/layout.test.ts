import { describe, expect, it } from 'vitest';
import { capacity, layout, MAX_TILES, pageCount, type LayoutMode, type Rect } from './layout';

const AREAS: [width: number, height: number][] = [
  [1440, 760],
  [1024, 600],
  [344, 560],
  [640, 280],
  [1920, 1000],
  [320, 320],
];
const MODES: LayoutMode[] = ['grid', 'speaker'];

function overlap(a: Rect, b: Rect): boolean {
  const inside = 0.01;
  return (
    a.x + a.width > b.x + inside && b.x + b.width > a.x + inside && a.y + a.height > b.y + inside && b.y + b.height > a.y + inside
  );
}

describe('the layout', () => {
  it('gives every picture a place inside the area, without overlaps, for any number and size', () => {
    for (const [width, height] of AREAS) {
      for (const mode of MODES) {
        for (let count = 1; count <= capacity(width, height, mode); count++) {
          const rects = layout(count, width, height, mode);
          expect(rects).toHaveLength(count);
          rects.forEach((rect, index) => {
            expect(rect.width).toBeGreaterThan(0);
            expect(rect.height).toBeGreaterThan(0);
            expect(rect.x).toBeGreaterThanOrEqual(-0.01);
            expect(rect.y).toBeGreaterThanOrEqual(-0.01);
            expect(rect.x + rect.width).toBeLessThanOrEqual(width + 0.01);
            expect(rect.y + rect.height).toBeLessThanOrEqual(height + 0.01);
            for (const other of rects.slice(index + 1)) expect(overlap(rect, other)).toBe(false);
          });
        }
      }
    }
  });

  it('gives all the same size in the grid, between 4:3 and 16:9', () => {
    for (const [width, height] of AREAS) {
      for (let count = 1; count <= capacity(width, height, 'grid'); count++) {
        const [first, ...others] = layout(count, width, height, 'grid');
        if (first === undefined) throw new Error('a picture has a place');
        const ratio = first.width / first.height;
        expect(ratio).toBeGreaterThanOrEqual(4 / 3 - 0.01);
        expect(ratio).toBeLessThanOrEqual(16 / 9 + 0.01);
        for (const other of others) expect([other.width, other.height]).toEqual([first.width, first.height]);
      }
    }
  });

  it('puts two side by side on a wide screen and one above the other on a telephone', () => {
    const wide = layout(2, 1440, 760, 'grid');
    expect(wide[0]?.y).toBe(wide[1]?.y);
    const tall = layout(2, 344, 560, 'grid');
    expect(tall[0]?.x).toBe(tall[1]?.x);
  });

  it('centres an incomplete last row', () => {
    const rects = layout(5, 1440, 760, 'grid');
    const last = rects.slice(3);
    const left = last[0]?.x ?? 0;
    const end = last[1];
    expect(left).toBeCloseTo(1440 - ((end?.x ?? 0) + (end?.width ?? 0)), 5);
  });

  it('holds 49 on a large screen and never more', () => {
    expect(capacity(1440, 760, 'grid')).toBe(MAX_TILES);
    expect(capacity(7680, 4320, 'grid')).toBe(MAX_TILES);
    expect(capacity(344, 560, 'grid')).toBe(12);
  });

  it('keeps pictures at a legible size on a full page', () => {
    for (const [width, height] of AREAS) {
      const tile = layout(capacity(width, height, 'grid'), width, height, 'grid')[0];
      expect(tile?.width ?? 0).toBeGreaterThanOrEqual(100);
    }
  });

  it('gives the speaker most of the area', () => {
    for (const [width, height] of AREAS) {
      const rects = layout(Math.min(5, capacity(width, height, 'speaker')), width, height, 'speaker');
      const main = rects[0];
      expect(((main?.width ?? 0) * (main?.height ?? 0)) / (width * height)).toBeGreaterThan(0.55);
    }
  });

  it('has nothing to say about nobody or no room', () => {
    expect(layout(0, 100, 100, 'grid')).toEqual([]);
    expect(layout(3, 0, 100, 'grid')).toEqual([]);
  });

  it('counts pages', () => {
    expect(pageCount(49, 49, 'grid')).toBe(1);
    expect(pageCount(50, 49, 'grid')).toBe(2);
    expect(pageCount(0, 49, 'grid')).toBe(1);
    expect(pageCount(9, 5, 'speaker')).toBe(2);
    expect(pageCount(10, 5, 'speaker')).toBe(3);
  });
});
