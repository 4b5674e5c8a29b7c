import { useEffect, useState } from 'react';
import { clock } from '../../appearance/clock';
import { useWords } from '../../words/words';
import { outagePhase } from '../session/reconnect-policy';

interface Props {
  outageSince: number;
  onRetry: () => void;
  onLeave: () => void;
}

const TICK_MS = 500;

/** Three seconds nothing but a grey dot, then words, after fifteen a button and the length of the outage. */
export function ReconnectBanner({ outageSince, onRetry, onLeave }: Props) {
  const words = useWords();
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), TICK_MS);
    return () => clearInterval(timer);
  }, []);
  const outage = Math.max(0, now - outageSince);
  const phase = outagePhase(outage);
  return (
    <section className={`reconnect reconnect-${phase}`} aria-label={words.connection.region} data-testid="reconnect-banner" data-phase={phase}>
      <span className="reconnect-dot" aria-hidden="true" />
      {/* Said once per phase: the clock beside it must not be read out every second. */}
      <p role="alert">
        {phase === 'words' && words.connection.reconnecting}
        {phase === 'retry' && (navigator.onLine ? words.connection.unreachable + words.connection.stillTrying : words.connection.offline)}
      </p>
      {phase === 'retry' && (
        <>
          <span className="numeric reconnect-clock">{words.connection.downFor(clock(outage))}</span>
          <button type="button" className="button primary small" onClick={onRetry} data-testid="reconnect-retry">
            {words.connection.retryNow}
          </button>
          <button type="button" className="button small" onClick={onLeave} data-testid="reconnect-leave">
            {words.connection.leave}
          </button>
        </>
      )}
    </section>
  );
}
