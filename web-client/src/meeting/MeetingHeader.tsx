import { useEffect, useState } from 'react';
import { clock } from '../appearance/clock';
import { Logo } from '../appearance/Logo';
import { formatMeetingCode } from '../join/meeting-code';
import { useWords } from '../words/words';
import type { SessionState } from './session/meeting-session';
import { QualityMark } from './stage/QualityMark';

export function MeetingHeader({ code, state }: { code: string; state: SessionState }) {
  const words = useWords();
  const self = state.participants.find((person) => person.isSelf);
  return (
    <header className="meeting-header">
      <Logo />
      <div className="meeting-title">
        <h1 tabIndex={-1}>{state.meetingName}</h1>
        <p className="numeric">
          {words.join.code} {formatMeetingCode(code)}
        </p>
      </div>
      <ul className="meeting-facts" role="list">
        <li data-testid="people-count">{words.meeting.people(state.participants.length + state.unlisted)}</li>
        {state.joinedAt > 0 && (
          <li>
            <span className="visually-hidden">{words.meeting.elapsed} </span>
            <Elapsed since={state.joinedAt} />
          </li>
        )}
        {self !== undefined && (
          <li>
            <QualityMark quality={state.outage === null ? self.quality : 'lost'} withLabel />
          </li>
        )}
      </ul>
    </header>
  );
}

function Elapsed({ since }: { since: number }) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return <span className="numeric">{clock(now - since)}</span>;
}
