import { useState, type SubmitEvent } from 'react';
import { answered, directory } from '../../api/directory';
import { useDocumentTitle } from '../../app/document-title';
import { navigate } from '../../app/route';
import { Field } from '../../appearance/Field';
import { PageFrame } from '../../appearance/PageFrame';
import { useDirectoryWords } from '../../words/directory-words';
import { ProblemBox } from '../ProblemBox';
import { signedInAs } from '../session';
import { useAct, useAnswer } from '../use-answer';
import { useHeading } from '../use-heading';

export function SignInPage({ because }: { because: 'ended' | null }) {
  const all = useDirectoryWords();
  const words = all.signIn;
  useDocumentTitle(words.documentTitle);
  const heading = useHeading();
  const setUp = useAnswer('setup', () => answered(directory.GET('/api/setup')));
  const [login, setLogin] = useState('');
  const [password, setPassword] = useState('');
  const [wasSent, setSent] = useState(false);
  const act = useAct();
  const missing = (text: string): string | null => (wasSent && text === '' ? all.missing : null);

  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    if (login.trim() === '' || password === '') return;
    const body = { login: login.trim(), password };
    void act.run(async () => signedInAs(await answered(directory.POST('/api/session', { body }))));
  }

  return (
    <PageFrame>
      <section className="card narrow" data-testid="sign-in">
        <h1 ref={heading} tabIndex={-1}>
          {words.title}
        </h1>
        {because === 'ended' && <p className="note">{words.ended}</p>}
        {setUp.value?.is_needed === true && (
          <div className="note">
            <p>{words.nobodyYet}</p>
            <button type="button" className="button small" data-testid="to-setup" onClick={() => navigate('/setup')}>
              {words.toSetUp}
            </button>
          </div>
        )}
        {act.problem !== null && <ProblemBox problem={act.problem} />}
        <form noValidate onSubmit={submit}>
          <Field
            label={all.people.login}
            hint={words.loginHint}
            error={missing(login.trim())}
            value={login}
            autoComplete="username"
            autoCapitalize="none"
            spellCheck={false}
            onChange={(event) => setLogin(event.target.value)}
            required
            data-testid="login"
          />
          <Field
            label={all.proof.password}
            hint={words.passwordHint}
            error={missing(password)}
            type="password"
            value={password}
            autoComplete="current-password"
            onChange={(event) => setPassword(event.target.value)}
            required
            data-testid="password"
          />
          <div className="stacked-buttons">
            <button type="submit" className="button primary" aria-disabled={act.isBusy} data-testid="sign-in-submit">
              {act.isBusy ? words.submitting : words.submit}
            </button>
            <button type="button" className="button quiet" onClick={() => navigate('/join')}>
              {words.toJoin}
            </button>
          </div>
        </form>
      </section>
    </PageFrame>
  );
}
