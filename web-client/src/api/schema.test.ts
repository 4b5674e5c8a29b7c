// @vitest-environment node
import openapiTS, { astToString, COMMENT_HEADER } from 'openapi-typescript';
import { expect, it } from 'vitest';
import description from '../../openapi.json?raw';
import written from './schema.ts?raw';

it('the types are what the server describes: write them with npm run api-types', async () => {
  expect(written).toBe(COMMENT_HEADER + astToString(await openapiTS(description)));
});
