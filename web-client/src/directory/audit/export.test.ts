import { expect, it } from 'vitest';
import { joined } from './export';

it('the byte order mark and the first line of a table stand once, however many pages there were', () => {
  for (const mark of ['', '\ufeff']) {
    expect(joined([`${mark}a,b\n1,2\n`, `${mark}a,b\n3,4\n`], 'csv')).toBe('\ufeffa,b\n1,2\n3,4\n');
  }
  expect(joined(['{"a":1}\n', '{"a":2}\n'], 'jsonl')).toBe('{"a":1}\n{"a":2}\n');
});
