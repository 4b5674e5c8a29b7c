/** The audit log to be taken away: all pages of it as one file. */
import { answered, directory } from '../../api/directory';

export type Format = 'csv' | 'jsonl';

export interface Wanted {
  action?: string;
  actor?: string;
  from?: number;
  until?: number;
}

/** What tells spreadsheets that a table is in UTF-8. Reading an answer as text takes it away. */
const BYTE_ORDER_MARK = '\ufeff';

/** Joins pages of a table: the mark and the first line of names stand once. */
export function joined(pages: readonly string[], format: Format): string {
  if (format === 'jsonl') return pages.join('');
  const lines = pages.map((page, at) => (at === 0 ? page.replace(BYTE_ORDER_MARK, '') : page.slice(page.indexOf('\n') + 1)));
  return BYTE_ORDER_MARK + lines.join('');
}

/** Asks for page after page. `onPage` is told how many there were so far. */
export async function exported(organisation: string, wanted: Wanted, format: Format, onPage: (pages: number) => void): Promise<string> {
  const pages: string[] = [];
  let before: number | null = null;
  do {
    const query = { ...wanted, format, ...(before === null ? {} : { before }) };
    const call = directory.GET('/api/organisations/{id}/audit/export', {
      params: { path: { id: organisation }, query },
      parseAs: 'text',
    });
    pages.push(await answered<string>(call));
    onPage(pages.length);
    const next: string = (await call).response.headers.get('Terrace-Next') ?? '';
    before = next === '' ? null : Number(next);
  } while (before !== null);
  return joined(pages, format);
}

/** Hands a text to the browser as a file. */
export function download(text: string, name: string, type: string): void {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = Object.assign(document.createElement('a'), { href: address, download: name });
  link.click();
  // Some browsers read it after the press.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
