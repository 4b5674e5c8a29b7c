/** Why a tile's picture is not as it should be: a person must never look at a frozen picture without a reason. */
import type { ParticipantView, QualityWord } from '../session/participant-view';

/**
 * `lost`: nothing comes from this participant. `poor`: its line is bad. `pausedForLine`: the server sends us no picture,
 * for our own line carries no more. `pausedForNode`: it sends none, for it is busy.
 */
export type TileNotice = 'lost' | 'poor' | 'pausedForLine' | 'pausedForNode';

/**
 * The server tells a line that is too thin for its pictures as poor, and pauses them; what it pauses while the line
 * is well, it pauses for its own sake.
 */
export function noticeOn(
  view: Pick<ParticipantView, 'isSelf' | 'quality' | 'isCameraPaused' | 'isScreenPaused'>,
  kind: 'person' | 'screen',
  ownQuality: QualityWord,
): TileNotice | null {
  if (view.isSelf) return null;
  if (view.quality === 'lost') return 'lost';
  if (kind === 'screen' ? view.isScreenPaused : view.isCameraPaused) {
    return ownQuality === 'poor' || ownQuality === 'lost' ? 'pausedForLine' : 'pausedForNode';
  }
  return view.quality === 'poor' ? 'poor' : null;
}
