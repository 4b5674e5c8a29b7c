import { describe, expect, it } from 'vitest';
import { routeOf } from './route';

describe('an address', () => {
  it.each([
    ['/', { page: 'join' }],
    ['/join', { page: 'join' }],
    ['/left', { page: 'left' }],
    ['/m/1234567890', { page: 'meeting', code: '1234567890' }],
    ['/m/123-456-7890/', { page: 'meeting', code: '1234567890' }],
    ['/m/123%20456%207890', { page: 'meeting', code: '1234567890' }],
    ['/m/%E0%A4%A', { page: 'meeting', code: '%E0%A4%A' }],
    ['/login', { page: 'directory' }],
    ['/admin/organisations/0190', { page: 'directory' }],
    ['/administration', { page: 'join' }],
    ['/anything/else', { page: 'join' }],
  ])('%s opens its page', (pathname, route) => expect(routeOf(pathname)).toEqual(route));
});
