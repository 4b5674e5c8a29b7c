/** Organisations as the pages ask for them. */
import { answered, directory, DirectoryProblem, type Schemas } from '../../api/directory';

export type Organisation = Schemas['Organisation'];

/** How many organisations are asked for at once. */
const PAGE = 200;

export function getOrganisation(id: string): Promise<Organisation> {
  return answered(directory.GET('/api/organisations/{id}', { params: { path: { id } } }));
}

/** An organisation after all that are above it, the topmost first: as far up as one may know of them. */
export async function lineageOf(id: string): Promise<Organisation[]> {
  const lineage = [await getOrganisation(id)];
  for (let above = lineage[0]?.parent; above != null; above = lineage[0]?.parent) {
    try {
      lineage.unshift(await getOrganisation(above));
    } catch (error) {
      if (error instanceof DirectoryProblem && error.code === 'not_found') break;
      throw error;
    }
  }
  return lineage;
}

export function childrenOf(parent: string, cursor: string | null): Promise<Schemas['OrganisationPage']> {
  const query = { parent, limit: PAGE, ...(cursor === null ? {} : { cursor }) };
  return answered(directory.GET('/api/organisations', { params: { query } }));
}

/** How many results a search shows: who wants more types more. */
const RESULTS = 50;

export function search(text: string): Promise<Schemas['OrganisationPage']> {
  return answered(directory.GET('/api/organisations', { params: { query: { text, limit: RESULTS } } }));
}
