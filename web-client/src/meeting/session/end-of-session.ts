/** What follows when the media session or an attempt to join ends: out for good, or back in by itself. */
import { DisconnectReason } from 'livekit-client';
import type { ApiError } from '../../api/meetings';
import type { DepartureReason } from '../../left/departure';

export type Ending = DepartureReason | 'rejoin';

export function endingFor(reason: DisconnectReason | undefined): Ending {
  switch (reason) {
    case DisconnectReason.CLIENT_INITIATED:
      return 'self';
    case DisconnectReason.DUPLICATE_IDENTITY:
      return 'elsewhere';
    case DisconnectReason.PARTICIPANT_REMOVED:
      return 'removed';
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return 'ended';
    default:
      // A fallen line, a server that restarts or moves, a state that no longer fits: the seat is still ours.
      return 'rejoin';
  }
}

/** An answer to joining that no retry changes is an ending; everything else is worth another attempt. */
export function endingForRefusal(error: ApiError): Ending {
  switch (error.code) {
    case 'meeting_not_found':
      return 'notFound';
    case 'meeting_ended':
      return 'ended';
    case 'invalid_name':
      return 'refused';
    case 'server_full':
    case 'overloaded':
    case 'draining':
    case 'too_many_attempts':
    case 'unreachable':
    case 'other':
      return 'rejoin';
  }
}

/** What to say when the patience for joining has run out. */
export function endingWhenTiredOf(error: unknown): DepartureReason {
  const code = (error as Partial<ApiError> | null)?.code;
  if (code === 'server_full' || code === 'overloaded') return 'full';
  return code === 'other' || code === 'too_many_attempts' ? 'refused' : 'unreachable';
}
