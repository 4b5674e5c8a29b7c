import { useEffect, useRef } from 'react';
import { navigate } from '../app/route';
import { useDocumentTitle } from '../app/document-title';
import { clock, timeOfDay } from '../appearance/clock';
import { Icon, type IconName } from '../appearance/Icon';
import { PageFrame } from '../appearance/PageFrame';
import { useWords, type Words } from '../words/words';
import type { Departure, DepartureReason } from './departure';

const ICONS: Record<DepartureReason, IconName> = {
  self: 'leave',
  removed: 'blocked',
  ended: 'check',
  elsewhere: 'devices',
  unreachable: 'offline',
  refused: 'blocked',
  notFound: 'blocked',
  full: 'people',
  unsupported: 'blocked',
};

/** Going back in is offered only where it can work. */
const CAN_REJOIN: readonly DepartureReason[] = ['self', 'removed', 'elsewhere', 'unreachable', 'refused', 'full'];

interface Props {
  departure: Departure | null;
  onRejoin: (() => void) | null;
}

export function LeftPage({ departure, onRejoin }: Props) {
  const words = useWords();
  useDocumentTitle(words.left.documentTitle);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  const reason = departure?.reason ?? 'self';
  const good = reason === 'self' || reason === 'ended';
  const rejoin = CAN_REJOIN.includes(reason) ? onRejoin : null;

  return (
    <PageFrame>
      <section className="card narrow left-card" data-testid="left" data-reason={reason}>
        <div className={good ? 'left-mark' : 'left-mark left-mark-alert'}>
          <Icon name={ICONS[reason]} size="2rem" />
        </div>
        <h1 ref={heading} tabIndex={-1} data-testid="left-reason">
          {words.left[reason]}
        </h1>
        <p className="lead">{explain(words, departure)}</p>
        {departure !== null && departure.attendedMs >= 1000 && (
          <p className="secondary numeric">{words.left.duration(clock(departure.attendedMs))}</p>
        )}
        <div className="stacked-buttons">
          {rejoin !== null && (
            <button type="button" className="button primary" data-testid="left-rejoin" onClick={rejoin}>
              {words.left.rejoin}
            </button>
          )}
          <button
            type="button"
            className={rejoin === null ? 'button primary' : 'button'}
            data-testid="left-home"
            onClick={() => navigate('/join')}
          >
            {words.left.home}
          </button>
        </div>
      </section>
    </PageFrame>
  );
}

function explain(words: Words, departure: Departure | null): string {
  const reason = departure?.reason ?? 'self';
  if (reason === 'ended' && departure !== null) {
    return `${words.left.endedAt(timeOfDay(departure.at))}${words.left.endedText}`;
  }
  return words.left[`${reason}Text`];
}
