import { describe, expect, it } from 'vitest';
import type { Organisation } from './lineage';
import { moveOf, rowsOf, type Children, type TreeState } from './tree';

function organisation(id: string, kind: Organisation['kind'] = 'centre'): Organisation {
  return { id, kind, level: null, name: id, code: null, parent: null, cascade_parent: null, state: 'active', created_at: 0, closed_at: null, version: 1 };
}

function children(organisations: Organisation[], next: string | null = null): Children {
  return { organisations, next };
}

/** A province with two cities and more; the first city is open and has a grid. */
const STATE: TreeState = {
  roots: [organisation('province')],
  children: new Map([
    ['province', children([organisation('city'), organisation('other')], 'cursor')],
    ['city', children([organisation('grid', 'grid')])],
    ['other', children([])],
  ]),
  open: new Set(['province', 'city', 'other']),
};

describe('the tree of organisations', () => {
  const rows = rowsOf(STATE);

  it('shows what is open, and that there is more', () => {
    const told = rows.map((row) => (row.kind === 'more' ? `${row.level} more` : `${row.level} ${row.organisation.id}`));
    expect(told).toEqual(['1 province', '2 city', '3 grid', '2 other', '2 more']);
  });

  it('offers to open only what may have something under it', () => {
    const may = rows.filter((row) => row.kind === 'organisation' && row.mayOpen);
    expect(may.map((row) => row.kind === 'organisation' && row.organisation.id)).toEqual(['province', 'city']);
  });

  it.each([
    ['ArrowDown', 0, { focus: 1 }],
    ['ArrowUp', 0, null],
    ['End', 0, { focus: 4 }],
    ['Home', 4, { focus: 0 }],
    ['ArrowRight', 1, { focus: 2 }],
    ['ArrowRight', 2, null],
    ['ArrowLeft', 1, { close: 'city' }],
    ['ArrowLeft', 2, { focus: 1 }],
    ['ArrowLeft', 4, { focus: 0 }],
    ['x', 0, null],
  ])('%s at row %i', (key, at, move) => expect(moveOf(key, rows, at)).toEqual(move));

  it('is opened by the right arrow where it is closed', () => {
    const closed = rowsOf({ ...STATE, open: new Set() });
    expect(moveOf('ArrowRight', closed, 0)).toEqual({ open: 'province' });
  });
});
