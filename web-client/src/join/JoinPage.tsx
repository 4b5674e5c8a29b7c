import { useEffect, useRef, useState, type SubmitEvent } from 'react';
import { ApiError, getMeeting } from '../api/meetings';
import { useDocumentTitle } from '../app/document-title';
import { navigate } from '../app/route';
import { Field } from '../appearance/Field';
import { PageFrame } from '../appearance/PageFrame';
import { Steps } from '../appearance/Steps';
import { getPreferences, setPreferences } from '../preferences/preferences';
import { useWords } from '../words/words';
import { formatMeetingCode, MEETING_CODE_DIGITS, parseMeetingCode } from './meeting-code';
import { cleanName, isValidName } from './participant-name';
import { useRetryAfter } from './use-retry-after';

type NameFault = 'nameMissing' | 'nameInvalid';
type CodeFault = 'codeMissing' | 'codeInvalid';

export function JoinPage() {
  const words = useWords();
  useDocumentTitle(words.join.documentTitle);
  const [name, setName] = useState(() => getPreferences().name);
  const [code, setCode] = useState('');
  const [nameFault, setNameFault] = useState<NameFault | null>(null);
  const [codeFault, setCodeFault] = useState<CodeFault | ApiError | null>(null);
  const [failure, setFailure] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const [retrySeconds, startRetryAfter] = useRetryAfter();
  const nameInput = useRef<HTMLInputElement>(null);
  const codeInput = useRef<HTMLInputElement>(null);
  const mounted = useRef(true);
  useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
    };
  }, []);

  async function submit(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    if (busy || retrySeconds > 0) return;
    const clean = cleanName(name);
    const digits = parseMeetingCode(code);
    const wrongName = clean === '' ? 'nameMissing' : isValidName(clean) ? null : 'nameInvalid';
    const wrongCode = code.trim() === '' ? 'codeMissing' : digits === null ? 'codeInvalid' : null;
    setNameFault(wrongName);
    setCodeFault(wrongCode);
    setFailure(null);
    if (wrongName !== null) nameInput.current?.focus();
    else if (wrongCode !== null) codeInput.current?.focus();
    if (wrongName !== null || digits === null) return;

    setPreferences({ name: clean });
    setBusy(true);
    try {
      await getMeeting(digits);
      if (mounted.current) navigate(`/m/${digits}`);
    } catch (error) {
      if (!mounted.current || !(error instanceof ApiError)) return;
      if (error.retryAfterMs !== null) startRetryAfter(error.retryAfterMs);
      if (error.code === 'meeting_not_found' || error.code === 'meeting_ended') {
        setCodeFault(error);
        codeInput.current?.focus();
      } else setFailure(error);
    } finally {
      if (mounted.current) setBusy(false);
    }
  }

  const codeError =
    codeFault === null ? null : codeFault instanceof ApiError ? words.api[codeFault.code] : words.join[codeFault];

  return (
    <PageFrame>
      <section className="card narrow">
        <Steps now={1} />
        <h1>{words.join.title}</h1>
        <p className="lead">{words.join.lead}</p>
        <form noValidate onSubmit={(event) => void submit(event)}>
          <Field
            label={words.join.name}
            hint={words.join.nameHint}
            error={nameFault === null ? null : words.join[nameFault]}
            inputRef={nameInput}
            value={name}
            onChange={(event) => {
              setName(event.target.value);
              setNameFault(null);
            }}
            autoComplete="name"
            required
            data-testid="join-name"
          />
          <Field
            label={words.join.code}
            hint={words.join.codeHint}
            error={codeError}
            inputRef={codeInput}
            value={code}
            onChange={(event) => {
              setCode(event.target.value);
              setCodeFault(null);
            }}
            onBlur={() => {
              const digits = parseMeetingCode(code);
              if (digits !== null) setCode(formatMeetingCode(digits));
            }}
            inputMode="numeric"
            autoComplete="off"
            className="numeric code-input"
            placeholder={'0'.repeat(3) + ' ' + '0'.repeat(3) + ' ' + '0'.repeat(MEETING_CODE_DIGITS - 6)}
            required
            data-testid="join-code"
          />
          {failure !== null && (
            <p className="form-error" role="alert" data-testid="join-error">
              {failure.code === 'other' && failure.detail !== '' ? failure.detail : words.api[failure.code]}
              {retrySeconds > 0 && <span className="numeric"> {words.api.retryAfter(retrySeconds)}</span>}
            </p>
          )}
          <button type="submit" className="button primary wide" aria-disabled={busy || retrySeconds > 0} data-testid="join-submit">
            {busy ? words.join.submitting : words.join.submit}
          </button>
        </form>
        <button type="button" className="button quiet wide" data-testid="join-staff" onClick={() => navigate('/login')}>
          {words.join.staff}
        </button>
      </section>
    </PageFrame>
  );
}
