/** One organisation: what it is, its people, posts and places, and what may be done to it. */
import { useState, type KeyboardEvent } from 'react';
import { announcer } from '../../accessibility/announcer';
import { answered, directory, seen } from '../../api/directory';
import { navigate } from '../../app/route';
import { useDirectoryWords } from '../../words/directory-words';
import { ConfirmDialog } from '../ConfirmDialog';
import { Link } from '../DirectoryFrame';
import { moment } from '../moment';
import { ProblemBox } from '../ProblemBox';
import { organisationAddress } from '../route';
import { useAnswer } from '../use-answer';
import { useHeading } from '../use-heading';
import type { Organisation } from './lineage';
import { CreateDialog, MoveDialog, RenameDialog } from './OrganisationDialogs';
import { People } from './People';
import { Places } from './Places';
import { Posts } from './Posts';

const TABS = ['about', 'people', 'posts', 'places'] as const;
type Tab = (typeof TABS)[number];

/** What one may do here, by the action's code: for what is shown; the server decides. */
export type Rights = (action: string) => 'yes' | 'reason' | 'second_person' | 'no';

interface Props {
  /** The organisation after all that are above it. */
  lineage: readonly Organisation[];
  onChanged: () => void;
}

export function OrganisationDetails({ lineage, onChanged }: Props) {
  const all = useDirectoryWords();
  const words = all.organisations;
  const heading = useHeading();
  const [tab, setTab] = useState<Tab>('about');
  const [dialog, setDialog] = useState<'create' | 'rename' | 'move' | 'close' | null>(null);
  const organisation = lineage.at(-1);
  const id = organisation?.id ?? '';
  const rights = useAnswer(`rights ${id}`, () =>
    answered(directory.GET('/api/organisations/{id}/rights', { params: { path: { id } } })),
  );
  if (organisation === undefined) return null;
  const may: Rights = (action) =>
    (rights.value?.find((right) => right.action === action)?.may ?? 'no') as ReturnType<Rights>;
  const isActive = organisation.state === 'active';
  const mayManage = isActive && may('manage_organisations') === 'yes';
  const isTop = organisation.parent == null;

  function done(said: string): void {
    setDialog(null);
    announcer.notify(said);
    onChanged();
  }

  function press(event: KeyboardEvent): void {
    const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    const next = TABS[(TABS.indexOf(tab) + step + TABS.length) % TABS.length] ?? 'about';
    setTab(next);
    document.getElementById(`tab-${next}`)?.focus();
  }

  return (
    <section className="part" aria-labelledby="organisation" data-testid="organisation" data-id={id}>
      {lineage.length > 1 && (
        <nav aria-label={words.lineage}>
          <ol role="list" className="lineage">
            {lineage.slice(0, -1).map((above) => (
              <li key={above.id}>
                <Link to={organisationAddress(above.id)}>{above.name}</Link>
              </li>
            ))}
          </ol>
        </nav>
      )}
      <h1 ref={heading} id="organisation" tabIndex={-1}>
        {organisation.name}
      </h1>
      {rights.problem !== null && <ProblemBox problem={rights.problem} onRetry={rights.reload} />}
      {mayManage && (
        <div className="part-buttons">
          {organisation.kind !== 'grid' && (
            <button type="button" className="button small" data-testid="create" onClick={() => setDialog('create')}>
              {words.create}
            </button>
          )}
          <button type="button" className="button small" data-testid="rename" onClick={() => setDialog('rename')}>
            {words.rename}
          </button>
          {!isTop && (
            <>
              <button type="button" className="button small" data-testid="move" onClick={() => setDialog('move')}>
                {words.move}
              </button>
              <button type="button" className="button small" data-testid="close" onClick={() => setDialog('close')}>
                {words.close}
              </button>
            </>
          )}
        </div>
      )}
      <div role="tablist" className="tabs" aria-label={words.tabs}>
        {TABS.map((one) => (
          <button
            key={one}
            id={`tab-${one}`}
            type="button"
            role="tab"
            aria-selected={one === tab}
            aria-controls="tab-panel"
            tabIndex={one === tab ? 0 : -1}
            data-testid={`tab-${one}`}
            onClick={() => setTab(one)}
            onKeyDown={press}
          >
            {words.tabNames[one]}
          </button>
        ))}
      </div>
      <div role="tabpanel" id="tab-panel" aria-labelledby={`tab-${tab}`}>
        {tab === 'about' && <About organisation={organisation} />}
        {tab === 'people' && rights.value !== null && <People organisation={organisation} may={may} />}
        {tab === 'posts' && rights.value !== null && <Posts organisation={organisation} may={may} />}
        {tab === 'places' && rights.value !== null && <Places organisation={organisation} may={may} />}
      </div>
      {dialog === 'create' && (
        <CreateDialog
          parent={organisation}
          onClose={() => setDialog(null)}
          onDone={(made) => {
            done(words.created(made.name));
            navigate(organisationAddress(made.id));
          }}
        />
      )}
      {dialog === 'rename' && (
        <RenameDialog organisation={organisation} onClose={() => setDialog(null)} onDone={() => done(words.changed)} />
      )}
      {dialog === 'move' && (
        <MoveDialog organisation={organisation} onClose={() => setDialog(null)} onDone={() => done(words.changed)} />
      )}
      {dialog === 'close' && (
        <ConfirmDialog
          title={words.closeTitle(organisation.name)}
          text={words.closeText}
          verb={words.close}
          keep={words.keep}
          onClose={() => setDialog(null)}
          act={async () => {
            const params = { path: { id }, header: seen(organisation) };
            await answered(directory.POST('/api/organisations/{id}/close', { params }));
            done(words.changed);
          }}
        />
      )}
    </section>
  );
}

function About({ organisation }: { organisation: Organisation }) {
  const words = useDirectoryWords().organisations;
  const history = useAnswer(`history ${organisation.id} ${organisation.version}`, () =>
    answered(directory.GET('/api/organisations/{id}/history', { params: { path: { id: organisation.id } } })),
  );
  const facts: [string, string][] = [
    [words.kind, words.kinds[organisation.kind]],
    ...(organisation.level == null ? [] : [[words.level, words.levels[organisation.level]] as [string, string]]),
    [words.code, organisation.code ?? words.none],
    [words.state, words.states[organisation.state as keyof typeof words.states]],
    [words.createdAt, moment(organisation.created_at)],
    ...(organisation.closed_at == null ? [] : [[words.closedAt, moment(organisation.closed_at)] as [string, string]]),
  ];
  return (
    <>
      <dl className="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd className="numeric">{value}</dd>
          </div>
        ))}
      </dl>
      <h2 className="sub-heading">{words.history}</h2>
      {history.problem !== null && <ProblemBox problem={history.problem} onRetry={history.reload} />}
      <ul role="list" className="rows" data-testid="history">
        {[...(history.value ?? [])].reverse().map((version) => (
          <li key={version.version}>
            <span className="row-words">
              <strong>{words.changes[version.change as keyof typeof words.changes]}</strong>
              <span>{version.name}</span>
            </span>
            <span className="secondary numeric">{moment(version.at)}</span>
          </li>
        ))}
      </ul>
    </>
  );
}
