/** Waiting that ends early when something happened that makes another attempt worthwhile. */

export class WakeableWait {
  private finish: (() => void) | null = null;

  constructor() {
    window.addEventListener('online', this.wake);
    window.addEventListener('pageshow', this.wake);
    document.addEventListener('visibilitychange', this.onVisibility);
  }

  /** Resolves after `ms`, or at once when woken. */
  wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.wake(), ms);
      this.finish = () => {
        clearTimeout(timer);
        this.finish = null;
        resolve();
      };
    });
  }

  readonly wake = (): void => {
    this.finish?.();
  };

  close(): void {
    window.removeEventListener('online', this.wake);
    window.removeEventListener('pageshow', this.wake);
    document.removeEventListener('visibilitychange', this.onVisibility);
    this.wake();
  }

  private readonly onVisibility = (): void => {
    if (document.visibilityState === 'visible') this.wake();
  };
}
