/**
 * A WebSocket that comes back.
 *
 * After a loss it tries again, waiting longer each time, with some chance in it so that all the
 * browsers of a restarted server do not come back in the same instant. It is "online" once the
 * server has said something, and it forgets its failures then.
 */

const FIRST_DELAY = 500;
const LONGEST_DELAY = 30_000;
const OPEN_TIMEOUT = 10_000;

export class Connection {
  #url = '';
  #greeting = null;
  #socket = null;
  #timer = 0;
  #failures = 0;

  /** What is going on: idle, connecting, online, waiting (until retryAt) or refused (reason). */
  status = 'idle';
  retryAt = 0;
  reason = '';

  constructor({ onEvent, onStatus }) {
    this.onEvent = onEvent;
    this.onStatus = onStatus;
  }

  /** The greeting is what the server is told first, each time. */
  open(url, greeting) {
    this.#url = url;
    this.#greeting = greeting;
    this.#failures = 0;
    this.#connect();
  }

  /** Try now instead of later. Also the way out of a connection that has gone silent. */
  retry() {
    if (this.status !== 'idle') this.#connect();
  }

  send(event) {
    if (this.status !== 'online') return false;
    this.#socket.send(JSON.stringify(event));
    return true;
  }

  #connect() {
    this.#abandon();
    this.#become('connecting');
    const socket = (this.#socket = new WebSocket(this.#url));
    // An abandoned socket may still report; only the present one counts.
    const ifPresent = (handle) => (event) => {
      if (socket === this.#socket) handle(event);
    };
    socket.onopen = ifPresent(() => socket.send(JSON.stringify(this.#greeting)));
    socket.onmessage = ifPresent((event) => this.#receive(event));
    socket.onclose = ifPresent((event) => this.#lose(event));
    this.#timer = setTimeout(() => this.#lose({ code: 1006 }), OPEN_TIMEOUT);
  }

  #receive(message) {
    if (this.status !== 'online') {
      clearTimeout(this.#timer);
      this.#failures = 0;
      this.#become('online');
    }
    this.onEvent(JSON.parse(message.data));
  }

  #lose({ code, reason }) {
    this.#abandon();
    if (code >= 4000) {
      this.reason = reason;
      this.#become('refused');
      return;
    }
    const longest = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#failures++);
    const delay = longest * (0.75 + Math.random() / 4);
    this.retryAt = Date.now() + delay;
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#become('waiting');
  }

  #abandon() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #become(status) {
    this.status = status;
    this.onStatus(status);
  }
}
