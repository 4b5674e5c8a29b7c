import { useRef, useState } from 'react';
import { Icon } from '../../appearance/Icon';
import { useWords } from '../../words/words';
import type { ParticipantView } from '../session/participant-view';
import { capacity, layout, pageCount, type LayoutMode } from './layout';
import { chooseSpeaker, orderPeople } from './order';
import { noticeOn } from './notice';
import { Tile } from './Tile';
import { useSize } from './use-size';

interface Props {
  people: readonly ParticipantView[];
  mode: LayoutMode;
  /** Then every picture stands still, and the banner says why. */
  isOwnLineDown: boolean;
}

interface Item {
  key: string;
  kind: 'person' | 'screen';
  view: ParticipantView;
}

const itemOf = (view: ParticipantView, kind: Item['kind']): Item => ({ key: `${kind}:${view.identity}`, kind, view });

export function Stage({ people, mode, isOwnLineDown }: Props) {
  const words = useWords();
  const area = useRef<HTMLUListElement>(null);
  const { width, height } = useSize(area);
  const [page, setPage] = useState(0);
  const [order, setOrder] = useState<readonly string[]>([]);
  const [speaker, setSpeaker] = useState<string | null>(null);

  // Somebody else's screen is the big picture in either layout; one's own would only mirror itself.
  const shared = people.filter((view) => view.screen !== null && !view.isSelf);
  const shownMode: LayoutMode = shared.length > 0 ? 'speaker' : mode;
  const perPage = capacity(width, height, shownMode);

  // Both depend on their own past, so they are state that is brought up to date while drawing.
  const nextOrder = orderPeople(order, people, shownMode === 'grid' ? perPage : perPage - 1);
  if (nextOrder !== order) setOrder(nextOrder);
  const nextSpeaker = chooseSpeaker(speaker, people);
  if (nextSpeaker !== speaker) setSpeaker(nextSpeaker);

  const byIdentity = new Map(people.map((view) => [view.identity, view]));
  const persons = nextOrder.flatMap((identity) => {
    const view = byIdentity.get(identity);
    return view === undefined ? [] : [itemOf(view, 'person')];
  });
  const screens = shared.map((view) => itemOf(view, 'screen'));
  const items = arrange(screens, persons, shownMode, nextSpeaker);

  const pages = pageCount(items.length, perPage, shownMode);
  const current = Math.min(page, pages - 1);
  const ownQuality = people.find((view) => view.isSelf)?.quality ?? 'unknown';
  const visible = itemsOfPage(items, current, perPage, shownMode);
  const rects = layout(visible.length, width, height, shownMode);

  return (
    <div className="stage">
      <ul
        className="stage-area"
        role="list"
        ref={area}
        aria-label={words.meeting.stage}
        data-testid="stage"
        data-mode={shownMode}
        data-page={current + 1}
        data-pages={pages}
      >
        {visible.map((item, index) => {
          const rect = rects[index];
          const notice = isOwnLineDown ? null : noticeOn(item.view, item.kind, ownQuality);
          return rect === undefined ? null : <Tile key={item.key} view={item.view} rect={rect} kind={item.kind} notice={notice} />;
        })}
      </ul>
      {pages > 1 && (
        <nav className="pager" aria-label={words.meeting.page(current + 1, pages)}>
          <button
            type="button"
            className="pager-button"
            aria-disabled={current === 0}
            onClick={() => setPage(Math.max(0, current - 1))}
            data-testid="page-previous"
          >
            <Icon name="previous" />
            <span className="visually-hidden">{words.meeting.previousPage}</span>
          </button>
          <span className="numeric" role="status">
            {words.meeting.page(current + 1, pages)}
          </span>
          <button
            type="button"
            className="pager-button"
            aria-disabled={current === pages - 1}
            onClick={() => setPage(Math.min(pages - 1, current + 1))}
            data-testid="page-next"
          >
            <Icon name="next" />
            <span className="visually-hidden">{words.meeting.nextPage}</span>
          </button>
        </nav>
      )}
    </div>
  );
}

/** The large picture first, where there is one. */
function arrange(screens: Item[], persons: Item[], mode: LayoutMode, speaker: string | null): Item[] {
  if (screens.length > 0) return [...screens, ...persons];
  if (mode === 'grid') return persons;
  const large = persons.find((item) => item.view.identity === speaker);
  return large === undefined ? persons : [large, ...persons.filter((item) => item !== large)];
}

function itemsOfPage(items: Item[], page: number, perPage: number, mode: LayoutMode): Item[] {
  if (mode === 'grid') return items.slice(page * perPage, (page + 1) * perPage);
  const [large, ...small] = items;
  const perStrip = Math.max(1, perPage - 1);
  return large === undefined ? [] : [large, ...small.slice(page * perStrip, (page + 1) * perStrip)];
}
