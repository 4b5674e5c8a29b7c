/** The posts of an organisation with their roles and who has them. */
import { useState, type SubmitEvent } from 'react';
import { answered, directory, makeOnce, seen, type Schemas } from '../../api/directory';
import { Choice } from '../../appearance/Choice';
import { Dialog } from '../../appearance/Dialog';
import { Field } from '../../appearance/Field';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { ConfirmDialog } from '../ConfirmDialog';
import { moment } from '../moment';
import { FormEnd } from '../FormEnd';
import { ProblemBox } from '../ProblemBox';
import { useAct, useAnswer } from '../use-answer';
import type { Organisation } from './lineage';
import type { Rights } from './OrganisationDetails';
import { peopleOf } from './People';

type Post = Schemas['Post'];

/** The roles that a post may have; the others are of one matter. */
const ROLES = [
  'head',
  'conference_operator',
  'mediator',
  'petition_receptionist',
  'duty_officer',
  'grid_worker',
  'assistant',
  'superior',
  'system_administrator',
  'security_administrator',
  'auditor',
] as const;

type Open =
  | { act: 'create' }
  | { act: 'appoint' | 'close'; post: Post }
  | { act: 'dismiss'; post: Post; person: string; name: string };

export function Posts({ organisation, may }: { organisation: Organisation; may: Rights }) {
  const { opening, openingLong } = useWords();
  const all = useDirectoryWords();
  const words = all.posts;
  const { id } = organisation;
  const [open, setOpen] = useState<Open | null>(null);
  const maySee = may('see_persons') !== 'no';
  const posts = useAnswer(maySee ? `posts ${id}` : null, async () => {
    const list = await answered(directory.GET('/api/organisations/{id}/posts', { params: { path: { id } } }));
    const isHeld = list.some(({ holders }) => (holders ?? []).length > 0);
    const { persons } = isHeld ? await peopleOf(id, '', null) : { persons: [] };
    return { list, names: new Map(persons.map((person) => [person.id, person.name])) };
  });
  const mayGrant = may('grant_roles') === 'yes' && organisation.state === 'active';
  if (!maySee) return <p className="empty">{all.people.mayNot}</p>;

  const nameOf = (person: string): string => posts.value?.names.get(person) ?? words.ofAnother;
  const roleNames = (post: Post): string => post.roles.map((role) => all.roles[role as keyof typeof all.roles]).join(all.comma);
  function changed(): void {
    setOpen(null);
    posts.reload();
  }
  return (
    <>
      {mayGrant && (
        <div className="part-buttons">
          <button type="button" className="button primary small" data-testid="create-post" onClick={() => setOpen({ act: 'create' })}>
            {words.create}
          </button>
        </div>
      )}
      {posts.problem !== null && <ProblemBox problem={posts.problem} onRetry={posts.reload} />}
      {posts.value === null ? (
        posts.problem === null && <Waiting text={opening} longText={openingLong} />
      ) : posts.value.list.length === 0 ? (
        <p className="empty">{words.none}</p>
      ) : (
        <ul role="list" className="rows">
          {posts.value.list.map((post) => (
            <li key={post.id} data-testid="post">
              <div className="row-words">
                <strong>{post.title}</strong>
                <span className="secondary">{roleNames(post)}</span>
              </div>
              {mayGrant && (
                <span className="row-buttons">
                  <button
                    type="button"
                    className="button small"
                    aria-label={`${words.appoint} ${post.title}`}
                    data-testid="appoint"
                    onClick={() => setOpen({ act: 'appoint', post })}
                  >
                    {words.appoint}
                  </button>
                  <button
                    type="button"
                    className="button small"
                    aria-label={`${words.close} ${post.title}`}
                    data-testid="close-post"
                    onClick={() => setOpen({ act: 'close', post })}
                  >
                    {words.close}
                  </button>
                </span>
              )}
              <ul role="list" className="holders">
                {(post.holders ?? []).length === 0 && <li className="secondary">{words.vacant}</li>}
                {(post.holders ?? []).map((holder) => (
                  <li key={holder.person} data-testid="holder">
                    <span>
                      {nameOf(holder.person)} <span className="secondary numeric">{words.since(moment(holder.since))}</span>
                    </span>
                    {mayGrant && (
                      <button
                        type="button"
                        className="button small"
                        aria-label={`${words.dismiss} ${nameOf(holder.person)}`}
                        data-testid="dismiss"
                        onClick={() => setOpen({ act: 'dismiss', post, person: holder.person, name: nameOf(holder.person) })}
                      >
                        {words.dismiss}
                      </button>
                    )}
                  </li>
                ))}
              </ul>
            </li>
          ))}
        </ul>
      )}
      {open?.act === 'create' && <CreatePost organisation={organisation} onClose={() => setOpen(null)} onDone={changed} />}
      {open?.act === 'appoint' && <Appoint post={open.post} onClose={() => setOpen(null)} onDone={changed} />}
      {open?.act === 'close' && (
        <ConfirmDialog
          title={words.closeTitle(open.post.title)}
          text={words.closeText}
          verb={words.close}
          keep={words.keep}
          onClose={() => setOpen(null)}
          act={async () => {
            const params = { path: { id: open.post.id }, header: seen(open.post) };
            await answered(directory.POST('/api/posts/{id}/close', { params }));
            changed();
          }}
        />
      )}
      {open?.act === 'dismiss' && (
        <ConfirmDialog
          title={words.dismissTitle(open.name, open.post.title)}
          text={words.dismissText}
          verb={words.dismiss}
          keep={words.keep}
          onClose={() => setOpen(null)}
          act={async () => {
            const params = { path: { id: open.post.id, person: open.person } };
            await answered(directory.DELETE('/api/posts/{id}/holders/{person}', { params }));
            changed();
          }}
        />
      )}
    </>
  );
}

interface DialogProps {
  onClose: () => void;
  onDone: () => void;
}

function CreatePost({ organisation, onClose, onDone }: DialogProps & { organisation: Organisation }) {
  const all = useDirectoryWords();
  const words = all.posts;
  const [title, setTitle] = useState('');
  const [roles, setRoles] = useState<readonly string[]>([]);
  const [wasSent, setSent] = useState(false);
  const [once] = useState(makeOnce);
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    setSent(true);
    const body = { title: title.trim(), roles: [...roles] };
    if (body.title === '' || roles.length === 0) return;
    const params = { path: { id: organisation.id }, header: once(body) };
    void act.run(async () => {
      await answered(directory.POST('/api/organisations/{id}/posts', { params, body }));
      onDone();
    });
  }
  return (
    <Dialog title={words.createTitle(organisation.name)} onClose={onClose} testId="post-dialog">
      <form noValidate onSubmit={submit}>
        <Field
          label={words.title}
          hint={words.titleHint}
          error={wasSent && title.trim() === '' ? all.missing : null}
          value={title}
          onChange={(event) => setTitle(event.target.value)}
          required
          data-testid="post-title"
        />
        <fieldset className="group">
          <legend>{words.roles}</legend>
          {wasSent && roles.length === 0 && <p className="field-error">{words.noRole}</p>}
          {ROLES.map((role) => (
            <label key={role} className="switch">
              <input
                type="checkbox"
                checked={roles.includes(role)}
                data-testid={`role-${role}`}
                onChange={(event) =>
                  setRoles(event.target.checked ? [...roles, role] : roles.filter((other) => other !== role))
                }
              />
              <span>{all.roles[role]}</span>
            </label>
          ))}
        </fieldset>
        <FormEnd act={act} verb={words.create} testId="post-submit" />
      </form>
    </Dialog>
  );
}

function Appoint({ post, onClose, onDone }: DialogProps & { post: Post }) {
  const { opening, openingLong } = useWords();
  const words = useDirectoryWords().posts;
  const people = useAnswer(`people ${post.organisation}`, () => peopleOf(post.organisation, '', null));
  const held = new Set((post.holders ?? []).map(({ person }) => person));
  const candidates = (people.value?.persons ?? []).filter(({ id, state }) => !held.has(id) && state !== 'left');
  const [chosen, setChosen] = useState('');
  const person = chosen === '' ? candidates[0]?.id : chosen;
  const act = useAct();
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    if (person === undefined) return;
    void act.run(async () => {
      await answered(directory.PUT('/api/posts/{id}/holders/{person}', { params: { path: { id: post.id, person } } }));
      onDone();
    });
  }
  return (
    <Dialog title={words.appointTitle(post.title)} onClose={onClose} testId="appoint-dialog">
      {people.problem !== null && <ProblemBox problem={people.problem} onRetry={people.reload} />}
      {people.value === null ? (
        people.problem === null && <Waiting text={opening} longText={openingLong} />
      ) : candidates.length === 0 ? (
        <p className="empty">{words.noCandidates}</p>
      ) : (
        <form noValidate onSubmit={submit}>
          <Choice
            label={words.whom}
            options={candidates.map(({ id, name, login }) => [id, `${name} (${login})`] as const)}
            value={person ?? ''}
            onChange={setChosen}
            data-testid="appoint-person"
          />
          <FormEnd act={act} verb={words.appoint} testId="appoint-submit" />
        </form>
      )}
    </Dialog>
  );
}
