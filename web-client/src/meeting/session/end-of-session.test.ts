import { DisconnectReason } from 'livekit-client';
import { describe, expect, it } from 'vitest';
import { ApiError, type ApiErrorCode } from '../../api/meetings';
import { endingFor, endingForRefusal, endingWhenTiredOf } from './end-of-session';

describe('the end of a media session', () => {
  it.each([
    [DisconnectReason.CLIENT_INITIATED, 'self'],
    [DisconnectReason.DUPLICATE_IDENTITY, 'elsewhere'],
    [DisconnectReason.PARTICIPANT_REMOVED, 'removed'],
    [DisconnectReason.ROOM_DELETED, 'ended'],
    [DisconnectReason.ROOM_CLOSED, 'ended'],
    [DisconnectReason.SERVER_SHUTDOWN, 'rejoin'],
    [DisconnectReason.STATE_MISMATCH, 'rejoin'],
    [DisconnectReason.JOIN_FAILURE, 'rejoin'],
    [undefined, 'rejoin'],
  ] as const)('for reason %s leads to %s', (reason, ending) => expect(endingFor(reason)).toBe(ending));
});

describe('a refused join', () => {
  const refusal = (code: ApiErrorCode) => new ApiError(code, '', null);

  it('ends only where no retry helps', () => {
    expect(endingForRefusal(refusal('meeting_ended'))).toBe('ended');
    expect(endingForRefusal(refusal('meeting_not_found'))).toBe('notFound');
    for (const code of ['draining', 'server_full', 'overloaded', 'unreachable', 'too_many_attempts'] as const) {
      expect(endingForRefusal(refusal(code))).toBe('rejoin');
    }
  });

  it('says in the end what was the matter', () => {
    expect(endingWhenTiredOf(refusal('server_full'))).toBe('full');
    expect(endingWhenTiredOf(refusal('overloaded'))).toBe('full');
    expect(endingWhenTiredOf(refusal('unreachable'))).toBe('unreachable');
    expect(endingWhenTiredOf(new Error('socket'))).toBe('unreachable');
  });
});
