/** The pages that are offered to somebody, the one to begin with first. */
import { auditedBy } from './audit/AuditPage';
import type { Me } from './session';

export interface Place {
  page: 'audit' | 'organisations' | 'account';
  address: string;
}

const AUDIT: Place = { page: 'audit', address: '/admin/audit' };
const ORGANISATIONS: Place = { page: 'organisations', address: '/admin/organisations' };
const ACCOUNT: Place = { page: 'account', address: '/account' };

export function placesOf(me: Me): Place[] {
  // A party sees one matter and no organisation.
  const seesOrganisations = me.roles.some(({ role }) => role !== 'party');
  return [...(auditedBy(me).length > 0 ? [AUDIT] : []), ...(seesOrganisations ? [ORGANISATIONS] : []), ACCOUNT];
}
