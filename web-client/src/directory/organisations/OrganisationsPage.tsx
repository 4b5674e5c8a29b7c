/** Organisations: the tree with its search, and what is chosen in it. */
import { useState } from 'react';
import { useDocumentTitle } from '../../app/document-title';
import { navigate } from '../../app/route';
import { useMediaQuery } from '../../appearance/use-media-query';
import { Waiting } from '../../appearance/Waiting';
import { useDirectoryWords } from '../../words/directory-words';
import { useWords } from '../../words/words';
import { ProblemBox } from '../ProblemBox';
import { organisationAddress } from '../route';
import type { Me } from '../session';
import { useAnswer } from '../use-answer';
import { lineageOf, type Organisation } from './lineage';
import { OrganisationDetails } from './OrganisationDetails';
import { OrganisationSearch } from './OrganisationSearch';
import { OrganisationTree } from './OrganisationTree';

/** Where tree and details have room beside each other. */
const WIDE = '(min-width: 60rem)';

/** The topmost organisations that one may know of: above where one belongs, and where one has roles. */
async function rootsOf(me: Me): Promise<Organisation[]> {
  const places = new Set([...me.roles.map(({ organisation }) => organisation), me.person.organisation]);
  const lineages = await Promise.all([...places].map(lineageOf));
  const tops = lineages.flatMap((lineage) => lineage.slice(0, 1));
  return tops.filter((top, at) => tops.findIndex(({ id }) => id === top.id) === at);
}

export function OrganisationsPage({ me, id }: { me: Me; id: string | null }) {
  const { opening, openingLong } = useWords();
  const words = useDirectoryWords().organisations;
  useDocumentTitle(words.documentTitle);
  const isWide = useMediaQuery(WIDE);
  const [changes, setChanges] = useState(0);
  const [isSearching, setSearching] = useState(false);
  const roots = useAnswer(`roots ${me.person.id} ${changes}`, () => rootsOf(me));
  const [lastRoots, setLastRoots] = useState<Organisation[] | null>(null);
  if (roots.value !== null && roots.value !== lastRoots) setLastRoots(roots.value);
  const chosen = id ?? (isWide ? (lastRoots?.[0]?.id ?? null) : null);
  const lineage = useAnswer(chosen === null ? null : `lineage ${chosen} ${changes}`, () => lineageOf(chosen ?? ''));
  const [lastLineage, setLastLineage] = useState<Organisation[]>([]);
  if (lineage.value !== null && lineage.value !== lastLineage) setLastLineage(lineage.value);
  const isShown = lastLineage.at(-1)?.id === chosen;

  const choose = (next: string): void => navigate(organisationAddress(next));
  const showsTree = isWide || id === null;
  const showsDetails = isWide || id !== null;
  return (
    <div className="beside" data-testid="organisations">
      {showsTree && (
        <section className="part tree-part" aria-labelledby="organisations">
          {isWide ? <h2 id="organisations">{words.title}</h2> : <h1 id="organisations">{words.title}</h1>}
          <OrganisationSearch
            label={words.search}
            chosen={chosen}
            onChoose={(organisation) => choose(organisation.id)}
            onSearching={setSearching}
            testId="organisation-search"
          />
          {roots.problem !== null && <ProblemBox problem={roots.problem} onRetry={roots.reload} />}
          {lastRoots === null
            ? roots.problem === null && <Waiting text={opening} longText={openingLong} />
            : !isSearching && (
                <OrganisationTree roots={lastRoots} lineage={isShown ? lastLineage : []} changes={changes} onChoose={choose} />
              )}
        </section>
      )}
      {showsDetails && chosen !== null && (
        <div className="details">
          {!isWide && (
            <button type="button" className="button small" data-testid="back-to-tree" onClick={() => navigate('/admin/organisations')}>
              {words.backToTree}
            </button>
          )}
          {lineage.problem !== null && <ProblemBox problem={lineage.problem} onRetry={lineage.reload} />}
          {isShown ? (
            <OrganisationDetails key={chosen} lineage={lastLineage} onChanged={() => setChanges((n) => n + 1)} />
          ) : (
            lineage.problem === null && <Waiting text={opening} longText={openingLong} />
          )}
        </div>
      )}
    </div>
  );
}
