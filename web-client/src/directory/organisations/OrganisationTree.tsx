import { useCallback, useEffect, useMemo, useRef, useState, type KeyboardEvent, type MouseEvent } from 'react';
import { DirectoryProblem } from '../../api/directory';
import { Icon } from '../../appearance/Icon';
import { useDirectoryWords } from '../../words/directory-words';
import { ProblemBox } from '../ProblemBox';
import { childrenOf, type Organisation } from './lineage';
import { moveOf, rowsOf, type Children } from './tree';

interface Props {
  roots: Organisation[];
  /** What is chosen after all that are above it; they are opened. */
  lineage: readonly Organisation[];
  /** Grows when something was changed: what is open is fetched anew. */
  changes: number;
  onChoose: (id: string) => void;
}

export function OrganisationTree({ roots, lineage, changes, onChoose }: Props) {
  const words = useDirectoryWords().organisations;
  const [children, setChildren] = useState<ReadonlyMap<string, Children>>(new Map());
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());
  const [problem, setProblem] = useState<DirectoryProblem | null>(null);
  const [focused, setFocused] = useState<string | null>(null);
  const list = useRef<HTMLDivElement>(null);
  const chosen = lineage.at(-1)?.id ?? null;

  /** After how many changes each was fetched. */
  const fetched = useRef(new Map<string, number>());
  const close = useCallback((id: string): void => {
    fetched.current.delete(id);
    setOpen((old) => new Set([...old].filter((other) => other !== id)));
  }, []);

  /** What can't be fetched is closed again, so that it can be opened once more. */
  const fetchChildren = useCallback(async (parent: string, cursor: string | null = null): Promise<void> => {
    try {
      const page = await childrenOf(parent, cursor);
      setChildren((old) => {
        const before = cursor === null ? [] : (old.get(parent)?.organisations ?? []);
        return new Map(old).set(parent, { organisations: [...before, ...page.organisations], next: page.next ?? null });
      });
      setProblem(null);
    } catch (error) {
      if (!(error instanceof DirectoryProblem)) throw error;
      setProblem(error);
      if (cursor === null) close(parent);
    }
  }, [close]);

  const openAll = useCallback((ids: readonly string[]): void => setOpen((old) => new Set([...old, ...ids])), []);
  useEffect(() => openAll(roots.map(({ id }) => id)), [roots, openAll]);
  useEffect(() => openAll(lineage.slice(0, -1).map(({ id }) => id)), [lineage, openAll]);

  // What was opened is fetched; what was changed is fetched anew.
  useEffect(() => {
    for (const id of open) {
      if (fetched.current.get(id) === changes) continue;
      fetched.current.set(id, changes);
      void fetchChildren(id);
    }
  }, [open, changes, fetchChildren]);

  const rows = useMemo(() => rowsOf({ roots, children, open }), [roots, children, open]);
  const keyOf = (row: (typeof rows)[number]): string => (row.kind === 'more' ? `more ${row.parent}` : row.organisation.id);
  const wanted = rows.findIndex((row) => keyOf(row) === focused);
  const atChosen = rows.findIndex((row) => keyOf(row) === chosen);
  const tabStop = wanted >= 0 ? wanted : Math.max(0, atChosen);

  function act(at: number): void {
    const row = rows[at];
    if (row === undefined) return;
    setFocused(keyOf(row));
    if (row.kind === 'more') void fetchChildren(row.parent, row.next);
    else onChoose(row.organisation.id);
  }

  /** Beside the name is what opens and closes, for pointers; keys have the arrows. */
  function click(event: MouseEvent, at: number): void {
    const row = rows[at];
    const isToggle = event.target instanceof Element && event.target.closest('.tree-toggle') !== null;
    if (!isToggle || row?.kind !== 'organisation' || !row.mayOpen) act(at);
    else if (row.isOpen) close(row.organisation.id);
    else openAll([row.organisation.id]);
  }

  function press(event: KeyboardEvent, at: number): void {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      act(at);
      return;
    }
    const move = moveOf(event.key, rows, at);
    if (move === null) return;
    event.preventDefault();
    if ('open' in move) openAll([move.open]);
    else if ('close' in move) close(move.close);
    else {
      const row = rows[move.focus];
      if (row === undefined) return;
      setFocused(keyOf(row));
      (list.current?.children[move.focus] as HTMLElement | undefined)?.focus();
    }
  }

  return (
    <>
      {problem !== null && <ProblemBox problem={problem} />}
      <div ref={list} role="tree" className="tree" aria-label={words.tree} data-testid="tree">
        {rows.map((row, at) => (
          <div
            key={keyOf(row)}
            role="treeitem"
            className={`tree-row tree-level-${Math.min(row.level, 8)}`}
            aria-level={row.level}
            aria-selected={keyOf(row) === chosen}
            aria-expanded={row.kind === 'organisation' && row.mayOpen ? row.isOpen : undefined}
            tabIndex={at === tabStop ? 0 : -1}
            data-testid="tree-row"
            onClick={(event) => click(event, at)}
            onKeyDown={(event) => press(event, at)}
          >
            {row.kind === 'organisation' ? (
              <>
                <span className="tree-toggle" aria-hidden="true">
                  {row.mayOpen && <Icon name="next" size="1rem" />}
                </span>
                <span className="tree-name">{row.organisation.name}</span>
              </>
            ) : (
              <span className="tree-name tree-more">{words.more}</span>
            )}
          </div>
        ))}
      </div>
    </>
  );
}
