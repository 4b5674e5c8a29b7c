/** Looks whether anything comes in on the paths of media, by the browser's counters and its own checks. */
import type { Room } from 'livekit-client';
import { isMediaUp } from './outage';

/** What of `RTCIceCandidatePairStats` is read; not every browser counts responses. */
interface PairStats {
  id: string;
  type: string;
  bytesReceived?: number;
  responsesReceived?: number;
}

/** Notes when counters moved last. */
export class Movement {
  private readonly seen = new Map<string, { count: number; at: number }>();

  /** The counters of one look; returns since when the one that moves has stood still. `null`: nothing is counted. */
  look(counts: ReadonlyMap<string, number>, now: number): number | null {
    for (const id of this.seen.keys()) if (!counts.has(id)) this.seen.delete(id);
    let latest: number | null = null;
    for (const [id, count] of counts) {
      const before = this.seen.get(id);
      const at = before === undefined || before.count !== count ? now : before.at;
      this.seen.set(id, { count, at });
      latest = Math.max(latest ?? 0, at);
    }
    return latest;
  }
}

/** The counters of the paths that one sender's or receiver's packets take. */
export function countsOf(stats: Iterable<PairStats>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { id, type, bytesReceived, responsesReceived } of stats) {
    // Where responses are not counted, a quiet meeting looks like a dead line.
    if (type !== 'candidate-pair' || responsesReceived === undefined) continue;
    counts.set(id, (bytesReceived ?? 0) + responsesReceived);
  }
  return counts;
}

export class MediaLine {
  private readonly movements = { up: new Movement(), down: new Movement() };

  constructor(private readonly room: Room) {}

  /** Whether media passes, and if not, when the last of it came; `isUp` is null while that is not known. */
  async look(): Promise<{ isUp: boolean | null; lastAt: number }> {
    const manager = this.room.engine.pcManager;
    const transports = manager === undefined ? [] : [manager.publisher, ...(manager.subscriber === undefined ? [] : [manager.subscriber])];
    const [up, down] = await Promise.all([this.quietSince('up', this.sender()), this.quietSince('down', this.receiver())]);
    const now = Date.now();
    const lastAt = Math.min(up ?? now, down ?? now);
    return { isUp: isMediaUp(transports.map((transport) => transport.getICEConnectionState()), now - lastAt), lastAt };
  }

  private async quietSince(way: 'up' | 'down', end: RTCRtpSender | RTCRtpReceiver | undefined): Promise<number | null> {
    const report = await end?.getStats().catch(() => undefined);
    const stats = report === undefined ? [] : (report as unknown as ReadonlyMap<string, PairStats>).values();
    return this.movements[way].look(countsOf(stats), Date.now());
  }

  /** One of each is enough: all of a connection's media takes one path. */
  private sender(): RTCRtpSender | undefined {
    for (const { track } of this.room.localParticipant.trackPublications.values()) {
      if (track?.sender !== undefined) return track.sender;
    }
    return undefined;
  }

  private receiver(): RTCRtpReceiver | undefined {
    for (const participant of this.room.remoteParticipants.values()) {
      for (const { track } of participant.trackPublications.values()) {
        if (track?.receiver !== undefined) return track.receiver;
      }
    }
    return undefined;
  }
}
