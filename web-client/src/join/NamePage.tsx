import { useEffect, useRef, useState, type SubmitEvent } from 'react';
import type { Meeting } from '../api/meetings';
import { useDocumentTitle } from '../app/document-title';
import { navigate } from '../app/route';
import { Field } from '../appearance/Field';
import { PageFrame } from '../appearance/PageFrame';
import { Steps } from '../appearance/Steps';
import { getPreferences } from '../preferences/preferences';
import { useWords } from '../words/words';
import { formatMeetingCode } from './meeting-code';
import { cleanName, isValidName } from './participant-name';

interface Props {
  meeting: Meeting;
  onName: (name: string) => void;
}

/** Who opened a meeting's link and is not known by name yet. */
export function NamePage({ meeting, onName }: Props) {
  const words = useWords();
  useDocumentTitle(words.meeting.documentTitle(meeting.name));
  const [name, setName] = useState(() => getPreferences().name);
  const [fault, setFault] = useState<'nameMissing' | 'nameInvalid' | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);

  function submit(event: SubmitEvent): void {
    event.preventDefault();
    const clean = cleanName(name);
    const wrong = clean === '' ? 'nameMissing' : isValidName(clean) ? null : 'nameInvalid';
    setFault(wrong);
    if (wrong === null) onName(clean);
    else input.current?.focus();
  }

  return (
    <PageFrame>
      <section className="card narrow">
        <Steps now={1} />
        <h1 ref={heading} tabIndex={-1}>
          {meeting.name}
        </h1>
        <p className="secondary">
          {words.join.code} <span className="numeric">{formatMeetingCode(meeting.code)}</span>
        </p>
        <p className="lead">{words.join.whoAreYou}</p>
        <form noValidate onSubmit={submit}>
          <Field
            label={words.join.name}
            hint={words.join.nameHint}
            error={fault === null ? null : words.join[fault]}
            inputRef={input}
            value={name}
            onChange={(event) => {
              setName(event.target.value);
              setFault(null);
            }}
            autoComplete="name"
            required
            data-testid="join-name"
          />
          <div className="stacked-buttons">
            <button type="submit" className="button primary" data-testid="join-submit">
              {words.join.enter}
            </button>
            <button type="button" className="button quiet" data-testid="join-other" onClick={() => navigate('/join')}>
              {words.join.otherMeeting}
            </button>
          </div>
        </form>
      </section>
    </PageFrame>
  );
}
