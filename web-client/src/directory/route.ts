/** Addresses of the directory's pages. */

export type DirectoryRoute =
  | { page: 'setup' }
  | { page: 'invitation' }
  | { page: 'login' }
  | { page: 'account' }
  | { page: 'organisations'; id: string | null }
  | { page: 'audit' };

export function directoryRouteOf(pathname: string): DirectoryRoute {
  const [first, second, third] = pathname.split('/').filter((part) => part !== '');
  if (first === 'setup') return { page: 'setup' };
  if (first === 'invitation') return { page: 'invitation' };
  if (first === 'account') return { page: 'account' };
  if (first === 'admin' && second === 'audit') return { page: 'audit' };
  if (first === 'admin') return { page: 'organisations', id: third ?? null };
  return { page: 'login' };
}

export function organisationAddress(id: string): string {
  return `/admin/organisations/${id}`;
}
