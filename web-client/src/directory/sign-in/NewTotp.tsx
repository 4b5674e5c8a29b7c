/** One-time passwords are set up: the app photographs the picture, and shows a first code. */
import { useState, type SubmitEvent } from 'react';
import { answered, directory } from '../../api/directory';
import { Field } from '../../appearance/Field';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { CopyText } from '../CopyText';
import { ProblemBox } from '../ProblemBox';
import { useAct, useAnswer } from '../use-answer';
import { QrCode } from './QrCode';

/** `onDone` gets recovery codes where there were none before. */
export function NewTotp({ onDone }: { onDone: (codes: string[] | null) => void }) {
  const { opening, openingLong } = useWords();
  const all = useDirectoryWords();
  const words = all.newTotp;
  const begun = useAnswer('totp', () => answered(directory.POST('/api/factors/totp')));
  const [code, setCode] = useState('');
  const [wasSent, setSent] = useState(false);
  const act = useAct();
  if (begun.problem !== null) return <ProblemBox problem={begun.problem} onRetry={begun.reload} />;
  if (begun.value === null) return <Waiting text={opening} longText={openingLong} />;
  const { id, secret, uri } = begun.value;

  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    if (code.trim() === '') return;
    void act.run(async () => {
      const call = directory.POST('/api/factors/totp/{id}', { params: { path: { id } }, body: { code: code.trim() } });
      onDone((await answered(call)).recovery_codes ?? null);
    });
  }

  return (
    <form noValidate onSubmit={submit}>
      <p>{words.scan}</p>
      <QrCode text={uri} label={words.picture} />
      <p>{words.orType}</p>
      <CopyText label={words.secret} text={secret} testId="totp-secret" />
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      <Field
        label={words.code}
        hint={words.codeHint}
        error={wasSent && code.trim() === '' ? all.missing : null}
        value={code}
        inputMode="numeric"
        autoComplete="one-time-code"
        className="numeric code-input"
        onChange={(event) => setCode(event.target.value)}
        required
        data-testid="totp-code"
      />
      <button type="submit" className="button primary wide" aria-disabled={act.isBusy} data-testid="totp-submit">
        {words.submit}
      </button>
    </form>
  );
}
