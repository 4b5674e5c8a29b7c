/** First set-up: whoever has the code that the server printed makes the first organisation and the three administrators. */
import { useEffect, useState, type SubmitEvent } from 'react';
import { answered, directory, type Schemas } from '../../api/directory';
import { useDocumentTitle } from '../../app/document-title';
import { navigate } from '../../app/route';
import { Field } from '../../appearance/Field';
import { PageFrame } from '../../appearance/PageFrame';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { CopyText } from '../CopyText';
import { ProblemBox } from '../ProblemBox';
import { useAct, useAnswer } from '../use-answer';
import { useHeading } from '../use-heading';

const ADMINISTRATORS = ['system', 'security', 'auditor'] as const;
type Administrator = (typeof ADMINISTRATORS)[number];
type People = Record<Administrator, { name: string; login: string }>;

/** As the server has it: 3 to 32 small letters, digits, dots and hyphens, beginning with a letter. */
const LOGIN = /^[a-z][a-z0-9.-]{2,31}$/;

export function SetUpPage() {
  const { opening, openingLong } = useWords();
  const words = useDirectoryWords().setUp;
  useDocumentTitle(words.documentTitle);
  const state = useAnswer('setup', () => answered(directory.GET('/api/setup')));
  const [done, setDone] = useState<Schemas['SetUpDone'] | null>(null);
  return (
    <PageFrame>
      <section className={done === null ? 'card narrow' : 'card wide-card'}>
        {done !== null ? (
          <Done done={done} />
        ) : state.problem !== null ? (
          <ProblemBox problem={state.problem} onRetry={state.reload} />
        ) : state.value === null ? (
          <Waiting text={opening} longText={openingLong} />
        ) : state.value.is_needed ? (
          <Form state={state.value} onDone={setDone} />
        ) : (
          <Already />
        )}
      </section>
    </PageFrame>
  );
}

function Already() {
  const words = useDirectoryWords().setUp;
  const heading = useHeading();
  return (
    <>
      <h1 ref={heading} tabIndex={-1}>
        {words.already}
      </h1>
      <p className="lead">{words.alreadyText}</p>
      <button type="button" className="button primary wide" data-testid="setup-login" onClick={() => navigate('/login')}>
        {words.toLogin}
      </button>
    </>
  );
}

function Form({ state, onDone }: { state: Schemas['SetUpState']; onDone: (done: Schemas['SetUpDone']) => void }) {
  const all = useDirectoryWords();
  const words = all.setUp;
  const heading = useHeading();
  const [code, setCode] = useState('');
  const [organisation, setOrganisation] = useState('');
  const [division, setDivision] = useState('');
  const [people, setPeople] = useState<People>({
    system: { name: '', login: '' },
    security: { name: '', login: '' },
    auditor: { name: '', login: '' },
  });
  const [wasSent, setSent] = useState(false);
  const act = useAct();

  const missing = (text: string): string | null => (wasSent && text.trim() === '' ? all.missing : null);
  const wrongLogin = (text: string): string | null =>
    missing(text) ?? (wasSent && !LOGIN.test(text.trim()) ? all.people.loginHint : null);
  const isWhole =
    code.trim() !== '' &&
    organisation.trim() !== '' &&
    ADMINISTRATORS.every((role) => people[role].name.trim() !== '' && LOGIN.test(people[role].login.trim()));

  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    if (!isWhole) return;
    const person = (role: Administrator): { name: string; login: string } => ({
      name: people[role].name.trim(),
      login: people[role].login.trim(),
    });
    const body = {
      code: code.trim(),
      organisation: organisation.trim(),
      division_code: division.trim() === '' ? null : division.trim(),
      administrators: { system: person('system'), security: person('security'), auditor: person('auditor') },
    };
    void act.run(async () => onDone(await answered(directory.POST('/api/setup', { body }))));
  }

  return (
    <>
      <h1 ref={heading} tabIndex={-1}>
        {words.title}
      </h1>
      <p className="lead">{words.lead}</p>
      {!state.has_passkeys && <p className="note">{words.noPasskeys}</p>}
      <form noValidate onSubmit={submit}>
        <Field
          label={words.code}
          hint={words.codeHint}
          error={missing(code)}
          value={code}
          autoComplete="off"
          spellCheck={false}
          className="numeric"
          onChange={(event) => setCode(event.target.value)}
          required
          data-testid="setup-code"
        />
        <Field
          label={words.organisation}
          hint={words.organisationHint}
          error={missing(organisation)}
          value={organisation}
          onChange={(event) => setOrganisation(event.target.value)}
          required
          data-testid="setup-organisation"
        />
        <Field
          label={words.division}
          hint={words.divisionHint}
          error={null}
          value={division}
          inputMode="numeric"
          onChange={(event) => setDivision(event.target.value)}
          data-testid="setup-division"
        />
        {ADMINISTRATORS.map((role) => (
          <fieldset key={role} className="group">
            <legend>{words.roles[role]}</legend>
            <p className="field-hint">{words.roleHints[role]}</p>
            <Field
              label={all.people.name}
              hint={all.people.nameHint}
              error={missing(people[role].name)}
              value={people[role].name}
              onChange={(event) => setPeople({ ...people, [role]: { ...people[role], name: event.target.value } })}
              required
              data-testid={`setup-${role}-name`}
            />
            <Field
              label={all.people.login}
              hint={all.people.loginHint}
              error={wrongLogin(people[role].login)}
              value={people[role].login}
              autoCapitalize="none"
              spellCheck={false}
              onChange={(event) => setPeople({ ...people, [role]: { ...people[role], login: event.target.value } })}
              required
              data-testid={`setup-${role}-login`}
            />
          </fieldset>
        ))}
        {act.problem !== null && <ProblemBox problem={act.problem} />}
        {wasSent && !isWhole && (
          <p className="form-error" role="alert">
            {all.notWhole}
          </p>
        )}
        <button type="submit" className="button primary wide" aria-disabled={act.isBusy} data-testid="setup-submit">
          {words.submit}
        </button>
      </form>
    </>
  );
}

function Done({ done }: { done: Schemas['SetUpDone'] }) {
  const words = useDirectoryWords().setUp;
  const heading = useHeading();
  // The invitations are shown once: who leaves by mistake is asked.
  useEffect(() => {
    const hold = (event: BeforeUnloadEvent): void => event.preventDefault();
    window.addEventListener('beforeunload', hold);
    return () => window.removeEventListener('beforeunload', hold);
  }, []);
  return (
    <>
      <h1 ref={heading} tabIndex={-1}>
        {words.done}
      </h1>
      <p className="lead">{words.doneText}</p>
      <ul role="list" className="invitations" data-testid="setup-done">
        {ADMINISTRATORS.map((role) => (
          <li key={role}>
            <h2>
              {words.roles[role]} {done[role].person.name}
            </h2>
            <CopyText label={words.roles[role]} text={done[role].invitation} testId={`setup-${role}-invitation`} />
          </li>
        ))}
      </ul>
      <button type="button" className="button" data-testid="setup-login" onClick={() => navigate('/login')}>
        {words.handedOver}
      </button>
    </>
  );
}
