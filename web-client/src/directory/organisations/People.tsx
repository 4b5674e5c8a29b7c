/** The people of an organisation. Reading them is written down, so they are asked for only when somebody looks. */
import { useState, type SubmitEvent } from 'react';
import { answered, directory, makeOnce, seen, type Schemas } from '../../api/directory';
import { Dialog } from '../../appearance/Dialog';
import { Field } from '../../appearance/Field';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { ConfirmDialog } from '../ConfirmDialog';
import { CopyText } from '../CopyText';
import { FormEnd } from '../FormEnd';
import { ProblemBox } from '../ProblemBox';
import { useAct, useAnswer } from '../use-answer';
import type { Organisation } from './lineage';
import type { Rights } from './OrganisationDetails';

type Person = Schemas['Person'];

interface Props {
  organisation: Organisation;
  may: Rights;
}

/** How many people are asked for at once: as many as the server gives. */
const PAGE = 200;

export function peopleOf(organisation: string, text: string, cursor: string | null): Promise<Schemas['PersonPage']> {
  const query = { limit: PAGE, ...(text === '' ? {} : { text }), ...(cursor === null ? {} : { cursor }) };
  return answered(directory.GET('/api/organisations/{id}/persons', { params: { path: { id: organisation }, query } }));
}

type Open = { act: 'invite' } | { act: 'again' | 'reset' | 'leave' | 'lock' | 'unlock'; person: Person } | { act: 'shown'; link: string; name: string };

export function People({ organisation, may }: Props) {
  const { opening, openingLong } = useWords();
  const all = useDirectoryWords();
  const words = all.people;
  const { id } = organisation;
  const [typed, setTyped] = useState('');
  const [text, setText] = useState('');
  const [more, setMore] = useState<Schemas['PersonPage'] | null>(null);
  const [open, setOpen] = useState<Open | null>(null);
  const maySee = may('see_persons');
  const people = useAnswer(maySee === 'no' ? null : `people ${id} ${text}`, () => {
    setMore(null);
    return peopleOf(id, text, null);
  });
  const act = useAct();
  const mayManage = may('manage_persons') !== 'no' && organisation.state === 'active';

  const persons = [...(people.value?.persons ?? []), ...(more?.persons ?? [])];
  const next = more === null ? people.value?.next : more.next;
  function find(event: SubmitEvent): void {
    event.preventDefault();
    setText(typed.trim());
  }
  function changed(): void {
    setOpen(null);
    people.reload();
  }
  function shown(person: { name: string }, link: string): void {
    people.reload();
    setOpen({ act: 'shown', link, name: person.name });
  }

  if (maySee === 'no') return <p className="empty">{words.mayNot}</p>;
  return (
    <>
      <div className="part-head">
        <form role="search" className="find" onSubmit={find}>
          <Field
            label={words.find}
            hint={words.findHint}
            error={null}
            type="search"
            value={typed}
            autoComplete="off"
            onChange={(event) => setTyped(event.target.value)}
            data-testid="people-search"
          />
          <button type="submit" className="button small">
            {words.findSubmit}
          </button>
        </form>
        {mayManage && (
          <button type="button" className="button primary small" data-testid="invite" onClick={() => setOpen({ act: 'invite' })}>
            {words.invite}
          </button>
        )}
      </div>
      {people.problem !== null && <ProblemBox problem={people.problem} onRetry={people.reload} />}
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      {people.value === null ? (
        people.problem === null && <Waiting text={opening} longText={openingLong} />
      ) : persons.length === 0 ? (
        <p className="empty">{text === '' ? words.nobody : words.notFound(text)}</p>
      ) : (
        <ul role="list" className="rows">
          {persons.map((person) => (
            <li key={person.id} data-testid="person" data-state={person.state}>
              <span className="row-words">
                <strong>{person.name}</strong>
                <span className="secondary">{person.login}</span>
                <span className="mark">{words.states[person.state as keyof typeof words.states]}</span>
              </span>
              {mayManage && (
                <span className="row-buttons">
                  {person.state === 'invited' && <Act act="again" person={person} onOpen={setOpen} />}
                  {person.state === 'active' && <Act act="reset" person={person} onOpen={setOpen} />}
                  {person.state === 'active' && <Act act="lock" person={person} onOpen={setOpen} />}
                  {person.state === 'locked' && <Act act="unlock" person={person} onOpen={setOpen} />}
                  <Act act="leave" person={person} onOpen={setOpen} />
                </span>
              )}
            </li>
          ))}
        </ul>
      )}
      {next != null && (
        <div className="part-buttons">
          <button
            type="button"
            className="button small"
            aria-disabled={act.isBusy}
            onClick={() =>
              void act.run(async () => {
                const page = await peopleOf(id, text, next);
                setMore({ ...page, persons: [...(more?.persons ?? []), ...page.persons] });
              })
            }
          >
            {words.more}
          </button>
        </div>
      )}
      {open?.act === 'invite' && <InviteDialog organisation={organisation} onClose={() => setOpen(null)} onDone={shown} />}
      {open?.act === 'shown' && (
        <Dialog title={words.linkTitle(open.name)} onClose={() => setOpen(null)} testId="invitation-dialog">
          <p className="lead">{words.linkText}</p>
          <CopyText label={words.linkTitle(open.name)} text={open.link} testId="invitation-link" />
          <div className="dialog-buttons">
            <button type="button" className="button primary" data-testid="invitation-done" onClick={() => setOpen(null)}>
              {words.linkDone}
            </button>
          </div>
        </Dialog>
      )}
      {open !== null && 'person' in open && (
        <ConfirmDialog
          title={words.acts[open.act].title(open.person.name)}
          text={words.acts[open.act].text}
          verb={words.acts[open.act].verb}
          keep={words.keep}
          onClose={() => setOpen((now) => (now === open ? null : now))}
          act={async () => {
            const { person } = open;
            const path = { id: person.id };
            if (open.act === 'again' || open.act === 'reset') {
              const params = { path, header: makeOnce()(open.act) };
              const { invitation } =
                open.act === 'again'
                  ? await answered(directory.POST('/api/persons/{id}/invitation', { params }))
                  : await answered(directory.POST('/api/persons/{id}/reset', { params }));
              shown(person, invitation);
              return;
            }
            const params = { path, header: seen(person) };
            if (open.act === 'leave') await answered(directory.POST('/api/persons/{id}/leave', { params }));
            else await answered(directory.PATCH('/api/persons/{id}', { params, body: { change: open.act } }));
            changed();
          }}
        />
      )}
    </>
  );
}

interface ActProps {
  act: Extract<Open, { person: Person }>['act'];
  person: Person;
  onOpen: (open: Open) => void;
}

function Act({ act, person, onOpen }: ActProps) {
  const words = useDirectoryWords().people.acts[act];
  return (
    <button
      type="button"
      className="button small"
      aria-label={`${words.verb} ${person.name}`}
      data-testid={`person-${act}`}
      onClick={() => onOpen({ act, person })}
    >
      {words.verb}
    </button>
  );
}

interface InviteProps {
  organisation: Organisation;
  onClose: () => void;
  onDone: (person: Person, link: string) => void;
}

function InviteDialog({ organisation, onClose, onDone }: InviteProps) {
  const all = useDirectoryWords();
  const words = all.people;
  const [name, setName] = useState('');
  const [login, setLogin] = useState('');
  const [wasSent, setSent] = useState(false);
  const [once] = useState(makeOnce);
  const act = useAct();
  const missing = (text: string): string | null => (wasSent && text.trim() === '' ? all.missing : null);
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    const body = { name: name.trim(), login: login.trim() };
    if (body.name === '' || body.login === '') return;
    const params = { path: { id: organisation.id }, header: once(body) };
    void act.run(async () => {
      const made = await answered(directory.POST('/api/organisations/{id}/persons', { params, body }));
      onDone(made.person, made.invitation);
    });
  }
  return (
    <Dialog title={words.inviteTitle(organisation.name)} onClose={onClose} testId="invite-dialog">
      <form noValidate onSubmit={submit}>
        <Field
          label={words.name}
          hint={words.nameHint}
          error={missing(name)}
          value={name}
          onChange={(event) => setName(event.target.value)}
          required
          data-testid="invite-name"
        />
        <Field
          label={words.login}
          hint={words.loginHint}
          error={missing(login)}
          value={login}
          autoCapitalize="none"
          spellCheck={false}
          onChange={(event) => setLogin(event.target.value)}
          required
          data-testid="invite-login"
        />
        <FormEnd act={act} verb={words.inviteSubmit} testId="invite-submit" />
      </form>
    </Dialog>
  );
}
