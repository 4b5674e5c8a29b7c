/** The audit log: what was done in an organisation and all under it. That it was read is written down. */
import { useState, type SubmitEvent } from 'react';
import { announcer } from '../../accessibility/announcer';
import { answered, directory, type Schemas } from '../../api/directory';
import { useDocumentTitle } from '../../app/document-title';
import { Choice } from '../../appearance/Choice';
import { Field } from '../../appearance/Field';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { moment } from '../moment';
import { getOrganisation } from '../organisations/lineage';
import { ProblemBox } from '../ProblemBox';
import type { Me } from '../session';
import { useAct, useAnswer } from '../use-answer';
import { useHeading } from '../use-heading';
import { download, exported, type Format, type Wanted } from './export';

type Entry = Schemas['AuditEntry'];

const DAY_MS = 86_400_000;

/** Where somebody may read the audit log by a role of an auditor. */
export function auditedBy(me: Me): string[] {
  return [...new Set(me.roles.filter(({ role }) => role === 'auditor').map(({ organisation }) => organisation))];
}

export function AuditPage({ me }: { me: Me }) {
  const { opening, openingLong } = useWords();
  const words = useDirectoryWords().audit;
  useDocumentTitle(words.documentTitle);
  const heading = useHeading();
  const audited = auditedBy(me);
  const [organisation, setOrganisation] = useState(audited[0] ?? me.person.organisation);
  const [wanted, setWanted] = useState<Wanted>({});
  const [earlier, setEarlier] = useState<Schemas['AuditPage'] | null>(null);
  const names = useAnswer(`names ${audited.join(' ')}`, async () => {
    const all = await Promise.all(audited.map(getOrganisation));
    return all.map(({ id, name }) => [id, name] as const);
  });
  const ask = (before: number | null): Promise<Schemas['AuditPage']> => {
    const query = { ...wanted, ...(before === null ? {} : { before }) };
    return answered(directory.GET('/api/organisations/{id}/audit', { params: { path: { id: organisation }, query } }));
  };
  const page = useAnswer(`audit ${organisation} ${JSON.stringify(wanted)}`, () => {
    setEarlier(null);
    return ask(null);
  });
  const act = useAct();
  const entries = [...(page.value?.entries ?? []), ...(earlier?.entries ?? [])];
  const next = earlier === null ? page.value?.next : earlier.next;

  return (
    <div className="audit" data-testid="audit">
      <h1 ref={heading} tabIndex={-1}>
        {words.title}
      </h1>
      <section className="part" aria-label={words.filter}>
        <Filter
          organisations={names.value ?? []}
          organisation={organisation}
          actor={wanted.actor ?? ''}
          onActorGone={() => {
            const rest = { ...wanted };
            delete rest.actor;
            setWanted(rest);
          }}
          onWanted={(where, what) => {
            setOrganisation(where);
            setWanted(what);
          }}
        />
        <Export organisation={organisation} wanted={wanted} />
      </section>
      {page.problem !== null && <ProblemBox problem={page.problem} onRetry={page.reload} />}
      {act.problem !== null && <ProblemBox problem={act.problem} />}
      {page.value === null ? (
        page.problem === null && <Waiting text={opening} longText={openingLong} />
      ) : entries.length === 0 ? (
        <p className="empty">{words.none}</p>
      ) : (
        <ol role="list" className="part rows audit-rows" aria-label={words.title}>
          {entries.map((entry) => (
            <EntryRow
              key={entry.sequence}
              entry={entry}
              me={me}
              onActor={(actor) => setWanted({ ...wanted, actor })}
            />
          ))}
        </ol>
      )}
      {next != null && (
        <button
          type="button"
          className="button"
          aria-disabled={act.isBusy}
          data-testid="audit-earlier"
          onClick={() =>
            void act.run(async () => {
              const more = await ask(next);
              setEarlier({ ...more, entries: [...(earlier?.entries ?? []), ...more.entries] });
            })
          }
        >
          {words.earlier}
        </button>
      )}
    </div>
  );
}

interface FilterProps {
  organisations: readonly (readonly [id: string, name: string])[];
  organisation: string;
  actor: string;
  onActorGone: () => void;
  onWanted: (organisation: string, wanted: Wanted) => void;
}

function Filter({ organisations, organisation, actor, onActorGone, onWanted }: FilterProps) {
  const words = useDirectoryWords().audit;
  const [where, setWhere] = useState(organisation);
  const [action, setAction] = useState('');
  const [from, setFrom] = useState('');
  const [until, setUntil] = useState('');
  function submit(event: SubmitEvent): void {
    event.preventDefault();
    // The day that was picked begins at midnight here, and the last one belongs to it whole.
    const start = (day: string): number => new Date(`${day}T00:00`).getTime();
    onWanted(where, {
      ...(action === '' ? {} : { action }),
      ...(actor === '' ? {} : { actor }),
      ...(from === '' ? {} : { from: start(from) }),
      ...(until === '' ? {} : { until: start(until) + DAY_MS }),
    });
  }
  const actions = Object.entries(words.actions);
  return (
    <form noValidate className="filter" onSubmit={submit}>
      {organisations.length > 1 && <Choice label={words.organisation} options={organisations} value={where} onChange={setWhere} />}
      <Choice
        label={words.action}
        options={[['', words.everything], ...actions]}
        value={action}
        onChange={setAction}
        data-testid="audit-action"
      />
      <Field label={words.from} hint="" error={null} type="date" value={from} onChange={(event) => setFrom(event.target.value)} data-testid="audit-from" />
      <Field label={words.until} hint="" error={null} type="date" value={until} onChange={(event) => setUntil(event.target.value)} data-testid="audit-until" />
      <button type="submit" className="button primary" data-testid="audit-filter">
        {words.show}
      </button>
      {actor !== '' && (
        <button type="button" className="button" data-testid="audit-anybody" onClick={onActorGone}>
          {words.anybody}
        </button>
      )}
    </form>
  );
}

function Export({ organisation, wanted }: { organisation: string; wanted: Wanted }) {
  const words = useDirectoryWords().audit;
  const [pages, setPages] = useState(0);
  const act = useAct();
  function take(format: Format): void {
    void act.run(async () => {
      setPages(0);
      const text = await exported(organisation, wanted, format, setPages);
      const type = format === 'csv' ? 'text/csv;charset=utf-8' : 'application/jsonl;charset=utf-8';
      download(text, `audit-${moment(Date.now()).slice(0, 10)}.${format}`, type);
      announcer.notify(words.exported);
    });
  }
  return (
    <div className="part-buttons">
      <button type="button" className="button small" aria-disabled={act.isBusy} data-testid="export-csv" onClick={() => take('csv')}>
        {words.exportCsv}
      </button>
      <button type="button" className="button small" aria-disabled={act.isBusy} data-testid="export-jsonl" onClick={() => take('jsonl')}>
        {words.exportJsonl}
      </button>
      {act.isBusy && pages > 0 && <p role="status">{words.exporting(pages)}</p>}
      {act.problem !== null && <ProblemBox problem={act.problem} />}
    </div>
  );
}

function EntryRow({ entry, me, onActor }: { entry: Entry; me: Me; onActor: (actor: string) => void }) {
  const words = useDirectoryWords().audit;
  const [name, setName] = useState<string | null>(null);
  const act = useAct();
  const { actor_id: actor } = entry;
  const isPerson = entry.actor_kind === 'person' && actor != null;
  const kind = words.actorKinds[entry.actor_kind as keyof typeof words.actorKinds];
  const who = actor === me.person.id ? me.person.name : (name ?? (actor == null ? kind : `${kind} ${shortId(actor)}`));
  const outcome = words.outcomes[entry.outcome as keyof typeof words.outcomes];
  const object = words.objectKinds[entry.object_kind as keyof typeof words.objectKinds];
  const facts: [string, string][] = [
    [words.sequence, String(entry.sequence)],
    [words.object, [object, entry.object_id ?? ''].join(' ')],
    ...(actor == null ? [] : [[words.actor, actor] as [string, string]]),
    ...(entry.address == null ? [] : [[words.address, entry.address] as [string, string]]),
    [words.detail, pretty(entry.detail)],
    [words.hash, entry.hash],
  ];
  return (
    <li data-testid="audit-entry" data-action={entry.action} data-outcome={entry.outcome}>
      <div className="audit-line">
        <span className="numeric secondary">{moment(entry.at)}</span>
        <span>{who}</span>
        <strong>{(words.actions as Record<string, string | undefined>)[entry.action] ?? entry.action}</strong>
        <span className={entry.outcome === 'done' ? 'mark' : 'mark mark-alert'}>{outcome}</span>
        {entry.reason != null && <span className="audit-reason">{words.because(entry.reason)}</span>}
      </div>
      <details className="audit-more">
        <summary>{words.more}</summary>
        <dl className="facts">
          {facts.map(([fact, value]) => (
            <div key={fact}>
              <dt>{fact}</dt>
              <dd className="numeric">{value}</dd>
            </div>
          ))}
        </dl>
        {act.problem !== null && <ProblemBox problem={act.problem} />}
        {isPerson && (
          <div className="part-buttons">
            <button type="button" className="button small" data-testid="audit-actor" onClick={() => onActor(actor)}>
              {words.onlyThis}
            </button>
            {actor !== me.person.id && name === null && (
              <button
                type="button"
                className="button small"
                aria-disabled={act.isBusy}
                onClick={() =>
                  void act.run(async () => {
                    const person = await answered(directory.GET('/api/persons/{id}', { params: { path: { id: actor } } }));
                    setName(person.name);
                  })
                }
              >
                {words.whoIsThis}
              </button>
            )}
          </div>
        )}
      </details>
    </li>
  );
}

/** The end of an identifier, which tells those of one day apart. */
function shortId(id: string): string {
  return `…${id.slice(-6)}`;
}

function pretty(detail: string): string {
  try {
    return JSON.stringify(JSON.parse(detail), null, 1).replace(/[{}"]/g, '').trim();
  } catch {
    return detail;
  }
}
