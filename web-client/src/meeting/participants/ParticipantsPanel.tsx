import { useState } from 'react';
import { announcer } from '../../accessibility/announcer';
import { Icon } from '../../appearance/Icon';
import { formatMeetingCode } from '../../join/meeting-code';
import { useWords } from '../../words/words';
import type { ParticipantView } from '../session/participant-view';
import { orderRoster } from '../stage/order';
import { QualityMark } from '../stage/QualityMark';
import { initialsOf } from '../stage/Tile';

interface Props {
  code: string;
  people: readonly ParticipantView[];
  /** How many more are there whom the list does not name. */
  unlisted: number;
}

/** From this many people on the list can be searched. */
const SEARCH_FROM = 8;

export function ParticipantsPanel({ code, people, unlisted }: Props) {
  const words = useWords();
  const [query, setQuery] = useState('');
  const roster = orderRoster(people, words.languageTag);
  const hands = roster.filter((person) => person.handAt !== null);
  const sought = query.trim().toLowerCase();
  const shown = sought === '' ? roster : roster.filter((person) => person.name.toLowerCase().includes(sought));

  async function copyLink(): Promise<void> {
    try {
      await navigator.clipboard.writeText(`${location.origin}/m/${code}`);
      announcer.notify(words.participants.copied);
    } catch {
      announcer.notify(words.participants.copyFailed, 'assertive');
    }
  }

  return (
    <div className="panel-scroll">
      <div className="invite">
        <p>
          {words.participants.invite} <strong className="numeric">{formatMeetingCode(code)}</strong>
        </p>
        <button type="button" className="button small" onClick={() => void copyLink()} data-testid="copy-link">
          <Icon name="copy" size="1.25rem" />
          {words.participants.copy}
        </button>
      </div>
      {people.length >= SEARCH_FROM && (
        <input
          type="search"
          className="text-input"
          value={query}
          aria-label={words.participants.search}
          placeholder={words.participants.search}
          onChange={(event) => setQuery(event.target.value)}
          data-testid="participants-search"
        />
      )}
      {hands.length > 0 && <p className="secondary">{words.participants.hands(hands.length)}</p>}
      {shown.length === 0 && <p className="panel-empty">{words.participants.none(query.trim())}</p>}
      <ul className="roster" role="list" data-testid="roster">
        {shown.map((person) => (
          <li key={person.identity} className="roster-row" data-testid="roster-row" data-identity={person.identity} data-hand={person.handAt !== null}>
            <span className="roster-letters" aria-hidden="true">
              {initialsOf(person.name)}
            </span>
            <span className="roster-who">
              <span className="roster-name">
                {person.name}
                {person.isSelf && words.meeting.youSuffix}
              </span>
              <span className="roster-state">
                {person.handAt !== null && (
                  <span className="roster-hand">
                    <Icon name="hand" size="1.125rem" />
                    {words.participants.handOrder(hands.indexOf(person) + 1)}
                  </span>
                )}
                {person.isSharing && <span>{words.participants.sharing}</span>}
                <span>{person.microphoneOn ? words.participants.microphoneOn : words.participants.microphoneOff}</span>
                <span>{person.camera === null ? words.participants.cameraOff : words.participants.cameraOn}</span>
              </span>
            </span>
            <QualityMark quality={person.quality} withLabel={false} />
          </li>
        ))}
      </ul>
      {unlisted > 0 && (
        <p className="secondary" data-testid="unlisted">
          {words.participants.more(unlisted)}
        </p>
      )}
    </div>
  );
}
