/** The tree as it is shown: which organisations are open, and which rows that makes. Knows nothing of how it looks. */
import type { Organisation } from './lineage';

export interface Children {
  organisations: Organisation[];
  /** Where the next page begins, if there is one. */
  next: string | null;
}

export interface TreeState {
  roots: Organisation[];
  /** What was fetched so far, by the parent's id. */
  children: ReadonlyMap<string, Children>;
  open: ReadonlySet<string>;
}

export type Row =
  | { kind: 'organisation'; organisation: Organisation; level: number; isOpen: boolean; mayOpen: boolean; parent: string | null }
  /** More organisations of `parent` are there than were fetched. */
  | { kind: 'more'; level: number; parent: string; next: string };

export function rowsOf({ roots, children, open }: TreeState): Row[] {
  const rows: Row[] = [];
  const add = (organisation: Organisation, level: number, parent: string | null): void => {
    const known = children.get(organisation.id);
    const isOpen = open.has(organisation.id) && known !== undefined && known.organisations.length > 0;
    // Whether something is under one is known only once it was asked for; under a grid nothing ever is.
    const mayOpen = organisation.kind !== 'grid' && (known === undefined || known.organisations.length > 0);
    rows.push({ kind: 'organisation', organisation, level, isOpen, mayOpen, parent });
    if (!isOpen) return;
    for (const child of known.organisations) add(child, level + 1, organisation.id);
    if (known.next !== null) rows.push({ kind: 'more', level: level + 1, parent: organisation.id, next: known.next });
  };
  for (const root of roots) add(root, 1, null);
  return rows;
}

export type TreeMove = { focus: number } | { open: string } | { close: string } | null;

/** What a key does at a row (the tree pattern of WAI-ARIA). */
export function moveOf(key: string, rows: readonly Row[], at: number): TreeMove {
  const row = rows[at];
  if (row === undefined) return null;
  switch (key) {
    case 'ArrowDown':
      return at + 1 < rows.length ? { focus: at + 1 } : null;
    case 'ArrowUp':
      return at > 0 ? { focus: at - 1 } : null;
    case 'Home':
      return { focus: 0 };
    case 'End':
      return { focus: rows.length - 1 };
    case 'ArrowRight':
      if (row.kind !== 'organisation' || !row.mayOpen) return null;
      return row.isOpen ? { focus: at + 1 } : { open: row.organisation.id };
    case 'ArrowLeft': {
      if (row.kind === 'organisation' && row.isOpen) return { close: row.organisation.id };
      const above = rows.findIndex((other) => other.kind === 'organisation' && other.organisation.id === row.parent);
      return above >= 0 ? { focus: above } : null;
    }
    default:
      return null;
  }
}
