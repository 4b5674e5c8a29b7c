import { charactersOf } from '../../words/characters';
import { memo } from 'react';
import { Icon } from '../../appearance/Icon';
import { useWords } from '../../words/words';
import type { ParticipantView } from '../session/participant-view';
import type { Rect } from './layout';
import type { TileNotice } from './notice';
import { QualityMark } from './QualityMark';
import { VideoView } from './VideoView';

/** Calm grounds for people without a picture; white letters on each are above 4.5:1. */
const GROUNDS = ['#34507a', '#3d5a50', '#5a4a6b', '#6b4f3a', '#2f5d6b', '#56564a'];

function groundOf(identity: string): string {
  let sum = 0;
  for (const character of identity) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % 65_521;
  return GROUNDS[sum % GROUNDS.length] ?? '#34507a';
}

/** Chinese names are known by their last two characters, others by their first letter. */
export function initialsOf(name: string): string {
  const characters = charactersOf(name.trim());
  const first = characters[0] ?? '';
  return /\p{Script=Han}/u.test(first) ? characters.slice(-2).join('') : first.toUpperCase();
}

interface Props {
  view: ParticipantView;
  rect: Rect;
  kind: 'person' | 'screen';
  notice: TileNotice | null;
}

function placeOf({ x, y, width, height }: Rect) {
  return { transform: `translate(${Math.round(x)}px, ${Math.round(y)}px)`, width: Math.round(width), height: Math.round(height) };
}

export const Tile = memo(
  function Tile({ view, rect, kind, notice }: Props) {
    const words = useWords();
    const isScreen = kind === 'screen';
    const track = isScreen ? view.screen : view.camera;
    const name = view.name + (view.isSelf ? words.meeting.youSuffix : '');
    const description = isScreen
      ? words.meeting.screenTile(view.name)
      : words.meeting.tile(name, view.microphoneOn, words.meeting.quality[view.quality], view.handAt !== null);
    const isSpeaking = !isScreen && view.isSpeaking;
    return (
      <li
        className={isSpeaking ? 'tile tile-speaking' : 'tile'}
        style={placeOf(rect)}
        data-testid="tile"
        data-identity={view.identity}
        data-name={view.name}
        data-kind={kind}
        data-self={view.isSelf}
        data-microphone={view.microphoneOn ? 'on' : 'off'}
        data-camera={view.camera === null ? 'off' : 'on'}
        data-speaking={isSpeaking}
        data-notice={notice ?? 'none'}
      >
        <span className="visually-hidden">
          {description}
          {notice !== null && words.sentenceBreak + words.meeting.tileNotice[notice]}
        </span>
        <div className="tile-face" aria-hidden="true">
          {/* Also under a picture, for the moment until it comes. */}
          {!isScreen && (
            <div className="tile-letters" style={{ backgroundColor: groundOf(view.identity) }}>
              <span style={{ fontSize: Math.max(18, Math.min(rect.width, rect.height) * 0.24) }}>{initialsOf(view.name)}</span>
            </div>
          )}
          {track !== null && <VideoView track={track} isMirrored={view.isSelf && !isScreen} isWhole={isScreen} />}
          {notice !== null && (
            <p className={`tile-notice tile-notice-${notice}`} data-testid="tile-notice">
              <span>{words.meeting.tileNotice[notice]}</span>
            </p>
          )}
          {!isScreen && view.handAt !== null && (
            <span className="tile-hand">
              <Icon name="hand" size="1.25rem" />
              <span>{words.meeting.handUp}</span>
            </span>
          )}
          {!isScreen && view.quality !== 'unknown' && (
            <span className="tile-quality">
              <QualityMark quality={view.quality} withLabel={false} />
            </span>
          )}
          <span className="tile-label">
            {isScreen ? <Icon name="share" size="1.125rem" /> : <MicrophoneMark view={view} />}
            <span className="tile-name">{isScreen ? words.meeting.sharing(view.name) : name}</span>
          </span>
        </div>
      </li>
    );
  },
  (a, b) =>
    a.view === b.view &&
    a.kind === b.kind &&
    a.notice === b.notice &&
    a.rect.x === b.rect.x &&
    a.rect.y === b.rect.y &&
    a.rect.width === b.rect.width &&
    a.rect.height === b.rect.height,
);

function MicrophoneMark({ view }: { view: ParticipantView }) {
  if (!view.microphoneOn) {
    return (
      <span className="tile-muted">
        <Icon name="microphoneOff" size="1.125rem" />
      </span>
    );
  }
  return view.isSpeaking ? <Icon name="sound" size="1.125rem" /> : <Icon name="microphone" size="1.125rem" />;
}
