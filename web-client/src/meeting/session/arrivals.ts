/** Says who came and went, but not when the whole room reappears because our own line was back. */
import { announcer } from '../../accessibility/announcer';
import { currentWords } from '../../words/words';

/** Arrivals within this time are one sentence. */
const BATCH_MS = 2_000;
/** After our own return everybody seems to arrive; that is no news. */
const QUIET_AFTER_RETURN_MS = 3_000;

export class Arrivals {
  private came: string[] = [];
  private went: string[] = [];
  private timer: ReturnType<typeof setTimeout> | null = null;
  private quietUntil = 0;

  beQuiet(): void {
    this.quietUntil = Date.now() + QUIET_AFTER_RETURN_MS;
  }

  joined(name: string): void {
    this.add(this.came, name);
  }

  left(name: string): void {
    this.add(this.went, name);
  }

  close(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }

  private add(list: string[], name: string): void {
    if (Date.now() < this.quietUntil) return;
    list.push(name);
    this.timer ??= setTimeout(() => this.speak(), BATCH_MS);
  }

  private speak(): void {
    this.timer = null;
    const words = currentWords().notices;
    const [firstIn] = this.came;
    const [firstOut] = this.went;
    if (firstIn !== undefined) {
      announcer.say(this.came.length === 1 ? words.joined(firstIn) : words.joinedMany(firstIn, this.came.length));
    }
    if (firstOut !== undefined) {
      announcer.say(this.went.length === 1 ? words.left(firstOut) : words.leftMany(firstOut, this.went.length));
    }
    this.came = [];
    this.went = [];
  }
}
