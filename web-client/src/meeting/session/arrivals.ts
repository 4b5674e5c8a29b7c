/**
 * Says who came and went, but not when the whole room reappears because our own line was back, nor who went and came
 * in the same moment: that is somebody's line that fell, or a page that was loaded again.
 */
import { announcer } from '../../accessibility/announcer';
import { currentWords } from '../../words/words';

/** Arrivals within this time are one sentence. */
const BATCH_MS = 2_000;
/** After our own return everybody seems to arrive; that is no news. */
const QUIET_AFTER_RETURN_MS = 3_000;

export class Arrivals {
  /** Identity → name, in order. */
  private readonly came = new Map<string, string>();
  private readonly went = new Map<string, string>();
  private timer: ReturnType<typeof setTimeout> | null = null;
  private quietUntil = 0;

  beQuiet(): void {
    this.quietUntil = Date.now() + QUIET_AFTER_RETURN_MS;
  }

  joined(identity: string, name: string): void {
    if (!this.went.delete(identity)) this.add(this.came, identity, name);
  }

  left(identity: string, name: string): void {
    if (!this.came.delete(identity)) this.add(this.went, identity, name);
  }

  close(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }

  private add(list: Map<string, string>, identity: string, name: string): void {
    if (Date.now() < this.quietUntil) return;
    list.set(identity, name);
    this.timer ??= setTimeout(() => this.speak(), BATCH_MS);
  }

  private speak(): void {
    this.timer = null;
    const words = currentWords().notices;
    const [firstIn] = this.came.values();
    const [firstOut] = this.went.values();
    if (firstIn !== undefined) {
      announcer.say(this.came.size === 1 ? words.joined(firstIn) : words.joinedMany(firstIn, this.came.size));
    }
    if (firstOut !== undefined) {
      announcer.say(this.went.size === 1 ? words.left(firstOut) : words.leftMany(firstOut, this.went.size));
    }
    this.came.clear();
    this.went.clear();
  }
}
