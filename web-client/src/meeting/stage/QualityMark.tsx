import { useWords } from '../../words/words';
import type { QualityWord } from '../session/participant-view';

const BARS: Record<QualityWord, number> = { excellent: 3, good: 2, poor: 1, lost: 0, unknown: 0 };

/** Three bars, a colour and a word: the state of a connection for every kind of eye. */
export function QualityMark({ quality, withLabel }: { quality: QualityWord; withLabel: boolean }) {
  const words = useWords();
  const full = BARS[quality];
  return (
    <span className={`quality quality-${quality}`} data-testid="quality" data-quality={quality}>
      <svg viewBox="0 0 18 14" aria-hidden="true" focusable="false">
        {[0, 1, 2].map((bar) => (
          <rect key={bar} x={bar * 6} y={10 - bar * 4} width="4" height={4 + bar * 4} className={bar < full ? 'bar-full' : 'bar-empty'} />
        ))}
        {quality === 'lost' && <path d="M2 1l14 12M16 1L2 13" />}
      </svg>
      <span>
        {withLabel && <span className="quality-label">{words.meeting.network} </span>}
        {words.meeting.quality[quality]}
      </span>
    </span>
  );
}
