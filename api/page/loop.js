// Work that comes again and again, while somebody looks at the page.
import { Refused, Unreachable } from "./http.js";

/** Runs `work` every `seconds`, one at a time, and not while the tab is hidden. After failures it waits longer. */
export class Loop {
  #timer = 0;
  #running = false;
  #again = false;
  #failures = 0;

  constructor(seconds, work) {
    this.seconds = seconds;
    this.work = work;
    document.addEventListener("visibilitychange", () => this.now());
  }

  /** Run it at once, or once more when the run under way has ended. */
  async now() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    this.#again = this.#running;
    if (this.#running) return;
    this.#running = true;
    try {
      await this.work();
      this.#failures = 0;
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) console.error(error);
      this.#failures += 1;
    }
    this.#running = false;
    if (this.#again) this.now();
    else this.#timer = setTimeout(() => this.now(), this.#pause());
  }

  #pause() {
    return 1000 * Math.max(this.seconds, Math.min(this.seconds * 2 ** this.#failures, 5));
  }
}
